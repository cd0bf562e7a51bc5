// SPDX-License-Identifier: Apache-2.0
// Letting staging files go once packs and state.db are on the disk; and the hot tier, the newest of them that stay for
// a while, so that what was just saved is read without decoding. A hot file is in the state "ingested" (see
// worktree_contents.cpp): memory and row name its staging file, but nothing depends on it. After a crash it is removed.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "coral/base/log.hpp"
#include "coral/repo/plain_copy.hpp"
#include "repo/overlay_rows.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kReapEvery = std::chrono::seconds(5);
constexpr auto kLingerEvery = std::chrono::milliseconds(100);
constexpr std::uint64_t kWorthHaste = 1u << 20;
constexpr std::uint64_t kHotLeast = 1u << 20;  // smaller files are read from packs as fast

}  // namespace

void Worktree::keep_hot(std::shared_ptr<HotTier> tier) {
    std::lock_guard lock(impl_->queue_mutex);
    impl_->hot_tier = std::move(tier);
}

void Worktree::Impl::reap_loop() {
    set_thread_name("coral-reap");
    auto due = Clock::now() + kReapEvery;
    std::unique_lock lock(queue_mutex);
    while (!stop) {
        bool waiting = !lingering.empty() || !uncompleted.empty() || removed_large;
        queue_wake.wait_until(lock, waiting ? std::min(due, Clock::now() + kLingerEvery) : due, [&] {
            const bool come = !lingering.empty() || !uncompleted.empty() || removed_large;
            return stop || settled_bytes >= kReapBytes || (come && !waiting);
        });
        if (stop) return;
        if (!lingering.empty() || !uncompleted.empty()) {
            lock.unlock();
            retry_lingering();
            retry_uncompleted();
            lock.lock();
        }
        if (settled_bytes < kReapBytes && Clock::now() < due && !room_is_wanted(lock)) continue;
        due = Clock::now() + kReapEvery;
        bool idle = settled.empty() && !orphan_is_free();
        lock.unlock();
        remove_spares(spares.excess(monotonic_ns()));
        Status done = idle && !(hot_files && disk_is_short()) ? repo.store().tidy() : reap();
        if (!done) log_error("staging of {}: {}", tree.branch_, done.error().message);
        lock.lock();
        if (!done) queue_wake.wait_for(lock, kReapEvery, [this] { return stop; });
    }
}

// No room for its row, for example: without a handle nobody would come again.
void Worktree::Impl::complete_later(const InodePtr& inode) {
    {
        std::lock_guard lock(queue_mutex);
        if (std::find(uncompleted.begin(), uncompleted.end(), inode) == uncompleted.end()) uncompleted.push_back(inode);
    }
    queue_wake.notify_all();
}

void Worktree::Impl::retry_uncompleted() {
    std::vector<InodePtr> again;
    {
        std::lock_guard lock(queue_mutex);
        again.swap(uncompleted);
    }
    for (const InodePtr& inode : again) {
        {
            std::lock_guard lock(inode->mutex);
            if (inode->writers > 0) continue;  // another close will come
        }
        if (Status done = complete_file(inode); !done) log_debug("{}: {}", inode->name, done.error().message);
    }
}

void Worktree::Impl::leave_orphan(const std::shared_ptr<StagedFile>& staged) {
    {
        std::lock_guard lock(queue_mutex);
        orphans.push_back({staged->path(), staged, staged->reusable()});
        if (staged->size() < kWorthHaste) return;
        removed_large = true;
    }
    queue_wake.notify_all();
}

// Who removes a file because the disk is full wants its room now, not in five seconds.
bool Worktree::Impl::room_is_wanted(std::unique_lock<std::mutex>& queue_lock) {
    if (!removed_large) return false;
    queue_lock.unlock();
    const bool wanted = disk_is_short();
    queue_lock.lock();
    if (wanted && !orphan_is_free()) return false;  // still read: next time
    removed_large = false;
    return wanted;
}

bool Worktree::Impl::orphan_is_free() {
    return std::any_of(orphans.begin(), orphans.end(), [](const Orphan& one) { return one.used.expired(); });
}

std::vector<Worktree::Impl::Orphan> Worktree::Impl::take_free_orphans() {
    std::vector<Orphan> taken;
    std::lock_guard lock(queue_mutex);
    auto kept = std::partition(orphans.begin(), orphans.end(), [](const Orphan& one) { return !one.used.expired(); });
    taken.assign(std::make_move_iterator(kept), std::make_move_iterator(orphans.end()));
    orphans.erase(kept, orphans.end());
    return taken;
}

bool Worktree::Impl::disk_is_short() {
    return coral::repo::disk_is_short(repo.os(), staging_dir);
}

// Packs to the disk, then a FULL commit that names the FILE ids alone, then unlink: in this order (design,
// "Durability").
Status Worktree::Impl::reap() {
    std::vector<InodePtr> files;
    std::vector<Candidate> all;
    std::vector<Orphan> gone = take_free_orphans();
    {
        std::lock_guard lock(queue_mutex);
        files.swap(settled);
        settled_bytes = 0;
        all.swap(hot);
    }
    hot_files = 0;
    if (files.empty() && gone.empty() && all.empty()) return {};
    std::size_t were_hot = all.size();
    for (const InodePtr& inode : files) {
        std::lock_guard lock(inode->mutex);
        if (inode->ingested && inode->staged) all.push_back({inode, inode->staged, inode->generation});
    }
    std::vector<Candidate> kept, going, done;
    Status worked = all.size() > were_hot || !gone.empty() ? repo.store().sync() : Status();
    if (worked) {
        choose_hot(all, kept, going);
        worked = release_rows(kept, going, done);
    } else {
        kept = std::move(all);
    }
    {
        std::lock_guard lock(queue_mutex);
        hot.insert(hot.end(), kept.begin(), kept.end());
        if (!worked) {  // tried again later
            settled.insert(settled.end(), files.begin(), files.end());
            orphans.insert(orphans.end(), gone.begin(), gone.end());
        }
        hot_files = hot.size();
    }
    if (!worked) return worked;
    for (const Candidate& one : done) gone.push_back({one.staged->path(), one.staged, one.staged->reusable()});
    all.clear();
    going.clear();
    done.clear();
    remove_files(std::move(gone));
    return {};
}

void Worktree::Impl::remove_files(std::vector<Orphan> gone) {
    for (Orphan& orphan : gone) {
        if (!orphan.used.expired()) {  // whoever reads it now goes on with it: the next time
            std::lock_guard lock(queue_mutex);
            orphans.push_back(std::move(orphan));
            continue;
        }
        if (keep_as_spare(orphan)) continue;
        auto removed = repo.os().remove(orphan.path);
        if (!removed && removed.error().code != Errc::kNotFound) log_warn("{}", removed.error().message);
    }
}

// `all` has the oldest first. What has changed since it was ingested is in neither list: its next ingest brings it
// back.
void Worktree::Impl::choose_hot(const std::vector<Candidate>& all, std::vector<Candidate>& kept,
                                std::vector<Candidate>& going) {
    std::shared_ptr<HotTier> tier;
    bool ending;
    {
        std::lock_guard lock(queue_mutex);
        tier = hot_tier;
        ending = stop;
    }
    std::uint64_t room = tier && !ending && !disk_is_short() ? tier->limit : 0;
    std::uint64_t others = tier ? tier->used.load() - hot_bytes : 0, mine = 0;
    std::set<Ino> seen;
    for (auto at = all.rbegin(); at != all.rend(); ++at) {
        bool lent;
        {
            std::lock_guard lock(at->inode->mutex);
            if (at->inode->staged != at->staged || at->inode->generation != at->generation || !at->inode->ingested)
                continue;
            lent = at->inode->loan.readers > 0;
        }
        if (!seen.insert(at->inode->ino).second) continue;
        std::uint64_t size = at->staged->size();
        bool fits = at->staged->whole() && size >= kHotLeast && others + mine + size <= room;
        if (fits || (lent && !ending)) {
            mine += size;
            kept.push_back(*at);
        } else {
            going.push_back(*at);
        }
    }
    std::reverse(kept.begin(), kept.end());
    if (tier) tier->used += mine - hot_bytes;
    hot_bytes = mine;
}

// Rows and inodes move together: a write between the two would go to a file that is about to be unlinked. Whatever has
// changed since the packs were synced stays for the next time, and what the kernel has been lent joins `kept`.
Status Worktree::Impl::release_rows(std::vector<Candidate>& kept, const std::vector<Candidate>& going,
                                    std::vector<Candidate>& done) {
    std::lock_guard ops(ops_mutex);
    std::vector<Candidate> chosen;
    for (const Candidate& one : going) {
        std::lock_guard lock(one.inode->mutex);
        if (one.inode->staged != one.staged || one.inode->generation != one.generation) continue;
        if (one.inode->loan.readers + one.inode->loan.writers > 0) {
            kept.push_back(one);
            continue;
        }
        one.inode->loan.releasing = true;
        chosen.push_back(one);
    }
    Status stored = state.write_durably([&](Database& db) -> Status {
        for (const Candidate& one : kept) {
            CORAL_CHECK(db.prepare("UPDATE inode SET previous=NULL WHERE ino=? AND staging=? AND ingested=1")
                            .bind(one.inode->ino)
                            .bind(one.staged->uuid())
                            .run());
        }
        for (const Candidate& one : chosen) {
            CORAL_CHECK(
                db.prepare("UPDATE inode SET staging=NULL, ingested=0, overlay=NULL, overlay_limit=0, previous=NULL, "
                           "synced=0 WHERE ino=? AND staging=? AND ingested=1")
                    .bind(one.inode->ino)
                    .bind(one.staged->uuid())
                    .run());
            if (db.changes() != 1) continue;
            CORAL_CHECK(forget_units(db, one.staged->uuid()));
            done.push_back(one);
        }
        return {};
    });
    if (stored) ++changes;
    if (!stored) {
        kept.insert(kept.end(), chosen.begin(), chosen.end());
        done.clear();
    }
    for (const Candidate& one : done) {
        std::lock_guard lock(one.inode->mutex);
        one.inode->size = one.staged->size();
        one.inode->staged = nullptr;
        one.inode->ingested = false;
    }
    // Only now: a reader who was lent the file between the row and this would keep a staging file that no row names.
    for (const Candidate& one : chosen) {
        std::lock_guard lock(one.inode->mutex);
        one.inode->loan.releasing = false;
    }
    return stored;
}

// At the end nothing stays hot: nobody would serve it.
void Worktree::Impl::let_hot_go() {
    {
        std::lock_guard lock(queue_mutex);
        if (hot.empty() && orphans.empty()) return;
    }
    if (auto done = reap(); !done) log_warn("staging of {}: {}", tree.branch_, done.error().message);
}

}  // namespace coral::repo
