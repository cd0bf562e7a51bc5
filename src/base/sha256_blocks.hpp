// SPDX-License-Identifier: Apache-2.0
// The inner loop of SHA-256, for DualSha256 alone: everything else hashes with OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace coral::sha256 {

inline constexpr std::size_t kBlock = 64;  // bytes

using State = std::array<std::uint32_t, 8>;  // H(i), FIPS 180-4, 6.2

// Has this processor the instructions that the functions below consist of? Without them, do not call these.
bool has_sha_ni();

// Takes `count` blocks in.
void compress(State& state, const std::byte* blocks, std::size_t count);
// Takes `count` blocks in on either side. The two may overlap, at any distance.
void compress_two(State& a, const std::byte* blocks_a, State& b, const std::byte* blocks_b, std::size_t count);

}  // namespace coral::sha256
