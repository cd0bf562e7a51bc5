// SPDX-License-Identifier: Apache-2.0
#include "codec/float_cast.hpp"

#include <bit>
#include <cstring>

namespace coral::codec {
namespace {

std::uint32_t from_bf16(std::uint16_t v) {
    return std::uint32_t{v} << 16;
}

std::uint16_t to_bf16(std::uint32_t v) {
    std::uint32_t rounded = (v + 0x7fffu + (v >> 16 & 1)) >> 16;
    return static_cast<std::uint16_t>((v & 0x7fffffffu) > 0x7f800000u ? v >> 16 | 0x40u : rounded);
}

std::uint32_t from_f16(std::uint16_t v) {
    const std::uint32_t sign = std::uint32_t{v} >> 15 << 31, exponent = v >> 10 & 31u, mantissa = v & 0x3ffu;
    if (exponent == 31) return sign | 0x7f800000u | mantissa << 13;
    if (exponent != 0) return sign | (exponent + 112) << 23 | mantissa << 13;
    if (mantissa == 0) return sign;
    // Denormal: mantissa × 2^-24.
    const auto length = static_cast<std::uint32_t>(std::bit_width(mantissa));
    return sign | (102 + length) << 23 | (mantissa << (24 - length) & 0x7fffffu);
}

std::uint16_t to_f16(std::uint32_t v) {
    const std::uint32_t sign = v >> 16 & 0x8000u, size = v & 0x7fffffffu;
    std::uint32_t half = 0;
    if (size >= 0x47800000u) {  // 65536 and above, infinity, NaN
        half = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    } else if (size >= 0x38800000u) {  // 2^-14 and above
        const std::uint32_t t = size - 0x38000000u;
        half = (t + 0xfffu + (t >> 13 & 1)) >> 13;
    } else if (size >= 0x33000000u) {  // 2^-25 and above: denormal, in units of 2^-24
        const std::uint32_t mantissa = (size & 0x7fffffu) | 0x800000u, shift = 126 - (size >> 23);
        const std::uint32_t rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
        half = mantissa >> shift;
        half += rest > middle || (rest == middle && (half & 1) != 0);
    }
    return static_cast<std::uint16_t>(sign | half);
}

template <class In, class Out, Out (*kConvert)(In)>
void convert(const std::uint8_t* in, std::size_t n, std::uint8_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        In v;
        std::memcpy(&v, in + i * sizeof v, sizeof v);
        Out r = kConvert(v);
        std::memcpy(out + i * sizeof r, &r, sizeof r);
    }
}

std::uint16_t f16_to_bf16(std::uint16_t v) {
    return to_bf16(from_f16(v));
}
std::uint16_t bf16_to_f16(std::uint16_t v) {
    return to_f16(from_bf16(v));
}

}  // namespace

unsigned cast_width(std::uint8_t dtype) {
    return dtype == kDtypeF32 ? 4 : dtype == kDtypeF16 || dtype == kDtypeBF16 ? 2 : 0;
}

bool can_cast(std::uint8_t from, const Hint& hint) {
    return cast_width(from) != 0 && cast_width(hint.detail) == hint.width && from != hint.detail && !hint.big_endian &&
           hint.element == Hint::Class::kFloat;
}

void cast_floats(std::uint8_t from, const std::uint8_t* in, std::size_t n, std::uint8_t to, std::uint8_t* out) {
    if (from == kDtypeF32)
        to == kDtypeBF16 ? convert<std::uint32_t, std::uint16_t, to_bf16>(in, n, out)
                         : convert<std::uint32_t, std::uint16_t, to_f16>(in, n, out);
    else if (from == kDtypeBF16)
        to == kDtypeF32 ? convert<std::uint16_t, std::uint32_t, from_bf16>(in, n, out)
                        : convert<std::uint16_t, std::uint16_t, bf16_to_f16>(in, n, out);
    else
        to == kDtypeF32 ? convert<std::uint16_t, std::uint32_t, from_f16>(in, n, out)
                        : convert<std::uint16_t, std::uint16_t, f16_to_bf16>(in, n, out);
}

}  // namespace coral::codec
