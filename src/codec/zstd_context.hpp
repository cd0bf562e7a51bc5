// SPDX-License-Identifier: Apache-2.0
// zstd with one reusable context per thread: creating one costs more than coding a chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "coral/base/bytes.hpp"
#include "coral/base/result.hpp"

namespace coral::codec {

// Compresses into `out`; 0 when the result would not fit (that is an answer, not an error: the caller stores RAW).
std::size_t zstd_compress(Bytes raw, int level, MutableBytes out);
std::size_t zstd_bound(std::size_t raw_length);
// Fills `out` exactly from one frame; kCorrupt otherwise. The frame may not ask for a window beyond 2^window_log.
Status zstd_decompress(Bytes stored, int window_log, MutableBytes out);
// The length that a frame claims for its content; nothing when it claims none or is no frame.
std::optional<std::uint64_t> zstd_claimed_length(Bytes stored);

}  // namespace coral::codec
