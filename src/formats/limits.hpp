// SPDX-License-Identifier: Apache-2.0
// What a parser may spend on one file, whatever the file says. Beyond a limit the file, or the part of it, is opaque
// bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coral::formats {

inline constexpr std::size_t kMaxTensors = std::size_t{1} << 19;
inline constexpr std::size_t kMaxNameLength = 1024;
inline constexpr std::size_t kMaxNameBytes = std::size_t{32} << 20;  // of all tensors together
inline constexpr std::size_t kMaxRank = 64;
inline constexpr std::size_t kMaxDimensions = std::size_t{4} << 20;  // of all tensors together

// The safetensors library's own limit.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;
// Of a JSON value that is skipped, not read.
inline constexpr std::size_t kMaxJsonDepth = 4;

inline constexpr std::uint64_t kMaxNpyHeader = std::uint64_t{1} << 20;

inline constexpr std::uint64_t kMaxZipDirectory = std::uint64_t{32} << 20;
inline constexpr std::size_t kMaxZipMembers = std::size_t{1} << 18;

// Of everything before the data. A vocabulary of a million words takes some tens of MiB.
inline constexpr std::uint64_t kMaxGgufHeader = std::uint64_t{256} << 20;
inline constexpr std::size_t kMaxGgufDepth = 4;  // of arrays in arrays

// Messages in messages; protobuf's own limit.
inline constexpr std::size_t kMaxProtoDepth = 100;
inline constexpr std::uint64_t kMaxProtoFields = std::uint64_t{64} << 20;

// Objects, strings, memo and stack of one pickle, in bytes: about 500 bytes for each tensor of a state dict.
inline constexpr std::size_t kMaxPickleMemory = std::size_t{96} << 20;
inline constexpr std::uint64_t kMaxPickleOps = std::uint64_t{64} << 20;
inline constexpr std::size_t kMaxPickleDepth = 1000;  // of containers whose tensors get a name

}  // namespace coral::formats
