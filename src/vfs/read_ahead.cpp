// SPDX-License-Identifier: Apache-2.0
#include "vfs/read_ahead.hpp"

#include <algorithm>

namespace coral::vfs {
namespace {

// The kernel issues the reads of one reader in parallel, so they arrive a little out of order.
constexpr std::uint64_t kSlack = 2u << 20;
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

}  // namespace

ReadAhead::Region& ReadAhead::region_of(std::uint64_t offset, std::uint64_t length, bool& follows) {
    Region* oldest = &regions_[0];
    for (Region& r : regions_) {
        if (r.used != 0 && offset + kSlack >= r.next && offset <= r.next + kSlack) {
            follows = true;
            return r;
        }
        if (r.used < oldest->used) oldest = &r;
    }
    follows = false;
    *oldest = Region{offset, offset + length, 0, 0};
    return *oldest;
}

std::optional<ReadAheadRange> ReadAhead::on_read(const store::FileRecord& record, std::uint64_t offset,
                                                 std::uint64_t length) {
    if (limit_ == 0 || offset >= record.size || length == 0) return std::nullopt;
    length = std::min(length, record.size - offset);
    std::uint64_t end = offset + length;
    std::lock_guard lock(mutex_);
    bool follows = false;
    Region& r = region_of(offset, length, follows);
    r.used = ++clock_;
    r.next = follows ? std::max(r.next, end) : end;
    r.ahead_to = std::max(r.ahead_to, end);
    // From the start of a file readers nearly always go on; elsewhere the second read proves it.
    if (!follows && offset != 0) return std::nullopt;
    r.window = r.window == 0 ? std::min(limit_, std::max(kFirstWindow, 2 * length)) : std::min(limit_, r.window * 2);

    std::uint64_t want = std::min(record.size, r.next + r.window);
    std::uint64_t stop = tensor_end(record, r.next < record.size ? r.next : record.size - 1);
    // A reader of one large tensor stops at its end; small ones are read in a row.
    if (stop > r.next && stop - r.next >= r.window / 2) want = std::min(want, stop);
    if (want < r.ahead_to + kStep && want < record.size) return std::nullopt;
    if (want <= r.ahead_to) return std::nullopt;
    ReadAheadRange range{r.ahead_to, want - r.ahead_to};
    r.ahead_to = want;
    return range;
}

}  // namespace coral::vfs
