// SPDX-License-Identifier: Apache-2.0
// Ingest behind the writer: one thread takes complete files in order. It never holds a lock while it reads or encodes.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "coral/base/descriptors.hpp"
#include "coral/base/log.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

// A commit waits for files that are complete after it was asked for, while others come all the time.
constexpr auto kMostForLaterFiles = std::chrono::seconds(5);

constexpr auto kLook = std::chrono::milliseconds(100);  // while somebody may give up waiting
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
    std::uint64_t next_data(std::uint64_t offset) const override {
        if (!staged_->whole()) return offset;  // under a hole something may lie
        auto file = staged_->file();
        return file ? coral::next_data(**file, offset, size_) : offset;
    }

  private:
    std::shared_ptr<StagedFile> staged_;
    std::uint64_t size_;
};

}  // namespace

void Worktree::Impl::enqueue(const InodePtr& inode) {
    std::shared_ptr<StagedFile> staged;
    {
        std::lock_guard lock(inode->mutex);
        if (inode->queued) return;
        inode->queued = true;
        staged = inode->staged;
    }
    // What is on the disk: of a file with holes or links there is less than its size.
    auto stat = staged ? repo.os().stat(staged->path()) : FileStat{};
    const std::uint64_t bytes = stat ? 512 * stat->blocks : 0;
    {
        std::lock_guard lock(queue_mutex);
        queue.push_back({inode, bytes, backlog != nullptr});
        if (backlog) backlog->add(bytes);
        ++queued_ever;
        failures.erase(inode->ino);
    }
    queue_wake.notify_all();
}

void Worktree::count_in(std::shared_ptr<Backlog> backlog) {
    std::lock_guard lock(impl_->queue_mutex);
    if (impl_->backlog) return;
    impl_->backlog = std::move(backlog);
    // What an earlier process left waits already.
    for (Impl::Waiting& waiting : impl_->queue) {
        impl_->backlog->add(waiting.bytes);
        waiting.counted = true;
    }
}

// The worktree ends: what still waits is the next owner's.
void Worktree::Impl::leave_backlog() {
    std::lock_guard lock(queue_mutex);
    for (Waiting& waiting : queue) {
        if (std::exchange(waiting.counted, false)) backlog->remove(waiting.bytes);
    }
}

void Worktree::Impl::ingest_loop() {
    set_thread_name("coral-ingest");
    std::unique_lock lock(queue_mutex);
    while (true) {
        queue_wake.wait(lock, [this] { return stop || !queue.empty(); });
        if (stop) return;
        Waiting waiting = std::move(queue.front());
        InodePtr inode = std::move(waiting.inode);
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
        auto path = done ? Result<std::string>("") : tree.path_of(inode);
        bool failed = false;
        std::string name;
        {
            // Both: who removes the file says so under its lock, and then looks for a failure to forget.
            std::lock_guard inode_lock(inode->mutex);
            lock.lock();
            // A conflict means that the file is being written again: its next flush brings it back here.
            failed = !done && done.error().code != Errc::kConflict && !inode->unlinked;
            name = inode->name;
            if (failed) failures[inode->ino] = fmt::format("{}: {}", path ? *path : name, done.error().message);
        }
        --running;
        ++done_ever;
        if (waiting.counted) backlog->remove(waiting.bytes);
        current.reset();
        current_inode.reset();
        if (failed) {
            lock.unlock();
            log_error("ingest of {}: {}; its bytes stay in staging", name, done.error().message);
            lock.lock();
        }
        queue_idle.notify_all();
        inode.reset();
    }
}

Status Worktree::Impl::ingest_one(const InodePtr& inode, const std::shared_ptr<IngestProgress>& progress) {
    std::shared_ptr<StagedFile> staged;
    std::uint64_t generation;
    {
        std::lock_guard lock(inode->mutex);
        if (!inode->staged || !inode->complete || inode->ingested || inode->unlinked) return {};
        // A flush completes a file whose writer may be in the midst of it (a fork closes what it inherited). What a
        // commit may take in its place later must be whole: the last close brings it back here.
        if (inode->writers > 0) return {};
        staged = inode->staged;
        generation = inode->generation;
    }
    learn_bases();
    // What the store has already is not stored again, and no name leads to it until the row does.
    CORAL_TRY(store::Session session, repo.store().session());
    StagedSource source(staged);
    std::vector<KnownRange> known;
    for (const StagedFile::Link& link : staged->links()) {
        known.push_back({link.unit * StagedFile::kUnit, link.length, link.record, link.from});
    }
    CORAL_TRY(Ingested done, ingestor.ingest(source, tree.base_map_, progress.get(), known));
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
                db.prepare("UPDATE inode SET previous=coalesce(previous, content), content=?, size=?, ingested=1 WHERE "
                           "ino=?")
                    .bind(done.file)
                    .bind(done.size)
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
        // Only for whoever must find the file without state.db: it is stored without it, too.
        if (Status hinted = repo.store().put_work_hint(hint); !hinted)
            log_warn("{}: {}", *path, hinted.error().message);
    }
    log_debug("ingested {}: {} bytes, {} stored", path.value_or("?"), done.size, done.stored_bytes);
    std::lock_guard lock(queue_mutex);
    settled.push_back(inode);
    settled_bytes += done.size;
    if (settled_bytes >= kReapBytes) queue_wake.notify_all();
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

Status Worktree::wait_ingested(const std::function<bool()>& give_up) {
    std::unique_lock lock(impl_->queue_mutex);
    auto wait_for = [&](std::chrono::steady_clock::duration time, const std::function<bool()>& done) {
        const auto end = std::chrono::steady_clock::now() + time;
        while (!impl_->queue_idle.wait_for(lock, kLook, done)) {
            if ((give_up && give_up()) || std::chrono::steady_clock::now() > end) return;
        }
    };
    // Until nothing is waiting: a commit then has all files as they are at one moment. But somebody who saves all the
    // time would hold us up for ever, so after what is there now has been taken in, not for long.
    const std::uint64_t last = impl_->queued_ever;
    wait_for(std::chrono::hours(24 * 365), [this, last] { return impl_->stop || impl_->done_ever >= last; });
    wait_for(kMostForLaterFiles, [this] { return impl_->stop || (impl_->queue.empty() && impl_->running == 0); });
    if (impl_->failures.empty()) return {};
    return make_error(
        Errc::kIo, fmt::format("{} could not be stored; remove it or write it anew: {}",
                               impl_->failures.size() == 1 ? "a file" : fmt::format("{} files", impl_->failures.size()),
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
