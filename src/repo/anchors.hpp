// SPDX-License-Identifier: Apache-2.0
// Recognises stored segments inside other bytes: slices and concatenations of tensors, tensors in containers that no
// parser knows. An anchor stands for 32 bytes at a multiple of 64 KiB of a segment.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::repo {

inline constexpr std::size_t kAnchorEvery = 64u << 10;
inline constexpr std::size_t kAnchorBytes = 32;

// One number per anchor of the segment, in order; 0 where the bytes are too plain to stand for one place.
std::vector<std::uint64_t> anchors_of(Bytes raw);

// Not thread-safe.
class AnchorTable {
  public:
    static constexpr std::size_t kMost = 1'000'000;        // 32 MB, half as much again while it grows; 64 GB of tensors
    static constexpr std::size_t kMostSegments = 250'000;  // 10 MB

    struct Segment {
        SegmentId id;
        std::uint32_t length = 0;
        codec::Hint hint;
    };
    struct Hit {
        Segment segment;
        std::uint64_t offset = 0;  // in it
    };

    // The newest of equal anchors counts. When there is no more room, the table starts afresh.
    void add(const Segment& segment, const std::vector<std::uint64_t>& anchors);
    void clear();
    bool empty() const { return used_ == 0; }

    // The first place at or behind `from`, in steps of `step`, where an anchor lies wholly in `bytes`.
    struct Place {
        std::size_t position = 0;
        Hit hit;
    };
    std::optional<Place> find(Bytes bytes, std::size_t from, std::size_t step) const;

  private:
    struct Slot {
        std::uint64_t anchor = 0;  // 0: free
        std::uint32_t segment = 0, number = 0;
    };
    void put(const Slot& slot);
    void grow();
    const Slot* look_up(std::uint64_t anchor) const;

    std::vector<Segment> segments_;
    std::vector<Slot> slots_;
    std::vector<std::uint64_t> filter_;  // by the anchor's highest bits: one look tells most places that are none
    std::size_t used_ = 0;
};

}  // namespace coral::repo
