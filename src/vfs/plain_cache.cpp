// SPDX-License-Identifier: Apache-2.0
#include "vfs/plain_cache.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "coral/base/descriptors.hpp"
#include "coral/base/log.hpp"
#include "coral/repo/plain_copy.hpp"

namespace coral::vfs {
namespace {

void remove_folder(Os& os, const std::string& folder) {
    auto names = os.list_dir(folder);
    if (!names) return;
    for (const std::string& name : *names) (void)os.remove(path_join(folder, name));
    (void)os.remove_dir(folder);
}

// Folders of processes that are gone: their lock is free.
void remove_folders_of_the_dead(Os& os, const std::string& above) {
    auto names = os.list_dir(above);
    if (!names) return;
    for (const std::string& name : *names) {
        if (!name.starts_with("plain-")) continue;
        std::string folder = path_join(above, name);
        auto lock = os.open(path_join(folder, "lock"), OpenMode::kReadWrite);
        if (lock) {
            auto ours = (*lock)->try_lock(true);
            if (!ours || !*ours) continue;
        }
        remove_folder(os, folder);
    }
}

}  // namespace

std::size_t most_plain_copies() {
    return static_cast<std::size_t>(std::clamp<std::uint64_t>(descriptor_limit() / 4, 1, 1u << 20));
}

PlainCache::~PlainCache() {
    if (!folder_.empty()) remove_folder(repo_.os(), folder_);
}

Status PlainCache::open_folder() {
    std::lock_guard once(folder_mutex_);
    {
        std::lock_guard guard(mutex_);
        if (!folder_.empty()) return {};
    }
    std::string above = path_join(repo_.dir(), "cache");
    Os& os = repo_.os();
    // Under its name only once it is locked: another process takes what is not for a dead one's.
    std::string name = "plain-" + Uuid::random().text();
    std::string folder = path_join(above, name), unready = path_join(above, "new-" + name);
    CORAL_CHECK(os.make_dir(unready));
    CORAL_TRY(auto lock, os.open(path_join(unready, "lock"), OpenMode::kCreateNew));
    CORAL_TRY(bool ours, lock->try_lock(true));
    if (!ours) return make_error(Errc::kInternal, fmt::format("{}: somebody has locked a file that is new", unready));
    CORAL_CHECK(os.rename(unready, folder));
    std::lock_guard guard(mutex_);
    folder_ = folder;
    lock_ = std::move(lock);
    return {};
}

void PlainCache::remove_left_over() {
    remove_folders_of_the_dead(repo_.os(), path_join(repo_.dir(), "cache"));
}

std::uint64_t PlainCache::bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
}

PlainCache::CopyPtr PlainCache::find(const FileId& id) {
    std::lock_guard lock(mutex_);
    auto at = by_id_.find(id);
    if (at == by_id_.end()) return nullptr;
    copies_.splice(copies_.end(), copies_, at->second);
    return *at->second;
}

bool PlainCache::fits(std::uint64_t size) const {
    return bytes_ + size <= limit_ && copies_.size() + making_.size() < most_;
}

std::vector<std::string> PlainCache::make_room(std::uint64_t size) {
    std::vector<std::string> gone;
    if (size > limit_) return gone;
    for (auto at = copies_.begin(); !fits(size) && at != copies_.end();) {
        if (at->use_count() > 1) {
            ++at;
            continue;
        }
        gone.push_back(path_join(folder_, (*at)->id.hex()));
        bytes_ -= (*at)->size;
        by_id_.erase((*at)->id);
        at = copies_.erase(at);
    }
    return gone;
}

Result<PlainCache::CopyPtr> PlainCache::make(const std::shared_ptr<const store::FileRecord>& record,
                                             const std::atomic<bool>& stop) {
    const FileId& id = record->id;
    CORAL_CHECK(open_folder());
    std::vector<std::string> gone;
    bool room;
    {
        std::unique_lock lock(mutex_);
        made_.wait(lock, [&] { return making_.count(id) == 0; });
        if (auto at = by_id_.find(id); at != by_id_.end()) return *at->second;
        gone = make_room(record->size);
        room = fits(record->size);
        if (room) {
            making_.insert(id);
            bytes_ += record->size;
        }
    }
    for (const std::string& path : gone) (void)repo_.os().remove(path);
    if (!room)
        return make_error(
            Errc::kNoSpace,
            fmt::format("a plain copy of {} bytes does not fit into cache_size={}, or there are {} already",
                        record->size, limit_, most_));
    Result<CopyPtr> made = write(record, stop);
    {
        std::lock_guard lock(mutex_);
        making_.erase(id);
        if (made)
            by_id_[id] = copies_.insert(copies_.end(), *made);
        else
            bytes_ -= record->size;
    }
    made_.notify_all();
    return made;
}

Result<PlainCache::CopyPtr> PlainCache::write(const std::shared_ptr<const store::FileRecord>& record,
                                              const std::atomic<bool>& stop) {
    Os& os = repo_.os();
    std::string path;
    {
        std::lock_guard lock(mutex_);
        path = path_join(folder_, record->id.hex());
    }
    if (repo::disk_is_short(os, path_parent(path)))
        return make_error(Errc::kNoSpace, fmt::format("{}: the disk is nearly full", path_parent(path)));
    CORAL_TRY(auto file, os.open(path, OpenMode::kCreateNew));
    Status written = repo::write_plain(repo_.store(), record, *file, stop);
    auto copy = std::make_shared<Copy>();
    copy->id = record->id;
    copy->size = record->size;
    if (written) {
        auto opened = os.open(path, OpenMode::kRead);
        if (opened)
            copy->file = std::move(*opened);
        else
            written = std::move(opened).error();
    }
    if (!written) {
        (void)os.remove(path);
        return std::move(written).error();
    }
    return CopyPtr(std::move(copy));
}

}  // namespace coral::vfs
