// SPDX-License-Identifier: Apache-2.0
// Floats of one type as floats of another: what a base of another type predicts. Integer arithmetic, rounding to
// nearest, ties to even (IEEE 754), so every processor gives the same bits; NaN payloads may change, for a prediction
// need not be right.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coral/codec/segment_codec.hpp"

namespace coral::codec {

// Numbers of docs/format.md, "Dtypes".
inline constexpr std::uint8_t kDtypeF16 = 10, kDtypeBF16 = 11, kDtypeF32 = 12;
inline constexpr std::uint8_t kDtypeQuantised = 24;

// Bytes of an element, or 0 for a type that is not cast.
unsigned cast_width(std::uint8_t dtype);
// Can elements of `hint` be predicted from elements of another type, `from`?
bool can_cast(std::uint8_t from, const Hint& hint);
// `n` elements; little-endian; `in` and `out` do not overlap.
void cast_floats(std::uint8_t from, const std::uint8_t* in, std::size_t n, std::uint8_t to, std::uint8_t* out);

}  // namespace coral::codec
