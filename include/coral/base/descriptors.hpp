// SPDX-License-Identifier: Apache-2.0
// What only a descriptor tells: where a file has holes, stretches that read as zeros and take no room. And how many
// descriptors there may be. A file without one, or on a file system that does not say, has no holes. Thread-safe.
#pragma once

#include <cstdint>

#include "coral/base/os.hpp"

namespace coral {

// At or behind `offset`: the first byte that may not lie in a hole; `size` if there is none before.
std::uint64_t next_data(const File& file, std::uint64_t offset, std::uint64_t size);
// At or behind `offset`: the first byte of a hole; `size` if there is none before.
std::uint64_t next_hole(const File& file, std::uint64_t offset, std::uint64_t size);

// Room on the disk for the file's first `length` bytes, whatever its size, which stays. kNoSpace, kUnsupported.
Status reserve(const File& file, std::uint64_t length);

// RLIMIT_NOFILE of this process.
std::uint64_t descriptor_limit();

}  // namespace coral
