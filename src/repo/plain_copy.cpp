// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/plain_copy.hpp"

#include <algorithm>

namespace coral::repo {
namespace {

constexpr std::uint64_t kStep = 4u << 20, kAhead = 32u << 20;
constexpr std::uint64_t kSpareBytes = 2u << 30, kSpareShare = 20;

}  // namespace

Status write_plain(store::Store& store, const std::shared_ptr<const store::FileRecord>& record, File& out,
                   const std::atomic<bool>& stop) {
    CORAL_CHECK(out.reserve(record->size));
    Buffer buffer(static_cast<std::size_t>(std::min<std::uint64_t>(kStep, record->size)));
    std::uint64_t asked = 0;
    for (std::uint64_t at = 0; at < record->size;) {
        if (stop) return make_error(Errc::kBusy, "stopped");
        if (std::uint64_t want = std::min(record->size, at + kAhead); want >= asked + kStep || want == record->size) {
            if (want > asked) store.prefetch(record, asked, want - asked);
            asked = std::max(asked, want);
        }
        MutableBytes part(buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(kStep, record->size - at)));
        CORAL_TRY(std::size_t got, store.read_file(*record, at, part));
        if (got != part.size()) return make_error(Errc::kCorrupt, "a stored file is shorter than its record says");
        CORAL_CHECK(out.write_at(at, part));
        at += got;
    }
    return {};
}

bool disk_is_short(Os& os, const std::string& path) {
    auto space = os.space(path);
    if (!space) return true;
    std::uint64_t left = space->blocks_available * space->block_size, all = space->blocks * space->block_size;
    return left < kSpareBytes || left < all / kSpareShare;
}

}  // namespace coral::repo
