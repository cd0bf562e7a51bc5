// SPDX-License-Identifier: Apache-2.0
// SHA-256 with the processor's own rounds (SHA-NI), of one stream and of two at once. Compiled with -msha -mavx, so
// nothing here may be called before has_sha_ni() said yes, and nothing inline of other headers may be used: the linker
// could take this file's copy for the whole program.
//
// After FIPS 180-4, 6.2, and Intel's description of the instructions: SHA256RNDS2 does two rounds on the working
// variables, held as {A,B,E,F} and {C,D,G,H}; SHA256MSG1 and SHA256MSG2 compute four words of the message schedule.
#include "base/sha256_blocks.hpp"

#if CORAL_X86_KERNELS

#include <immintrin.h>

namespace coral::sha256 {
namespace {

alignas(16) constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

struct Working {
    __m128i abef, cdgh;
};

inline __m128i load(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

// Words in memory are A B C D E F G H; in a register the highest is the first.
inline Working working(const std::uint32_t* state) {
    const __m128i abcd = load(state), efgh = load(state + 4);
    return {_mm_shuffle_epi32(_mm_unpacklo_epi64(efgh, abcd), 0xB1),
            _mm_shuffle_epi32(_mm_unpackhi_epi64(efgh, abcd), 0xB1)};
}

inline void put(const Working& from, std::uint32_t* state) {
    const __m128i efab = _mm_shuffle_epi32(from.abef, 0xB1), ghcd = _mm_shuffle_epi32(from.cdgh, 0xB1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_unpackhi_epi64(efab, ghcd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_unpacklo_epi64(efab, ghcd));
}

inline void add(Working& to, const Working& from) {
    to.abef = _mm_add_epi32(to.abef, from.abef);
    to.cdgh = _mm_add_epi32(to.cdgh, from.cdgh);
}

// Words 4q to 4q+3 of the message schedule; the 16 before them are in `last`, where they replace the oldest.
inline __m128i schedule(__m128i (&last)[4], const std::byte* block, int q) {
    __m128i& words = last[q % 4];
    if (q < 4) {
        const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        words = _mm_shuffle_epi8(load(block + 16 * q), big_endian);
    } else {
        const __m128i before7 = _mm_alignr_epi8(last[(q + 3) % 4], last[(q + 2) % 4], 4);
        const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(words, last[(q + 1) % 4]), before7);
        words = _mm_sha256msg2_epu32(sum, last[(q + 3) % 4]);
    }
    return words;
}

inline void four_rounds(Working& v, __m128i words, int q) {
    const __m128i keyed = _mm_add_epi32(words, load(kRound + 4 * q));
    v.cdgh = _mm_sha256rnds2_epu32(v.cdgh, v.abef, keyed);
    v.abef = _mm_sha256rnds2_epu32(v.abef, v.cdgh, _mm_shuffle_epi32(keyed, 0x0E));
}

}  // namespace

void compress(State& state, const std::byte* blocks, std::size_t count) {
    std::uint32_t* const words = reinterpret_cast<std::uint32_t*>(&state);
    Working v = working(words);
    for (; count > 0; --count, blocks += kBlock) {
        const Working before = v;
        __m128i last[4];
#pragma GCC unroll 16
        for (int q = 0; q < 16; ++q) four_rounds(v, schedule(last, blocks, q), q);
        add(v, before);
    }
    put(v, words);
}

// Each stream's rounds wait for one another; the other stream's fill the gaps. The order below, all words first and
// then each stream's four rounds, was the fastest of those tried: the rounds compete with the rest for their port.
void compress_two(State& a, const std::byte* blocks_a, State& b, const std::byte* blocks_b, std::size_t count) {
    std::uint32_t* const words_a = reinterpret_cast<std::uint32_t*>(&a);
    std::uint32_t* const words_b = reinterpret_cast<std::uint32_t*>(&b);
    Working va = working(words_a), vb = working(words_b);
    for (; count > 0; --count, blocks_a += kBlock, blocks_b += kBlock) {
        const Working before_a = va, before_b = vb;
        __m128i last_a[4], last_b[4];
#pragma GCC unroll 16
        for (int q = 0; q < 16; ++q) {
            const __m128i next_a = schedule(last_a, blocks_a, q), next_b = schedule(last_b, blocks_b, q);
            four_rounds(va, next_a, q);
            four_rounds(vb, next_b, q);
        }
        add(va, before_a);
        add(vb, before_b);
    }
    put(va, words_a);
    put(vb, words_b);
}

}  // namespace coral::sha256

#endif
