// SPDX-License-Identifier: Apache-2.0
#include "vfs/read_ahead.hpp"

#include <algorithm>
#include <utility>

namespace coral::vfs {
namespace {

// The kernel issues the reads of one reader in parallel, so they arrive a little out of order.
constexpr std::uint64_t kSlack = 2u << 20;
// As much around a single read tells that the next one follows it.
constexpr std::uint64_t kCloseBy = 128u << 10;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kFirstWindow = 1u << 20;
// Fewer bytes than a chunk are not worth a task.
constexpr std::uint64_t kStep = 256u << 10;

// End of the tensor that holds `offset`; the file's end when there is none.
std::uint64_t tensor_end(const store::FileRecord& record, std::uint64_t offset) {
    auto after = std::upper_bound(record.tensors.begin(), record.tensors.end(), offset,
                                  [](std::uint64_t at, const store::TensorEntry& t) { return at < t.offset; });
    if (after == record.tensors.begin()) return record.size;
    const store::TensorEntry& t = *std::prev(after);
    return offset < t.offset + t.length ? t.offset + t.length : record.size;
}

// From the start of a file, or of a tensor that is longer than this read, readers nearly always go on; elsewhere the
// second read proves it. The kernel reads from the beginning of a page.
bool begins(const store::FileRecord& record, std::uint64_t offset, std::uint64_t length) {
    if (offset == 0) return true;
    auto at = std::lower_bound(record.tensors.begin(), record.tensors.end(), offset,
                               [](const store::TensorEntry& t, std::uint64_t from) { return t.offset < from; });
    for (; at != record.tensors.end() && at->offset - offset < kPage; ++at) {
        if (at->length >= 2 * length && at->length >= kFirstWindow) return true;
    }
    return false;
}

template <class Regions>
auto& oldest_of(Regions& regions) {
    return *std::min_element(regions.begin(), regions.end(), [](auto& a, auto& b) { return a.used < b.used; });
}

}  // namespace

ReadAhead::Region* ReadAhead::stream_at(std::uint64_t offset) {
    for (Region& r : streams_) {
        // Little of a young one, which may still be two random reads that happened to be neighbours.
        const std::uint64_t slack = std::min(kSlack, r.window / 2);
        if (r.used != 0 && offset + slack >= r.next && offset <= r.next + slack) return &r;
    }
    return nullptr;
}

ReadAhead::Region* ReadAhead::candidate_at(std::uint64_t offset) {
    for (Region& r : candidates_) {
        if (r.used != 0 && offset + kCloseBy >= r.next && offset <= r.next + kCloseBy) return &r;
    }
    return nullptr;
}

std::optional<ReadAheadRange> ReadAhead::on_read(const store::FileRecord& record, std::uint64_t offset,
                                                 std::uint64_t length) {
    if (limit_ == 0 || offset >= record.size || length == 0) return std::nullopt;
    length = std::min(length, record.size - offset);
    const std::uint64_t end = offset + length;
    std::lock_guard lock(mutex_);
    Region* r = stream_at(offset);
    if (!r) {
        Region* seen = candidate_at(offset);
        if (!seen && !begins(record, offset, length)) {
            oldest_of(candidates_) = Region{.next = end, .ahead_to = end, .used = ++clock_};
            return std::nullopt;
        }
        r = &oldest_of(streams_);
        *r = seen ? std::exchange(*seen, Region{}) : Region{.next = end, .ahead_to = end};
    }
    r->used = ++clock_;
    r->next = std::max(r->next, end);
    r->ahead_to = std::max(r->ahead_to, end);
    return advance(record, *r, length);
}

std::optional<ReadAheadRange> ReadAhead::advance(const store::FileRecord& record, Region& r, std::uint64_t length) {
    r.window = r.window == 0 ? std::min(limit_, std::max(kFirstWindow, 2 * length)) : std::min(limit_, r.window * 2);

    std::uint64_t want = std::min(record.size, r.next + r.window);
    std::uint64_t stop = tensor_end(record, r.next < record.size ? r.next : record.size - 1);
    // A reader of one large tensor stops at its end, for all we know until he is nearly there; small ones are read in a
    // row.
    if (stop > r.next && stop - r.next >= r.window / 2) want = std::min(want, stop);
    // Few larger pieces rather than many small ones: each wakes a thread.
    std::uint64_t step = std::max(kStep, r.window / 8);
    if (want < r.ahead_to + step && want < record.size) return std::nullopt;
    if (want <= r.ahead_to) return std::nullopt;
    ReadAheadRange range{r.ahead_to, want - r.ahead_to};
    r.ahead_to = want;
    return range;
}

void ReadAhead::declined(const ReadAheadRange& range, std::uint64_t taken) {
    std::lock_guard lock(mutex_);
    for (Region& r : streams_) {
        if (r.used != 0 && r.ahead_to == range.offset + range.length) r.ahead_to = range.offset + taken;
    }
}

}  // namespace coral::vfs
