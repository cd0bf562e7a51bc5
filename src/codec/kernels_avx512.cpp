// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VBMI2 (Ice Lake, Zen 4 and later). Compression goes to a register and is then stored: to memory it is
// microcoded on Zen 4.
#include "codec/kernels.hpp"

#if defined(__AVX512VBMI2__)
#include <bit>
#include <cstring>
#include <type_traits>

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of _mm512_undefined in GCC 12
#include <immintrin.h>

namespace coral::codec {
namespace {

#include "codec/element_loops.hpp"

inline __mmask64 low_mask(std::size_t n) {
    return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}
inline __m512i load(const std::uint8_t* p) {
    return _mm512_loadu_si512(p);
}
inline std::uint64_t bits_at(const std::uint8_t* bits, std::size_t at, std::size_t n) {
    std::uint64_t word = 0;
    std::memcpy(&word, bits + at / 8, n - at >= 64 ? 8 : (n - at + 7) / 8);
    return word & low_mask(n - at);
}
inline std::size_t count_of(std::uint64_t mask) {
    return static_cast<std::size_t>(_mm_popcnt_u64(mask));
}

std::size_t partition(const std::uint8_t* in, std::size_t n, std::uint8_t pivot, std::uint8_t* left,
                      std::uint8_t* right, std::uint8_t* bits) {
    const __m512i p = _mm512_set1_epi8(static_cast<char>(pivot));
    std::size_t rights = 0, lefts = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        const __mmask64 valid = low_mask(n - at);
        const __m512i v = load(in + at);
        const __mmask64 high = _mm512_mask_cmpge_epu8_mask(valid, v, p);
        const __mmask64 low = valid & ~high;
        std::uint64_t word = high;
        std::memcpy(bits + at / 8, &word, n - at >= 64 ? 8 : (n - at + 7) / 8);
        const std::size_t highs = count_of(high), lows = count_of(low);
        // Masked: the two halves lie behind each other in one array.
        _mm512_mask_storeu_epi8(left + lefts, low_mask(lows), _mm512_maskz_compress_epi8(low, v));
        _mm512_mask_storeu_epi8(right + rights, low_mask(highs), _mm512_maskz_compress_epi8(high, v));
        lefts += lows;
        rights += highs;
    }
    return rights;
}

template <bool kLeftStream, bool kRightStream>
void merge_of(const std::uint8_t* bits, std::size_t n, Side left, Side right, std::uint8_t* out) {
    const __m512i l = _mm512_set1_epi8(static_cast<char>(left.value));
    const __m512i r = _mm512_set1_epi8(static_cast<char>(right.value));
    const std::uint8_t* lp = left.stream;
    const std::uint8_t* rp = right.stream;
    std::size_t at = 0;
    auto step = [&](std::uint64_t mask, std::size_t width) {
        __m512i v = kLeftStream ? _mm512_maskz_expand_epi8(~mask, load(lp)) : l;
        v = kRightStream ? _mm512_mask_expand_epi8(v, mask, load(rp)) : _mm512_mask_mov_epi8(v, mask, r);
        if (width == 64)
            _mm512_storeu_si512(out + at, v);
        else
            _mm512_mask_storeu_epi8(out + at, low_mask(width), v);
        const std::size_t ones = count_of(mask);
        rp += kRightStream ? ones : 0;
        lp += kLeftStream ? width - ones : 0;
    };
    for (; at + 64 <= n; at += 64) {
        std::uint64_t mask;
        std::memcpy(&mask, bits + at / 8, 8);
        step(mask, 64);
    }
    if (at < n) step(bits_at(bits, at, n), n - at);
}

void merge(const std::uint8_t* bits, std::size_t n, Side left, Side right, std::uint8_t* out) {
    if (left.stream && right.stream) return merge_of<true, true>(bits, n, left, right, out);
    if (left.stream) return merge_of<true, false>(bits, n, left, right, out);
    if (right.stream) return merge_of<false, true>(bits, n, left, right, out);
    merge_of<false, false>(bits, n, left, right, out);
}

// Not _mm512_reduce_add_epi64: GCC 12 takes what its own header leaves undefined for a mistake of ours.
std::size_t total_of(__m512i counts) {
    std::uint64_t lanes[8];
    _mm512_storeu_si512(lanes, counts);
    std::size_t total = 0;
    for (std::uint64_t lane : lanes) total += static_cast<std::size_t>(lane);
    return total;
}

std::size_t popcount(const std::uint8_t* bits, std::size_t n) {
    std::size_t at = 0, count = 0;
    if (n >= 512) {
        __m512i sum = _mm512_setzero_si512();
        for (; at + 512 <= n; at += 512) sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(load(bits + at / 8)));
        count = total_of(sum);
    }
    for (; at < n; at += 64) count += count_of(bits_at(bits, at, n));
    return count;
}

std::size_t take(const std::uint8_t* in, unsigned shift, std::size_t n, std::uint8_t* out) {
    const __m512i by = _mm512_set1_epi64(static_cast<long long>(shift)), all = _mm512_set1_epi64(-1);
    const __m512i places = _mm512_set_epi64(448, 384, 320, 256, 192, 128, 64, 0);
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t at = 0; at < n; at += 512) {
        const std::uint8_t* p = in + at / 8;
        __m512i word = _mm512_shrdv_epi64(load(p), load(p + 8), by);
        if (n - at < 512) {  // by how much too long each word is: beyond 64 the shift leaves nothing
            const __m512i left = _mm512_sub_epi64(_mm512_set1_epi64(static_cast<long long>(n - at)), places);
            const __m512i over = _mm512_sub_epi64(_mm512_set1_epi64(64), left);
            word = _mm512_and_si512(word, _mm512_srlv_epi64(all, _mm512_max_epi64(over, _mm512_setzero_si512())));
        }
        _mm512_storeu_si512(out + at / 8, word);
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(word));
    }
    return total_of(sum);
}

void remap(const std::uint8_t* in, std::size_t n, const std::uint8_t* table, std::uint8_t* out) {
    const __m512i t0 = load(table), t1 = load(table + 64), t2 = load(table + 128), t3 = load(table + 192);
    for (std::size_t at = 0; at < n; at += 64) {
        const __m512i v = load(in + at);
        const __m512i low = _mm512_permutex2var_epi8(t0, v, t1);
        const __m512i high = _mm512_permutex2var_epi8(t2, v, t3);
        const __m512i found = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(v), high);
        _mm512_mask_storeu_epi8(out + at, low_mask(n - at), found);
    }
}

inline __mmask64 within(__m512i key, __m512i low, __m512i span, __mmask64 valid) {
    return _mm512_mask_cmple_epu8_mask(valid, _mm512_sub_epi8(key, low), span);
}

std::size_t compress(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, std::uint8_t low,
                     std::uint8_t high, std::uint8_t* out) {
    const __m512i l = _mm512_set1_epi8(static_cast<char>(low));
    const __m512i span = _mm512_set1_epi8(static_cast<char>(static_cast<std::uint8_t>(high - low)));
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        const __mmask64 mask = within(load(key + at), l, span, low_mask(n - at));
        const std::size_t some = count_of(mask);
        _mm512_mask_storeu_epi8(out + count, low_mask(some), _mm512_maskz_compress_epi8(mask, load(in + at)));
        count += some;
    }
    return count;
}

std::size_t in_range(const std::uint8_t* key, std::size_t n, std::uint8_t low, std::uint8_t high) {
    const __m512i l = _mm512_set1_epi8(static_cast<char>(low));
    const __m512i span = _mm512_set1_epi8(static_cast<char>(static_cast<std::uint8_t>(high - low)));
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) count += count_of(within(load(key + at), l, span, low_mask(n - at)));
    return count;
}

std::size_t expand(const std::uint8_t* stream, std::size_t available, const std::uint8_t* key, std::size_t n,
                   std::uint8_t low, std::uint8_t high, std::uint8_t* out) {
    const __m512i l = _mm512_set1_epi8(static_cast<char>(low));
    const __m512i span = _mm512_set1_epi8(static_cast<char>(static_cast<std::uint8_t>(high - low)));
    std::size_t used = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        const __mmask64 mask = within(load(key + at), l, span, low_mask(n - at));
        const std::size_t some = count_of(mask);
        if (some > available - used) return available + 1;
        const __m512i next = _mm512_maskz_loadu_epi8(low_mask(some), stream + used);
        const __m512i v = _mm512_mask_expand_epi8(load(out + at), mask, next);
        _mm512_mask_storeu_epi8(out + at, low_mask(n - at), v);
        used += some;
    }
    return used;
}

std::size_t plane_size(const std::uint8_t* key, std::size_t n, unsigned bit) {
    const __m512i seven = _mm512_set1_epi8(7), b = _mm512_set1_epi8(static_cast<char>(bit));
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        count += count_of(_mm512_mask_cmpgt_epu8_mask(low_mask(n - at), _mm512_and_si512(load(key + at), seven), b));
    }
    return count;
}

std::size_t pack_plane(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, unsigned bit,
                       std::uint8_t* out) {
    const __m512i seven = _mm512_set1_epi8(7), b = _mm512_set1_epi8(static_cast<char>(bit));
    const __m512i wanted = _mm512_set1_epi8(static_cast<char>(1u << bit));
    std::uint64_t pending = 0;
    std::size_t filled = 0, count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        const __mmask64 has = _mm512_mask_cmpgt_epu8_mask(low_mask(n - at), _mm512_and_si512(load(key + at), seven), b);
        if (has == 0) continue;
        const std::uint64_t set = _mm512_test_epi8_mask(load(in + at), wanted);
        const std::uint64_t packed = _pext_u64(set, has);
        const std::size_t some = count_of(has);
        pending |= packed << filled;
        if (filled + some >= 64) {
            std::memcpy(out, &pending, 8);
            out += 8;
            pending = filled ? packed >> (64 - filled) : 0;
            filled = filled + some - 64;
        } else {
            filled += some;
        }
        count += some;
    }
    std::memcpy(out, &pending, (filled + 7) / 8);
    return count;
}

std::size_t unpack_plane(const std::uint8_t* packed, std::size_t available, const std::uint8_t* key, std::size_t n,
                         unsigned bit, std::uint8_t* inout) {
    const __m512i seven = _mm512_set1_epi8(7), b = _mm512_set1_epi8(static_cast<char>(bit));
    const __m512i wanted = _mm512_set1_epi8(static_cast<char>(1u << bit));
    std::size_t count = 0;
    for (std::size_t at = 0; at < n; at += 64) {
        const __mmask64 has = _mm512_mask_cmpgt_epu8_mask(low_mask(n - at), _mm512_and_si512(load(key + at), seven), b);
        if (has == 0) continue;
        const std::size_t some = count_of(has);
        if (count + some > available * 8) return available * 8 + 1;
        // The next 64 bits, from up to nine bytes, none of them beyond the end.
        const std::size_t byte = count / 8, shift = count % 8, left = available - byte;
        std::uint64_t word = 0, more = 0;
        if (left >= 9) {
            std::memcpy(&word, packed + byte, 8);
            more = packed[byte + 8];
        } else {
            std::memcpy(&word, packed + byte, left < 8 ? left : 8);
        }
        word = shift ? (word >> shift) | (more << (64 - shift)) : word;
        const __mmask64 set = _pdep_u64(word, has);
        const __m512i v = load(inout + at);
        _mm512_mask_storeu_epi8(inout + at, low_mask(n - at), _mm512_or_si512(v, _mm512_maskz_mov_epi8(set, wanted)));
        count += some;
    }
    return count;
}

const Kernels kTable = {"avx512", partition, merge,  popcount,   take,       remap,        either_loop,
                        compress, in_range,  expand, plane_size, pack_plane, unpack_plane, CORAL_ELEMENT_KERNELS};

}  // namespace

const Kernels* const kAvx512Kernels = &kTable;

}  // namespace coral::codec
#endif
