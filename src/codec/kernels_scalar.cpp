// SPDX-License-Identifier: Apache-2.0
// The reference: what every other path must equal to the byte.
#include <bit>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "codec/kernels.hpp"

namespace coral::codec {
namespace {

#include "codec/element_loops.hpp"

std::uint64_t load_bits(const std::uint8_t* bits, std::size_t at, std::size_t n) {
    std::uint64_t word = 0;
    std::memcpy(&word, bits + at / 8, n - at >= 64 ? 8 : (n - at + 7) / 8);
    return word;
}

std::size_t partition(const std::uint8_t* in, std::size_t n, std::uint8_t pivot, std::uint8_t* left,
                      std::uint8_t* right, std::uint8_t* bits) {
    std::size_t lefts = 0, rights = 0;
    for (std::size_t at = 0; at < n; at += 8) {
        unsigned mask = 0;
        for (std::size_t i = 0; i < 8 && at + i < n; ++i) {
            std::uint8_t v = in[at + i];
            unsigned high = v >= pivot;
            mask |= high << i;
            // One store: the halves lie behind each other, and a spare one would hit the other half.
            *(high ? right + rights : left + lefts) = v;
            lefts += 1 - high;
            rights += high;
        }
        bits[at / 8] = static_cast<std::uint8_t>(mask);
    }
    return rights;
}

void merge(const std::uint8_t* bits, std::size_t n, Side left, Side right, std::uint8_t* out) {
    // A constant side is a stream that does not move.
    const std::uint8_t* sides[2] = {left.stream ? left.stream : &left.value,
                                    right.stream ? right.stream : &right.value};
    const std::size_t step[2] = {left.stream ? 1u : 0u, right.stream ? 1u : 0u};
    for (std::size_t i = 0; i < n; ++i) {
        unsigned bit = (bits[i / 8] >> (i % 8)) & 1u;
        out[i] = *sides[bit];
        sides[bit] += step[bit];
    }
}

std::size_t popcount(const std::uint8_t* bits, std::size_t n) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        std::uint64_t word = load_bits(bits, at, n);
        if (n - at < 64) word &= (std::uint64_t{1} << (n - at)) - 1;
        count += static_cast<std::size_t>(std::popcount(word));
    }
    return count;
}

std::size_t take(const std::uint8_t* in, unsigned shift, std::size_t n, std::uint8_t* out) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        std::uint64_t word = 0;
        std::memcpy(&word, in + at / 8, 8);
        word = word >> shift | std::uint64_t{in[at / 8 + 8]} << 1 << (63 - shift);
        if (n - at < 64) word &= (std::uint64_t{1} << (n - at)) - 1;
        std::memcpy(out + at / 8, &word, 8);
        count += static_cast<std::size_t>(std::popcount(word));
    }
    return count;
}

void remap(const std::uint8_t* in, std::size_t n, const std::uint8_t* table, std::uint8_t* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = table[in[i]];
}

std::size_t compress(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, std::uint8_t low,
                     std::uint8_t high, std::uint8_t* out) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) {
        out[count] = in[i];
        count += static_cast<std::uint8_t>(key[i] - low) <= static_cast<std::uint8_t>(high - low);
    }
    return count;
}

std::size_t in_range(const std::uint8_t* key, std::size_t n, std::uint8_t low, std::uint8_t high) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) {
        count += static_cast<std::uint8_t>(key[i] - low) <= static_cast<std::uint8_t>(high - low);
    }
    return count;
}

std::size_t expand(const std::uint8_t* stream, std::size_t available, const std::uint8_t* key, std::size_t n,
                   std::uint8_t low, std::uint8_t high, std::uint8_t* out) {
    std::size_t used = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (static_cast<std::uint8_t>(key[i] - low) > static_cast<std::uint8_t>(high - low)) continue;
        if (used >= available) return available + 1;
        out[i] = stream[used++];
    }
    return used;
}

std::size_t plane_size(const std::uint8_t* key, std::size_t n, unsigned bit) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) count += (key[i] & 7u) > bit;
    return count;
}

std::size_t pack_plane(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, unsigned bit,
                       std::uint8_t* out) {
    std::size_t count = 0;
    std::uint8_t byte = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if ((key[i] & 7u) <= bit) continue;
        byte = static_cast<std::uint8_t>(byte | ((in[i] >> bit) & 1u) << (count % 8));
        if (++count % 8 == 0) {
            out[count / 8 - 1] = byte;
            byte = 0;
        }
    }
    if (count % 8 != 0) out[count / 8] = byte;
    return count;
}

std::size_t unpack_plane(const std::uint8_t* packed, std::size_t available, const std::uint8_t* key, std::size_t n,
                         unsigned bit, std::uint8_t* inout) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if ((key[i] & 7u) <= bit) continue;
        if (count >= available * 8) return available * 8 + 1;
        inout[i] = static_cast<std::uint8_t>(inout[i] | ((packed[count / 8] >> (count % 8)) & 1u) << bit);
        ++count;
    }
    return count;
}

#if defined(CORAL_X86_KERNELS)
// Here, not in their files: what is compiled there may need the very instructions that are asked about.
const Kernels* avx512() {
    bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
               __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("bmi2");
    return has ? kAvx512Kernels : nullptr;
}
const Kernels* avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? kAvx2Kernels : nullptr;
}
#else
const Kernels* avx512() {
    return nullptr;
}
const Kernels* avx2() {
    return nullptr;
}
#endif

const Kernels* chosen() {
    const char* text = std::getenv("CORAL_CODEC_PATH");
    std::string_view wanted = text ? text : "";
    if (wanted == "scalar") return &kScalarKernels;
    if (wanted != "avx2") {
        if (const Kernels* best = avx512()) return best;
    }
    if (const Kernels* next = avx2()) return next;
    return &kScalarKernels;
}

}  // namespace

const Kernels kScalarKernels = {
    "scalar", partition, merge,  popcount,   take,       remap,        either_loop,
    compress, in_range,  expand, plane_size, pack_plane, unpack_plane, CORAL_ELEMENT_KERNELS};

const Kernels* kernels_named(std::string_view name) {
    if (name == "scalar") return &kScalarKernels;
    if (name == "avx2") return avx2();
    return name == "avx512" ? avx512() : nullptr;
}

const Kernels& kernels() {
    static const Kernels* const best = chosen();
    return *best;
}

}  // namespace coral::codec
