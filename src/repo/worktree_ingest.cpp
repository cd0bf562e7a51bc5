// SPDX-License-Identifier: Apache-2.0
// Ingest behind the writer: one thread takes complete files in order, another lets staging files go once packs and
// state.db are on the disk. Neither ever holds a lock while it reads, encodes or syncs.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "coral/base/log.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

constexpr auto kReapEvery = std::chrono::seconds(5);
constexpr std::uint64_t kReapBytes = 256u << 20;  // settled staging that is worth a sync before its time
constexpr std::size_t kLearnFiles = 256;
constexpr auto kStatusWait = std::chrono::seconds(1);

class StagedSource final : public formats::ByteSource {
  public:
    explicit StagedSource(std::shared_ptr<StagedFile> staged) : staged_(std::move(staged)), size_(staged_->size()) {}
    std::uint64_t size() const override { return size_; }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        CORAL_TRY(std::size_t got, staged_->read(offset, out));
        if (got != out.size()) return make_error(Errc::kConflict, "the file became shorter while it was read");
        return {};
    }

  private:
    std::shared_ptr<StagedFile> staged_;
    std::uint64_t size_;
};

}  // namespace

void Worktree::Impl::enqueue(const InodePtr& inode) {
    {
        std::lock_guard lock(inode->mutex);
        if (inode->queued) return;
        inode->queued = true;
    }
    {
        std::lock_guard lock(queue_mutex);
        queue.push_back(inode);
        failures.erase(inode->ino);
    }
    queue_wake.notify_all();
}

void Worktree::Impl::ingest_loop() {
    set_thread_name("coral-ingest");
    std::unique_lock lock(queue_mutex);
    while (true) {
        queue_wake.wait(lock, [this] { return stop || !queue.empty(); });
        if (stop) return;
        InodePtr inode = queue.front();
        queue.pop_front();
        ++running;
        current = std::make_shared<IngestProgress>();
        current_inode = inode;
        auto progress = current;
        lock.unlock();
        {
            std::lock_guard inode_lock(inode->mutex);
            inode->queued = false;
        }
        Status done = ingest_one(inode, progress);
        lock.lock();
        --running;
        current.reset();
        current_inode.reset();
        // A conflict means that the file is being written again: its next flush brings it back here.
        if (!done && done.error().code != Errc::kConflict) {
            failures[inode->ino] = done.error().message;
            lock.unlock();
            log_error("ingest of {}: {}; its bytes stay in staging", inode->name, done.error().message);
            lock.lock();
        }
        if (queue.empty() && running == 0) queue_idle.notify_all();
        inode.reset();
    }
}

Status Worktree::Impl::ingest_one(const InodePtr& inode, const std::shared_ptr<IngestProgress>& progress) {
    std::shared_ptr<StagedFile> staged;
    std::uint64_t generation;
    {
        std::lock_guard lock(inode->mutex);
        if (!inode->staged || !inode->complete || inode->ingested || inode->unlinked) return {};
        staged = inode->staged;
        generation = inode->generation;
    }
    learn_bases();
    // What the store has already is not stored again, and no name leads to it until the row does.
    CORAL_TRY(store::Session session, repo.store().session());
    StagedSource source(staged);
    CORAL_TRY(Ingested done, ingestor.ingest(source, tree.base_map_, progress.get()));
    return settle(inode, staged, generation, done);
}

// The bytes are in packs (if not on the disk yet): unless they have changed meanwhile, the row says so.
Status Worktree::Impl::settle(const InodePtr& inode, const std::shared_ptr<StagedFile>& staged,
                              std::uint64_t generation, const Ingested& done) {
    store::WorkHint hint;
    auto path = tree.path_of(inode);
    {
        std::lock_guard ops(ops_mutex);
        {
            std::lock_guard lock(inode->mutex);
            if (inode->staged != staged || inode->generation != generation || !inode->complete || inode->unlinked)
                return {};
            hint.mode = inode->mode;
            hint.mtime_ns = inode->mtime_ns;
        }
        CORAL_CHECK(state.write([&](Database& db) -> Status {
            // `previous` stays the last content that is surely on the disk until the staging file goes.
            CORAL_CHECK(
                db.prepare("UPDATE inode SET previous=coalesce(previous, content), content=?, ingested=1 WHERE ino=?")
                    .bind(done.file)
                    .bind(inode->ino)
                    .run());
            Statement st =
                db.prepare("SELECT d.ino, d.mtime_ns FROM inode f JOIN inode d ON d.ino=f.parent WHERE f.ino=?");
            st.bind(inode->ino);
            CORAL_TRY(bool there, st.step());
            return there ? touch_directory(db, st.unsigned_integer(0), st.integer(1)) : Status();
        }));
        ++changes;
        std::lock_guard lock(inode->mutex);
        // A writer may have come between the row and here: it sees ingested=false and marks the row again.
        if (inode->generation != generation || inode->staged != staged) return {};
        inode->content = done.file;
        inode->ingested = true;
    }
    if (path) {
        hint.worktree = tree.uuid_;
        hint.branch = tree.branch_;
        hint.path = *path;
        hint.file = done.file;
        CORAL_CHECK(repo.store().put_work_hint(hint));
    }
    log_debug("ingested {}: {} bytes, {} stored", path.value_or("?"), done.size, done.stored_bytes);
    std::lock_guard lock(queue_mutex);
    settled.push_back(inode);
    settled_bytes += done.size;
    if (settled_bytes >= kReapBytes) queue_wake.notify_all();
    return {};
}

// ---- letting staging files go

void Worktree::Impl::reap_loop() {
    set_thread_name("coral-reap");
    std::unique_lock lock(queue_mutex);
    while (!stop) {
        queue_wake.wait_for(lock, kReapEvery, [this] { return stop || settled_bytes >= kReapBytes; });
        if (settled.empty() && !orphan_is_free()) {
            lock.unlock();
            if (auto done = repo.store().tidy(); !done) log_warn("{}", done.error().message);
            lock.lock();
            continue;
        }
        lock.unlock();
        if (auto done = reap(); !done) {
            log_error("staging of {}: {}", tree.branch_, done.error().message);
            lock.lock();
            queue_wake.wait_for(lock, kReapEvery, [this] { return stop; });
            continue;
        }
        lock.lock();
    }
}

void Worktree::Impl::leave_orphan(const std::shared_ptr<StagedFile>& staged) {
    std::lock_guard lock(queue_mutex);
    orphans.push_back({staged->path(), staged});
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

// Packs to the disk, then a FULL commit that names the FILE ids alone, then unlink: in this order (design,
// "Durability").
Status Worktree::Impl::reap() {
    std::vector<InodePtr> files;
    std::vector<Orphan> gone = take_free_orphans();
    {
        std::lock_guard lock(queue_mutex);
        files.swap(settled);
        settled_bytes = 0;
    }
    if (files.empty() && gone.empty()) return {};
    std::vector<Candidate> candidates;
    for (const InodePtr& inode : files) {
        std::lock_guard lock(inode->mutex);
        if (inode->ingested && inode->staged) candidates.push_back({inode, inode->staged, inode->generation});
    }
    std::vector<Candidate> done;
    Status worked = repo.store().sync();
    if (worked) worked = release_rows(candidates, done);
    if (!worked) {
        std::lock_guard lock(queue_mutex);  // tried again later
        settled.insert(settled.end(), files.begin(), files.end());
        orphans.insert(orphans.end(), gone.begin(), gone.end());
        return worked;
    }
    for (const Candidate& one : done) gone.push_back({one.staged->path(), one.staged});
    candidates.clear();
    done.clear();
    for (Orphan& orphan : gone) {
        if (!orphan.used.expired()) {  // whoever reads it now goes on with it: the next time
            std::lock_guard lock(queue_mutex);
            orphans.push_back(std::move(orphan));
            continue;
        }
        auto removed = repo.os().remove(orphan.path);
        if (!removed && removed.error().code != Errc::kNotFound) log_warn("{}", removed.error().message);
    }
    return {};
}

// Rows and inodes move together: a write between the two would go to a file that is about to be unlinked. Whatever has
// changed since the packs were synced stays for the next time.
Status Worktree::Impl::release_rows(const std::vector<Candidate>& candidates, std::vector<Candidate>& done) {
    std::lock_guard ops(ops_mutex);
    CORAL_CHECK(state.write_durably([&](Database& db) -> Status {
        for (const Candidate& one : candidates) {
            {
                std::lock_guard lock(one.inode->mutex);
                if (one.inode->staged != one.staged || one.inode->generation != one.generation) continue;
            }
            CORAL_CHECK(
                db.prepare("UPDATE inode SET staging=NULL, ingested=0, overlay=NULL, overlay_limit=0, previous=NULL, "
                           "synced=0 WHERE ino=? AND staging=? AND ingested=1")
                    .bind(one.inode->ino)
                    .bind(one.staged->uuid())
                    .run());
            if (db.changes() != 1) continue;
            CORAL_CHECK(db.prepare("DELETE FROM overlay_unit WHERE staging=?").bind(one.staged->uuid()).run());
            done.push_back(one);
        }
        return {};
    }));
    ++changes;
    for (const Candidate& one : done) {
        std::lock_guard lock(one.inode->mutex);
        one.inode->size = one.staged->size();
        one.inode->staged = nullptr;
        one.inode->ingested = false;
    }
    return {};
}

// ---- bases

// What this worktree held before this process came: so that the first save after a restart finds its bases. Bounded.
void Worktree::Impl::learn_bases() {
    {
        std::lock_guard lock(queue_mutex);
        if (bases_learnt) return;
        bases_learnt = true;
    }
    std::size_t budget = kLearnFiles;
    if (auto base_commit = tree.base_commit()) {
        if (auto commit = repo.commit(*base_commit)) (void)learn_tree((*commit)->tree, budget);
    }
    std::vector<FileId> newest;
    (void)state.read([&](Database& db) -> Status {
        Statement st = db.prepare(
            "SELECT content FROM inode WHERE worktree=? AND type=1 AND content IS NOT NULL "
            "ORDER BY mtime_ns DESC LIMIT 64");
        st.bind(row_id);
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            newest.push_back(st.id<FileId>(0));
        }
    });
    std::reverse(newest.begin(), newest.end());
    for (const FileId& id : newest) {
        if (auto record = repo.store().file(id)) tree.base_map_.learn(**record);
    }
}

Status Worktree::Impl::learn_tree(const TreeId& id, std::size_t& budget) {
    CORAL_TRY(auto tree_object, repo.tree(id));
    for (const TreeEntry& entry : tree_object->entries) {
        if (budget == 0) return {};
        if (entry.type == EntryType::kDirectory) {
            CORAL_CHECK(learn_tree(TreeId::from(entry.content), budget));
        } else if (entry.type == EntryType::kFile) {
            --budget;
            if (auto record = repo.store().file(FileId::from(entry.content))) tree.base_map_.learn(**record);
        }
    }
    return {};
}

// ---- waiting

Status Worktree::wait_ingested() {
    std::unique_lock lock(impl_->queue_mutex);
    impl_->queue_idle.wait(lock, [this] { return impl_->stop || (impl_->queue.empty() && impl_->running == 0); });
    if (impl_->failures.empty()) return {};
    return make_error(Errc::kIo,
                      fmt::format("{} could not be stored: {}", impl_->failures.size() == 1 ? "a file" : "some files",
                                  impl_->failures.begin()->second));
}

void Worktree::Impl::wait_a_little() {
    std::unique_lock lock(queue_mutex);
    queue_idle.wait_for(lock, kStatusWait, [this] { return stop || (queue.empty() && running == 0); });
}

std::uint64_t Worktree::pending() const {
    std::lock_guard lock(impl_->queue_mutex);
    return impl_->queue.size() + impl_->running;
}

}  // namespace coral::repo
