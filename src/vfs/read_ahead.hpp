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
#include "vfs/tensor_order.hpp"

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
    // Of such a range only the first `taken` bytes found room. The rest is asked for again as the reader goes on.
    void declined(const ReadAheadRange& range, std::uint64_t taken);

  private:
    static constexpr std::size_t kNoTensor = ~std::size_t{0};
    struct Region {
        std::uint64_t next = 0;      // where the reader is expected
        std::uint64_t ahead_to = 0;  // asked for up to here
        std::uint64_t window = 0;
        std::uint64_t used = 0;          // 0: free
        std::size_t tensor = kNoTensor;  // the large one that is read, or was read last
        bool looked_on = false;          // what probably comes after that tensor was asked for
    };
    // Readers that are known to be sequential, and places where somebody has read once: random reads push out the
    // latter only.
    using Streams = std::array<Region, 64>;
    using Candidates = std::array<Region, 32>;
    Region* stream_at(std::uint64_t offset);
    Region* candidate_at(std::uint64_t offset);
    void note_tensor(const store::FileRecord& record, std::size_t begun);
    void pass_tensors(const store::FileRecord& record, Region& r);
    std::optional<std::size_t> jump_after(const store::FileRecord& record, const Region& r) const;
    ReadAheadRange look_on(const store::FileRecord& record, Region& r, std::size_t tensor);
    std::optional<ReadAheadRange> advance(const store::FileRecord& record, Region& r, std::uint64_t length);

    const std::uint64_t limit_;
    std::mutex mutex_;  // guards the rest
    Streams streams_{};
    Candidates candidates_{};
    TensorOrder order_;
    std::uint64_t clock_ = 0;
};

}  // namespace coral::vfs
