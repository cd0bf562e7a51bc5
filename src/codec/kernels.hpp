// SPDX-License-Identifier: Apache-2.0
// The inner loops of the tensor coder, once per instruction set, all with the same results. `n` counts elements; arrays
// of bytes must be followed by kSlack bytes that may be read and written beyond their end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "coral/codec/segment_codec.hpp"

namespace coral::codec {

inline constexpr std::size_t kSlack = 64;
inline constexpr std::size_t kTakeBeyond = 72;

// One side of a merge: a stream of bytes, or (stream == nullptr) one byte again and again.
struct Side {
    const std::uint8_t* stream = nullptr;
    std::uint8_t value = 0;
};

// How a difference becomes a symbol: zigzag values below 2^direct are symbols themselves; above, bit length and `top`
// bits behind the leading one are, and the rest are extra bits.
struct Buckets {
    std::uint8_t direct = 0, top = 0;
};

// The arrays of one chunk in delta form, one entry an element. `extra[j]` is byte j of the extra bits, lowest first,
// zero where there is none; `part` the bits above the whole bytes.
struct DeltaArrays {
    std::uint8_t* symbol = nullptr;
    std::uint8_t* part = nullptr;  // null: only the symbols are wanted
    std::uint8_t* extra[8] = {};
};

// Adam's formulas with their numbers (docs/codec.md).
struct AdamStep {
    Formula formula = Formula::kNone;
    float a = 0, b = 0, c = 0;
};

struct Kernels {
    const char* name;

    // ---- bytes
    // bits[i] = in[i] >= pivot; those below go to `left`, the others to `right`. Returns how many went right. `bits` is
    // ceil(n / 8) bytes, unused bits zero.
    std::size_t (*partition)(const std::uint8_t* in, std::size_t n, std::uint8_t pivot, std::uint8_t* left,
                             std::uint8_t* right, std::uint8_t* bits);
    // The inverse: out[i] is the next byte of `right` where bits[i] is set, else of `left`.
    void (*merge)(const std::uint8_t* bits, std::size_t n, Side left, Side right, std::uint8_t* out);
    std::size_t (*popcount)(const std::uint8_t* bits, std::size_t n);
    // Copies the n bits behind the first `shift` < 8 of `in`, and returns how many of them are set. Reads less than
    // kTakeBeyond bytes behind the last of them; writes whole blocks of 64 bytes, unused bits zero.
    std::size_t (*take)(const std::uint8_t* in, unsigned shift, std::size_t n, std::uint8_t* out);
    void (*remap)(const std::uint8_t* in, std::size_t n, const std::uint8_t* table256, std::uint8_t* out);
    void (*either)(const std::uint8_t* in, std::size_t n, std::uint8_t* inout);  // inout[i] |= in[i]
    // Bytes of `in` where key[i] is in [low, high], in order; returns their number.
    std::size_t (*compress)(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, std::uint8_t low,
                            std::uint8_t high, std::uint8_t* out);
    // How many keys are in [low, high].
    std::size_t (*in_range)(const std::uint8_t* key, std::size_t n, std::uint8_t low, std::uint8_t high);
    // The inverse: sets out[i] there, and leaves the others. `available` bounds the stream; returns how many it took,
    // or more than `available`, and then `out` is undefined.
    std::size_t (*expand)(const std::uint8_t* stream, std::size_t available, const std::uint8_t* key, std::size_t n,
                          std::uint8_t low, std::uint8_t high, std::uint8_t* out);
    // How many keys have (key[i] & 7) > bit.
    std::size_t (*plane_size)(const std::uint8_t* key, std::size_t n, unsigned bit);
    // Bit `bit` of in[i] for every i with (key[i] & 7) > bit, packed. Returns the number of bits. `out` has room for
    // n / 8 + 9 bytes.
    std::size_t (*pack_plane)(const std::uint8_t* in, const std::uint8_t* key, std::size_t n, unsigned bit,
                              std::uint8_t* out);
    // The inverse: ors the bits into inout. `available` bytes; returns the bits taken, or more than there are.
    std::size_t (*unpack_plane)(const std::uint8_t* packed, std::size_t available, const std::uint8_t* key,
                                std::size_t n, unsigned bit, std::uint8_t* inout);

    // ---- elements of 1 << log2 bytes (index log2), little-endian
    // Byte planes, the highest first; floats are rotated left by one, so that the exponent fills the highest byte.
    void (*split[4])(const std::uint8_t* in, std::size_t n, bool rotate, std::uint8_t* const* planes);
    void (*join[4])(const std::uint8_t* const* planes, std::size_t n, bool rotate, std::uint8_t* out);
    // The class key of each base element: the highest byte, of floats after the rotation.
    void (*keys[4])(const std::uint8_t* base, std::size_t n, bool is_float, std::uint8_t* out);
    // The five bits below it.
    void (*mantissas[4])(const std::uint8_t* base, std::size_t n, bool is_float, std::uint8_t* out);
    void (*to_delta[4])(const std::uint8_t* in, const std::uint8_t* base, std::size_t n, bool is_float, Buckets buckets,
                        const DeltaArrays& out);
    // `count`: extra bits of each element; `lead`: leading bits of each.
    void (*from_delta[4])(const DeltaArrays& in, const std::uint8_t* lead, const std::uint8_t* count,
                          const std::uint8_t* base, std::size_t n, bool is_float, std::uint8_t* out);
    // What the next state is expected to be: `base` and `again` sixteenths of the step from `before` to it, in the
    // order of the values; steps too large to be steps are not repeated. `lengths`: their bit lengths (zigzag), at
    // most 31.
    void (*predict[4])(const std::uint8_t* base, const std::uint8_t* before, std::size_t n, bool is_float,
                       unsigned again, std::uint8_t* out, std::uint8_t* lengths);
    void (*scale_f32)(const std::uint8_t* in, std::size_t n, float factor, std::uint8_t* out);
    // out[i] = the low bytes of table256[number[i]].
    void (*lookup[4])(const std::uint8_t* number, std::size_t n, const std::uint64_t* table256, std::uint8_t* out);
    // What a step of Adam makes of `base`. F32.
    void (*adam)(const AdamStep& step, const std::uint8_t* base, const std::uint8_t* first, const std::uint8_t* second,
                 std::size_t n, std::uint8_t* out);
};

// The symbol that says "this element is all zero bits", whatever the base: pruned weights. The highest of any alphabet.
inline constexpr std::uint8_t kZeroSymbol = 255;

extern const Kernels kScalarKernels;
extern const Kernels* const kAvx2Kernels;    // x86 only
extern const Kernels* const kAvx512Kernels;  // x86 only
// By name; nullptr where compiler or processor lack the instructions.
const Kernels* kernels_named(std::string_view name);

// The best that the processor has, or what CORAL_CODEC_PATH (scalar, avx2, avx512) names, if it has that.
const Kernels& kernels();

}  // namespace coral::codec
