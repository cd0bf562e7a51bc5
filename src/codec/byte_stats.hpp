// SPDX-License-Identifier: Apache-2.0
// How often each byte value comes, and what an ideal code would make of it.
#pragma once

#include "codec/pivot_tree.hpp"

namespace coral::codec {

Histogram histogram_of(const std::uint8_t* bytes, std::size_t n);

// Of `n` bytes with these counts, by order-0 entropy.
double entropy_bits(const Histogram& counts, std::uint64_t n);

// Noise, judged by sixteen pieces: then a plane is not looked at any closer. Never says so of less than 8 KiB.
bool looks_random(const std::uint8_t* bytes, std::size_t n);

// The width of the elements that bytes without a dtype seem to be made of: 1, 2, 4 or 8; from samples. Whether they are
// floats, and where one begins, is not asked: planes of bytes are skewed wherever one begins to count.
unsigned likely_width(const std::uint8_t* bytes, std::size_t n);

}  // namespace coral::codec
