// SPDX-License-Identifier: Apache-2.0
#include "repo/probe.hpp"

#include <algorithm>

namespace coral::repo {
namespace {

constexpr std::uint64_t kBlock = 1u << 20;

// What of [free, end) a segment covers that has its byte hit.offset at `position`; nothing when that is little.
std::optional<Found> covered(std::uint64_t free, std::uint64_t end, std::uint64_t position, std::size_t step,
                             const AnchorTable::Hit& hit) {
    Found found{free, 0, hit.segment.id, 0, hit.segment.hint};
    // The segment may begin before the stretch (a slice of it) or in its midst (one of several, joined).
    if (position >= free + hit.offset)
        found.begin = position - hit.offset;
    else
        found.offset = hit.offset - (position - free);
    // From a whole element on.
    const std::uint64_t before = (found.hint.width - found.offset % found.hint.width) % found.hint.width;
    found.begin += before;
    found.offset += before;
    if (found.offset >= hit.segment.length || found.begin >= end) return std::nullopt;
    found.length = std::min<std::uint64_t>(end - found.begin, hit.segment.length - found.offset);
    found.length -= found.length % step;
    if (found.length < kSketchFrom) return std::nullopt;
    return found;
}

}  // namespace

Result<std::vector<Found>> find_stored(const formats::ByteSource& source, std::uint64_t begin, std::uint64_t end,
                                       std::size_t step, const BaseIndex& index) {
    std::vector<Found> all;
    Buffer block;
    std::uint64_t at = begin, free = begin;  // what lies before `free` has been found
    while (end - at >= kAnchorBytes && end - free >= kSketchFrom) {
        block.resize(static_cast<std::size_t>(std::min(kBlock, end - at)));
        CORAL_CHECK(source.read_at(at, block));
        std::size_t from = 0;
        while (auto place = index.find_anchor(block, from, step)) {
            from = place->position + step;
            auto found = covered(free, end, at + place->position, step, place->hit);
            if (!found) continue;
            all.push_back(*found);
            free = found->begin + found->length;
            if (free - at >= block.size()) break;
            from = static_cast<std::size_t>(free - at);  // many small ones lie in one block
        }
        // Behind what was found; else on, with what an anchor across the border needs.
        at = std::max(free, at + (block.size() < kBlock ? block.size() : kBlock - kAnchorBytes));
    }
    return all;
}

}  // namespace coral::repo
