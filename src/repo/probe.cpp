// SPDX-License-Identifier: Apache-2.0
#include "repo/probe.hpp"

#include <algorithm>

#include "repo/tensor_bases.hpp"

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

// How the bytes of a stored file at `position` were coded.
codec::Hint hint_at(const store::FileRecord& record, std::uint64_t position) {
    auto behind = std::upper_bound(record.tensors.begin(), record.tensors.end(), position,
                                   [](std::uint64_t at, const store::TensorEntry& t) { return at < t.offset; });
    if (behind == record.tensors.begin()) return {};
    const store::TensorEntry& tensor = *std::prev(behind);
    return position - tensor.offset < tensor.length ? hint_of(tensor) : codec::Hint{};
}

// Appends the extents of one range, of which [begin, end) are asked for.
void find_extents(const KnownRange& known, std::uint64_t begin, std::uint64_t end, std::vector<Found>& all) {
    const store::FileRecord& record = *known.record;
    if (record.positions.size() != record.extents.size()) return;
    const std::uint64_t first = known.from + (begin - known.offset), last = known.from + (end - known.offset);
    auto at = std::upper_bound(record.positions.begin(), record.positions.end(), first);
    if (at != record.positions.begin()) --at;
    for (; at != record.positions.end() && *at < last; ++at) {
        const store::Extent& extent = record.extents[static_cast<std::size_t>(at - record.positions.begin())];
        if (extent.segment == store::Extent::kInline) continue;
        std::uint64_t from = std::max(*at, first);
        const std::uint64_t to = std::min(*at + extent.length, last);
        if (from >= to) continue;
        Found found;
        found.id = record.segments[extent.segment];
        found.hint = hint_at(record, from);
        found.offset = extent.offset + (from - *at);
        // From a whole element on.
        const std::uint64_t before = (found.hint.width - found.offset % found.hint.width) % found.hint.width;
        from += before;
        if (from >= to || to - from < kSketchFrom) continue;
        found.offset += before;
        found.begin = begin + (from - first);
        found.length = std::min<std::uint64_t>(to - from, codec::kMaxSegment);
        all.push_back(found);
    }
}

}  // namespace

std::vector<Found> find_known(const std::vector<KnownRange>& known, std::uint64_t begin, std::uint64_t end) {
    std::vector<Found> all;
    for (const KnownRange& range : known) {
        const std::uint64_t from = std::max(begin, range.offset), to = std::min(end, range.offset + range.length);
        if (from < to) find_extents(range, from, to, all);
    }
    return all;
}

Result<std::vector<Found>> find_stored(const formats::ByteSource& source, std::uint64_t begin, std::uint64_t end,
                                       std::size_t step, const BaseIndex& index) {
    std::vector<Found> all;
    Buffer block;
    std::uint64_t at = begin, free = begin;  // what lies before `free` has been found
    while (end - at >= kAnchorBytes && end - free >= kSketchFrom) {
        // An anchor may begin with the last zeros of a hole. In whole steps, as all that is found.
        if (const std::uint64_t data = std::min(end, source.next_data(at)); data > at + kAnchorBytes) {
            at += (data - kAnchorBytes - at) / step * step;
            if (data == end) break;
        }
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
