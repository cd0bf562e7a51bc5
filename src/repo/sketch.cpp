// SPDX-License-Identifier: Apache-2.0
#include "repo/sketch.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace coral::repo {
namespace {

constexpr std::size_t kHeadBytes = 4u << 10;
constexpr std::size_t kMostSamples = 1024;   // bytes
constexpr std::size_t kLeastSamples = 128;   // bytes
constexpr std::size_t kSampledShare = 1024;  // one byte of so many

std::uint64_t element_at(Bytes raw, const codec::Hint& hint, std::size_t index) {
    std::uint64_t value = 0;
    for (unsigned b = 0; b < hint.width; ++b) {
        std::size_t at = index * hint.width + (hint.big_endian ? b : hint.width - 1u - b);
        value = value << 8 | std::to_integer<std::uint64_t>(raw[at]);
    }
    return value;
}

// Floats to integers of the same order (docs/codec.md, DELTA).
std::uint64_t ordered(std::uint64_t value, const codec::Hint& hint) {
    if (hint.element != codec::Hint::Class::kFloat) return value;
    const unsigned bits = 8u * hint.width;
    const std::uint64_t top = std::uint64_t{1} << (bits - 1), all = top | (top - 1);
    return (value & top) != 0 ? value ^ all : value ^ top;
}

// Multiplicative hashing: places that follow no row or column of a matrix, the same in every version of this program.
std::size_t scattered(std::size_t i, std::size_t range) {
    std::uint64_t h = (i + 1) * 0x9e3779b97f4a7c15u;
    return static_cast<std::size_t>((h >> 32) * range >> 32);
}

std::uint64_t sample(const Sketch& sketch, std::size_t index) {
    std::uint64_t value = 0;
    std::memcpy(&value, sketch.samples.data() + index * sketch.hint.width, sketch.hint.width);
    return value;
}

// What a symbol costs, from how often it comes: an ideal code, with half a count for the rest of the world.
double entropy(const std::array<std::uint32_t, 66>& counts, double n) {
    double bits = 0;
    for (std::uint32_t c : counts) {
        if (c > 0) bits += static_cast<double>(c) * std::log2(n / static_cast<double>(c));
    }
    return bits / n;
}

}  // namespace

Sketch sketch_of(Bytes raw, codec::Hint hint) {
    Sketch sketch;
    sketch.hint = hint;
    sketch.length = static_cast<std::uint32_t>(raw.size());
    const unsigned width = hint.width;
    for (std::size_t i = 0; i < Sketch::kHead; ++i) {
        std::uint64_t value = ordered(element_at(raw, hint, scattered(i, kHeadBytes / width)), hint);
        sketch.head[i] = static_cast<std::uint16_t>(width == 1 ? value << 8 : value >> (8 * width - 16));
    }
    const std::size_t n = raw.size() / width;
    const std::size_t bytes = std::clamp(raw.size() / kSampledShare, kLeastSamples, kMostSamples);
    const std::size_t count = bytes / width, stretch = n / count;
    sketch.samples.resize(count * width);
    for (std::size_t i = 0; i < count; ++i) {
        std::uint64_t value = element_at(raw, hint, i * stretch + scattered(i, stretch));
        std::memcpy(sketch.samples.data() + i * width, &value, width);
    }
    return sketch;
}

// Bit lengths of the differences: one lost element among equal ones counts no more than sixteen small changes. Read
// from the exponents of floats, which is exact here and which the compiler makes vectors of, but not where this is part
// of another loop: a search over 100,000 segments is this and little else.
unsigned head_distance(const std::array<std::uint16_t, Sketch::kHead>& a,
                       const std::array<std::uint16_t, Sketch::kHead>& b) {
    static_assert(std::numeric_limits<float>::is_iec559);
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < Sketch::kHead; ++i) {
        float difference = std::fabs(static_cast<float>(static_cast<int>(a[i]) - static_cast<int>(b[i])));
        sum += std::bit_cast<std::uint32_t>(difference + 0.5f) >> 23;  // 126 + the bit length
    }
    return sum - 126 * std::uint32_t{Sketch::kHead};
}

double solo_estimate(const Sketch& value) {
    const unsigned width = value.hint.width;
    const std::size_t n = value.samples.size() / width;
    if (n == 0) return 8.0 * width;
    std::array<std::uint32_t, 66> counts{};
    std::uint32_t zeros = 0;
    for (std::size_t i = 0; i < n; ++i) {
        std::uint64_t v = sample(value, i);
        if (v == 0) {
            ++zeros;
            continue;
        }
        // The highest byte below the sign is what SOLO codes; 64 bins of four neighbours are enough to tell its spread.
        ++counts[static_cast<std::size_t>(v << 1 >> (8 * width - 6)) & 63];
    }
    const double rest = static_cast<double>(n - zeros);
    if (rest == 0) return 0;
    const bool is_float = value.hint.element == codec::Hint::Class::kFloat;
    double coded = is_float && width > 1 ? std::min(8.0, entropy(counts, rest) + 2) : 8;
    return rest / static_cast<double>(n) * (8.0 * width - 8 + coded) + (zeros > 0 ? 0.5 : 0);
}

double delta_estimate(const Sketch& value, const Sketch& base) {
    if (value.hint.width != base.hint.width || value.hint.element != base.hint.element ||
        value.hint.big_endian != base.hint.big_endian || value.samples.size() != base.samples.size() ||
        value.length != base.length || value.samples.empty()) {
        return std::numeric_limits<double>::infinity();
    }
    const unsigned width = value.hint.width;
    const std::size_t n = value.samples.size() / width;
    const std::uint64_t all = width == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * width)) - 1;
    const std::uint64_t top = (all >> 1) + 1;
    std::array<std::uint32_t, 66> counts{};
    double extra = 0;
    for (std::size_t i = 0; i < n; ++i) {
        std::uint64_t a = sample(value, i), b = sample(base, i);
        if (a == 0 && b != 0) {
            ++counts[65];
            continue;
        }
        std::uint64_t d = (ordered(a, value.hint) - ordered(b, base.hint)) & all;
        std::uint64_t zigzag = (d & top) != 0 ? ((~d & all) << 1) | 1 : d << 1;
        auto length = static_cast<unsigned>(std::bit_width(zigzag));
        ++counts[length];
        if (length > 1) extra += length - 1;
    }
    return entropy(counts, static_cast<double>(n)) + extra / static_cast<double>(n);
}

}  // namespace coral::repo
