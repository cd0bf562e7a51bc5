// SPDX-License-Identifier: Apache-2.0
// AVX2 and BMI2: no byte compress or expand, so eight bytes at a time through tables of shuffles.
#include "codec/kernels.hpp"

#if defined(__AVX2__)
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include <immintrin.h>

namespace coral::codec {
namespace {

#include "codec/element_loops.hpp"

// For a mask of eight bits: compress[m] brings the bytes whose bit is set to the front; merge[m] takes the next of the
// low eight where a bit is clear, and of the high eight where it is set.
struct Shuffles {
    alignas(64) std::array<std::array<std::uint8_t, 8>, 256> compress{}, merge{};
};
constexpr Shuffles make_shuffles() {
    Shuffles s;
    for (unsigned m = 0; m < 256; ++m) {
        unsigned to = 0, low = 0, high = 8;
        for (unsigned i = 0; i < 8; ++i) {
            if (m >> i & 1) s.compress[m][to++] = static_cast<std::uint8_t>(i);
            s.merge[m][i] = static_cast<std::uint8_t>(m >> i & 1 ? high++ : low++);
        }
        while (to < 8) s.compress[m][to++] = 0x80;
    }
    return s;
}
constexpr Shuffles kShuffles = make_shuffles();

inline __m128i load8(const std::uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
inline void store_some(std::uint8_t* p, __m128i v, std::size_t n) {
    auto word = static_cast<std::uint64_t>(_mm_cvtsi128_si64(v));
    std::memcpy(p, &word, n);
}
inline __m256i load32(const std::uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline std::uint32_t low_mask(std::size_t n) {
    return n >= 32 ? ~std::uint32_t{0} : (std::uint32_t{1} << n) - 1;
}
inline std::size_t count_of(std::uint64_t mask) {
    return static_cast<std::size_t>(_mm_popcnt_u64(mask));
}
// v >= p, unsigned.
inline std::uint32_t at_least(__m256i v, __m256i p) {
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(v, p), v)));
}

// Appends the bytes of in[0..8) that `mask` names. Eight are stored; the caller has room or says how many count.
inline std::size_t put_some(const std::uint8_t* in, unsigned mask, std::uint8_t* out, bool roomy) {
    const __m128i v = _mm_shuffle_epi8(load8(in), load8(kShuffles.compress[mask].data()));
    const std::size_t n = count_of(mask);
    store_some(out, v, roomy ? 8 : n);
    return n;
}

std::size_t partition(const std::uint8_t* in, std::size_t n, std::uint8_t pivot, std::uint8_t* left,
                      std::uint8_t* right, std::uint8_t* bits) {
    const __m256i p = _mm256_set1_epi8(static_cast<char>(pivot));
    std::size_t rights = 0, lefts = 0;
    for (std::size_t at = 0; at < n; at += 32) {
        const std::uint32_t valid = low_mask(n - at);
        const std::uint32_t high = at_least(load32(in + at), p) & valid;
        std::memcpy(bits + at / 8, &high, n - at >= 32 ? 4 : (n - at + 7) / 8);
        const std::uint32_t low = ~high & valid;
        for (unsigned i = 0; i < 32 && at + i < n; i += 8) {
            lefts += put_some(in + at + i, (low >> i) & 0xff, left + lefts, false);
            rights += put_some(in + at + i, (high >> i) & 0xff, right + rights, false);
        }
    }
    return rights;
}

void merge(const std::uint8_t* bits, std::size_t n, Side left, Side right, std::uint8_t* out) {
    const __m128i l = _mm_set1_epi8(static_cast<char>(left.value)), r = _mm_set1_epi8(static_cast<char>(right.value));
    const std::uint8_t* lp = left.stream;
    const std::uint8_t* rp = right.stream;
    for (std::size_t at = 0; at < n; at += 8) {
        const unsigned mask = bits[at / 8];
        const std::size_t width = n - at < 8 ? n - at : 8, ones = count_of(mask);
        const __m128i both = _mm_unpacklo_epi64(lp ? load8(lp) : l, rp ? load8(rp) : r);
        store_some(out + at, _mm_shuffle_epi8(both, load8(kShuffles.merge[mask].data())), width);
        if (lp) lp += width - ones;
        if (rp) rp += ones;
    }
}

std::size_t popcount(const std::uint8_t* bits, std::size_t n) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        std::uint64_t word = 0;
        std::memcpy(&word, bits + at / 8, n - at >= 64 ? 8 : (n - at + 7) / 8);
        if (n - at < 64) word &= (std::uint64_t{1} << (n - at)) - 1;
        count += count_of(word);
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
        count += count_of(word);
    }
    return count;
}

void remap(const std::uint8_t* in, std::size_t n, const std::uint8_t* table, std::uint8_t* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = table[in[i]];
}

inline std::uint32_t within(const std::uint8_t* key, __m256i low, __m256i span, std::size_t left) {
    const __m256i k = _mm256_sub_epi8(load32(key), low);
    return at_least(span, k) & low_mask(left);
}

std::size_t compress(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, std::uint8_t low,
                     std::uint8_t high, std::uint8_t* out) {
    const __m256i l = _mm256_set1_epi8(static_cast<char>(low));
    const __m256i span = _mm256_set1_epi8(static_cast<char>(static_cast<std::uint8_t>(high - low)));
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 32) {
        const std::uint32_t mask = within(key + at, l, span, n - at);
        if (mask == 0) continue;
        for (unsigned i = 0; i < 32; i += 8) {
            if (unsigned some = (mask >> i) & 0xff) count += put_some(in + at + i, some, out + count, false);
        }
    }
    return count;
}

std::size_t in_range(const std::uint8_t* key, std::size_t n, std::uint8_t low, std::uint8_t high) {
    const __m256i l = _mm256_set1_epi8(static_cast<char>(low));
    const __m256i span = _mm256_set1_epi8(static_cast<char>(static_cast<std::uint8_t>(high - low)));
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 32) count += count_of(within(key + at, l, span, n - at));
    return count;
}

std::size_t expand(const std::uint8_t* stream, std::size_t available, const std::uint8_t* key, std::size_t n,
                   std::uint8_t low, std::uint8_t high, std::uint8_t* out) {
    const __m256i l = _mm256_set1_epi8(static_cast<char>(low));
    const __m256i span = _mm256_set1_epi8(static_cast<char>(static_cast<std::uint8_t>(high - low)));
    std::size_t used = 0;
    for (std::size_t at = 0; at < n; at += 32) {
        const std::uint32_t all = within(key + at, l, span, n - at);
        if (all == 0) continue;
        if (count_of(all) > available - used) return available + 1;
        for (unsigned i = 0; i < 32; i += 8) {
            const unsigned mask = (all >> i) & 0xff;
            if (mask == 0) continue;
            const std::size_t some = count_of(mask);
            std::uint64_t next = 0;
            std::memcpy(&next, stream + used, available - used >= 8 ? 8 : available - used);
            const __m128i both =
                _mm_unpacklo_epi64(load8(out + at + i), _mm_cvtsi64_si128(static_cast<long long>(next)));
            // Where a bit is clear the byte stays: byte i of the low half, not the next of it.
            std::uint64_t from;
            std::memcpy(&from, kShuffles.merge[mask].data(), 8);
            const std::uint64_t here = _pdep_u64(mask, 0x0101010101010101u) * 0xff;
            from = (from & here) | (0x0706050403020100u & ~here);
            const std::size_t width = n - at - i < 8 ? n - at - i : 8;
            store_some(out + at + i, _mm_shuffle_epi8(both, _mm_cvtsi64_si128(static_cast<long long>(from))), width);
            used += some;
        }
    }
    return used;
}

inline std::uint32_t has_bit(const std::uint8_t* key, unsigned bit, std::size_t left) {
    const __m256i k = _mm256_and_si256(load32(key), _mm256_set1_epi8(7));
    return at_least(k, _mm256_set1_epi8(static_cast<char>(bit + 1))) & low_mask(left);
}

std::size_t plane_size(const std::uint8_t* key, std::size_t n, unsigned bit) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 32) count += count_of(has_bit(key + at, bit, n - at));
    return count;
}

std::size_t pack_plane(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, unsigned bit,
                       std::uint8_t* out) {
    std::uint64_t pending = 0;
    std::size_t filled = 0, count = 0;
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(7 - bit));
    for (std::size_t at = 0; at < n; at += 32) {
        const std::uint32_t has = has_bit(key + at, bit, n - at);
        const auto set = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(load32(in + at), shift)));
        pending |= static_cast<std::uint64_t>(_pext_u32(set, has)) << filled;
        const std::size_t some = count_of(has);
        filled += some;
        count += some;
        if (filled >= 32) {
            std::memcpy(out, &pending, 4);
            out += 4;
            pending >>= 32;
            filled -= 32;
        }
    }
    std::memcpy(out, &pending, (filled + 7) / 8);
    return count;
}

std::size_t unpack_plane(const std::uint8_t* packed, std::size_t available, const std::uint8_t* key, std::size_t n,
                         unsigned bit, std::uint8_t* inout) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 32) {
        const std::uint32_t has = has_bit(key + at, bit, n - at);
        if (has == 0) continue;
        const std::size_t some = count_of(has), byte = count / 8;
        if (count + some > available * 8) return available * 8 + 1;
        std::uint64_t word = 0;
        std::memcpy(&word, packed + byte, available - byte >= 8 ? 8 : available - byte);
        const std::uint32_t set = _pdep_u32(static_cast<std::uint32_t>(word >> (count % 8)), has);
        for (unsigned i = 0; i < 32; i += 8) {
            const unsigned some_bits = (set >> i) & 0xff;
            if (some_bits == 0) continue;
            std::uint64_t v;
            std::memcpy(&v, inout + at + i, 8);
            v |= _pdep_u64(some_bits, 0x0101010101010101u) << bit;
            std::memcpy(inout + at + i, &v, n - at - i < 8 ? n - at - i : 8);
        }
        count += some;
    }
    return count;
}

const Kernels kTable = {"avx2",   partition, merge,  popcount,   take,       remap,        either_loop,
                        compress, in_range,  expand, plane_size, pack_plane, unpack_plane, CORAL_ELEMENT_KERNELS};

}  // namespace

const Kernels* const kAvx2Kernels = &kTable;

}  // namespace coral::codec
#endif
