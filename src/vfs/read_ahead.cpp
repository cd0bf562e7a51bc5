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
// A stream that was not read from while the file was read so many times is of a reader who has gone. What was decoded
// for him may be gone, too, and to ask once more costs little.
constexpr std::uint64_t kForgotten = 256;
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

bool is_large(const store::TensorEntry& t) {
    return t.length >= kFirstWindow;
}

std::uint64_t end_of(const store::TensorEntry& t) {
    return t.offset + t.length;
}

// The large tensor that begins in the page at `offset`: the kernel reads from the beginning of a page.
std::optional<std::size_t> tensor_begun(const store::FileRecord& record, std::uint64_t offset) {
    auto at = std::lower_bound(record.tensors.begin(), record.tensors.end(), offset,
                               [](const store::TensorEntry& t, std::uint64_t from) { return t.offset < from; });
    for (; at != record.tensors.end() && at->offset - offset < kPage; ++at) {
        if (is_large(*at)) return static_cast<std::size_t>(at - record.tensors.begin());
    }
    return std::nullopt;
}

std::optional<std::size_t> next_large(const store::FileRecord& record, std::size_t tensor) {
    for (std::size_t i = tensor + 1; i < record.tensors.size(); ++i) {
        if (is_large(record.tensors[i])) return i;
    }
    return std::nullopt;
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
        const bool alive = r.used != 0 && clock_ - r.used < kForgotten;
        if (alive && offset + slack >= r.next && offset <= r.next + slack) return &r;
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
    const std::optional<std::size_t> begun = tensor_begun(record, offset);
    if (begun) note_tensor(record, *begun);
    Region* r = stream_at(offset);
    if (!r) {
        Region* seen = candidate_at(offset);
        // From the start of a file, or of a tensor that is longer than this read, readers nearly always go on;
        // elsewhere the second read proves it.
        const bool begins = offset == 0 || (begun && record.tensors[*begun].length >= 2 * length);
        if (!seen && !begins) {
            oldest_of(candidates_) = Region{.next = end, .ahead_to = end, .used = ++clock_};
            return std::nullopt;
        }
        r = &oldest_of(streams_);
        *r = seen ? std::exchange(*seen, Region{}) : Region{.next = end, .ahead_to = end};
    }
    r->used = ++clock_;
    r->next = std::max(r->next, end);
    r->ahead_to = std::max(r->ahead_to, end);
    if (begun && *begun != r->tensor) {
        r->tensor = *begun;
        r->looked_on = false;
    }
    pass_tensors(record, *r);
    return advance(record, *r, length);
}

// Who has just begun a tensor is whoever has come to the end of another one last, for all we know.
void ReadAhead::note_tensor(const store::FileRecord& record, std::size_t begun) {
    Region* from = nullptr;
    for (Region& r : streams_) {
        if (r.used == 0 || r.tensor >= record.tensors.size() || r.tensor == begun) continue;
        const bool finished = r.next + kPage >= end_of(record.tensors[r.tensor]);
        if (finished && (!from || r.used > from->used)) from = &r;
    }
    if (!from) return;
    if (next_large(record, from->tensor) == begun) {
        order_.went_on(from->tensor);
    } else {
        order_.jumped(from->tensor, begun);
    }
    from->tensor = kNoTensor;
}

// The kernel reads a little further than its reader, so the next tensor counts when all of it was read.
void ReadAhead::pass_tensors(const store::FileRecord& record, Region& r) {
    while (r.tensor < record.tensors.size()) {
        auto next = next_large(record, r.tensor);
        if (!next || r.next < end_of(record.tensors[*next])) return;
        order_.went_on(r.tensor);
        r.tensor = *next;
        r.looked_on = false;
    }
}

// Where a reader who comes to the end of his tensor will go on, if that is not what follows in the file.
std::optional<std::size_t> ReadAhead::jump_after(const store::FileRecord& record, const Region& r) const {
    if (r.tensor >= record.tensors.size()) return std::nullopt;
    const std::uint64_t end = end_of(record.tensors[r.tensor]);
    if (r.next + r.window / 2 < end || r.next > end + kSlack) return std::nullopt;
    auto to = order_.after(r.tensor, record.tensors.size());
    return to && is_large(record.tensors[*to]) ? to : std::nullopt;
}

ReadAheadRange ReadAhead::look_on(const store::FileRecord& record, Region& r, std::size_t tensor) {
    r.looked_on = true;
    const store::TensorEntry& t = record.tensors[tensor];
    const std::uint64_t window = r.window;
    if (Region* there = stream_at(t.offset)) return {there->ahead_to, 0};
    ReadAheadRange range{t.offset, std::min(t.length, window)};
    // Younger than its reader, who is still busy.
    oldest_of(streams_) = Region{
        .next = t.offset, .ahead_to = range.offset + range.length, .window = window, .used = r.used, .tensor = tensor};
    return range;
}

std::optional<ReadAheadRange> ReadAhead::advance(const store::FileRecord& record, Region& r, std::uint64_t length) {
    r.window = r.window == 0 ? std::min(limit_, std::max(kFirstWindow, 2 * length)) : std::min(limit_, r.window * 2);

    std::uint64_t want = std::min(record.size, r.next + r.window);
    std::uint64_t stop = tensor_end(record, r.next < record.size ? r.next : record.size - 1);
    // A reader of one large tensor stops at its end, for all we know until he is nearly there; small ones are read in a
    // row.
    if (stop > r.next && stop - r.next >= r.window / 2) want = std::min(want, stop);
    const std::optional<std::size_t> jump = jump_after(record, r);
    if (jump) {
        want = std::min(want, end_of(record.tensors[r.tensor]));
        if (want <= r.ahead_to) {
            if (r.looked_on) return std::nullopt;
            ReadAheadRange there = look_on(record, r, *jump);
            return there.length != 0 ? std::optional(there) : std::nullopt;
        }
    }
    // Few larger pieces rather than many small ones: each wakes a thread.
    std::uint64_t step = std::max(kStep, r.window / 8);
    if (want < r.ahead_to + step && want < record.size && !jump) return std::nullopt;
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
