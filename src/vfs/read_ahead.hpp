// SPDX-License-Identifier: Apache-2.0
// Finds sequential readers of one file and says what to decode ahead of them. Per node and region, not per handle:
// processes that share a mapping look random to a per-handle detector, and a loader with eight threads is eight regions
// of one file.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "coral/store/store.hpp"

namespace coral::vfs {

struct ReadAheadRange {
    std::uint64_t offset = 0, length = 0;
};

// Thread-safe; the lock covers arithmetic only.
class ReadAhead {
  public:
    explicit ReadAhead(std::uint64_t limit) : limit_(limit) {}
    // A read is about to be served. Returns what is worth decoding behind it, if anything is.
    std::optional<ReadAheadRange> on_read(const store::FileRecord& record, std::uint64_t offset, std::uint64_t length);

  private:
    struct Region {
        std::uint64_t next = 0;      // where the reader is expected
        std::uint64_t ahead_to = 0;  // asked for up to here
        std::uint64_t window = 0;    // 0: not known to be sequential yet
        std::uint64_t used = 0;      // 0: free
    };
    static constexpr std::size_t kRegions = 16;
    Region& region_of(std::uint64_t offset, std::uint64_t length, bool& follows);

    const std::uint64_t limit_;
    std::mutex mutex_;  // guards the rest
    std::array<Region, kRegions> regions_{};
    std::uint64_t clock_ = 0;
};

}  // namespace coral::vfs
