// SPDX-License-Identifier: Apache-2.0
// Lending a staging file to the kernel, which then reads and writes it without us (FUSE passthrough).
//
//   at rest ──lend(writable)──► lent: row incomplete ──last close_lent──► settled: complete, ingest follows
//                                  ▲                     │ the kernel says: somebody can still write
//                                  └─────────────────────┴──► lingering, asked again every 100 ms
//
// While a writer is lent the file nobody tells us what he writes: size and times are the staging file's own, and every
// lending for writing counts as a change unless the file is the same afterwards. A file keeps its staging file while it
// is lent, to readers too: all passthrough opens of an inode must use one backing file.
#include <fmt/format.h>

#include <algorithm>

#include "coral/base/log.hpp"
#include "coral/repo/plain_copy.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {

namespace {

// Before 6.13 the kernel counts file times in ticks: what changed within one of them cannot be seen.
constexpr std::int64_t kTick = 50'000'000;

}  // namespace

Result<bool> Worktree::lend(const InodePtr& inode, const Lending& lending) {
    if (!lending.writable) {
        impl_->refresh_lent(inode);
        std::lock_guard lock(inode->mutex);
        const auto& staged = inode->staged;
        if (!staged || !staged->whole() || inode->loan.releasing) return false;
        if (!inode->loan.may_be_written() && staged->size() < lending.at_least) return false;
        ++inode->loan.readers;
        staged->set_reusable(false);  // a mapping may outlive the handle, and shows this very file
        return true;
    }
    std::lock_guard ops(impl_->ops_mutex);
    {
        std::lock_guard lock(inode->mutex);
        bool whole = inode->staged ? inode->staged->whole() : inode->size == 0;
        if (!whole) return false;
    }
    CORAL_CHECK(impl_->lend_writer_locked(inode, lending.mappable));
    return true;
}

Status Worktree::Impl::lend_writer_locked(const InodePtr& inode, bool mappable) {
    Loan before;
    bool first;
    {
        std::lock_guard lock(inode->mutex);
        first = inode->loan.writers == 0;
        before.was_complete = inode->staged && inode->complete;
        before.was_ingested = inode->ingested;
    }
    CORAL_CHECK(begin_write_locked(inode, !before.was_complete));
    std::shared_ptr<StagedFile> staged;
    bool alone;
    {
        std::lock_guard lock(inode->mutex);
        staged = inode->staged;
        alone = inode->writers <= 1;
    }
    CORAL_TRY(auto file, staged->file());
    CORAL_TRY(FileStat stat, file->stat());
    // If we die, he writes on, and his close is not told to anybody. (Who writes through us sees an error instead.)
    if (first && alone) CORAL_CHECK(set_complete(inode, kLent));
    std::lock_guard lock(inode->mutex);
    Loan& loan = inode->loan;
    if (first) {
        loan.was_complete = before.was_complete && stat.mtime_ns < now_ns() - kTick;
        loan.was_ingested = before.was_ingested;
        loan.times_set = false;
        loan.generation = inode->generation;
        loan.size = stat.size;
        loan.mtime_ns = loan.seen_mtime_ns = stat.mtime_ns;
    }
    ++loan.writers;
    loan.unknown_writers |= mappable;
    if (mappable) staged->set_reusable(false);
    return {};
}

Result<std::shared_ptr<File>> Worktree::lent_file(const InodePtr& inode) {
    std::shared_ptr<StagedFile> staged;
    {
        std::lock_guard lock(inode->mutex);
        staged = inode->staged;
    }
    if (!staged) return make_error(Errc::kInvalid, "not lent");
    CORAL_TRY(std::shared_ptr<File> file, repo_.os().open(staged->path(), OpenMode::kRead));
    return file;
}

// What the kernel has written is seen in the file's size and time only. Memory is brought up to them.
void Worktree::Impl::refresh_lent(const InodePtr& inode) {
    std::shared_ptr<StagedFile> staged;
    std::uint64_t number;
    {
        std::lock_guard lock(inode->mutex);
        if (!inode->loan.may_be_written()) return;
        staged = inode->staged;
        number = ++inode->loan.asked;
    }
    if (!staged) return;
    auto file = staged->file();
    auto stat = file ? (*file)->stat() : Result<FileStat>(std::move(file).error());
    if (!stat) {
        log_warn("{}: {}", staged->path(), stat.error().message);
        return;
    }
    std::lock_guard lock(inode->mutex);
    if (inode->staged != staged || !inode->loan.may_be_written() || !staged->whole()) return;
    // An older answer that comes late must not undo what the last close has seen: the file would be cut there.
    if (number < inode->loan.answered) return;
    inode->loan.answered = number;
    staged->set_size(stat->size);
    inode->size = stat->size;
    // Otherwise the times are those that somebody has set since.
    if (stat->mtime_ns == inode->loan.seen_mtime_ns) return;
    inode->loan.seen_mtime_ns = stat->mtime_ns;
    inode->mtime_ns = stat->mtime_ns;
    inode->ctime_ns = std::max(inode->ctime_ns, stat->mtime_ns);
}

// The file below says it, too: it is asked when the writer's close does not come, which an unmount right behind it
// drops, and after a crash, when its time may be that of the last write.
Status Worktree::Impl::set_staged_mtime(const InodePtr& inode, std::int64_t ns) {
    std::shared_ptr<StagedFile> staged;
    bool lent;
    {
        std::lock_guard lock(inode->mutex);
        staged = inode->staged;
        lent = staged && inode->loan.may_be_written() && staged->whole();
    }
    if (!staged) return {};
    CORAL_TRY(auto file, staged->file());
    CORAL_CHECK(file->set_mtime(ns));
    if (!lent) return {};
    CORAL_TRY(FileStat stat, file->stat());  // as exactly as the disk keeps it
    std::lock_guard lock(inode->mutex);
    inode->loan.times_set = true;
    inode->loan.seen_mtime_ns = stat.mtime_ns;
    return {};
}

bool Worktree::Impl::may_still_change(const InodePtr& inode) {
    std::shared_ptr<StagedFile> staged;
    {
        std::lock_guard lock(inode->mutex);
        if (!inode->loan.unknown_writers || !inode->staged) return false;
        staged = inode->staged;
    }
    staging_files->close(staged->uuid());  // our own descriptor is a writer, too
    auto writers = repo.os().has_writers(staged->path());
    if (writers && *writers) return true;
    if (!writers) log_debug("{}: {}", staged->path(), writers.error().message);
    refresh_lent(inode);  // for the last time
    std::lock_guard lock(inode->mutex);
    inode->loan.unknown_writers = false;
    return false;
}

// A writer's file stays marked incomplete: its close completes it as any other's.
void Worktree::take_back(const InodePtr& inode, bool writable) {
    {
        std::lock_guard lock(inode->mutex);
        std::uint32_t& count = writable ? inode->loan.writers : inode->loan.readers;
        if (count > 0) --count;
    }
    if (!writable) return;
    if (auto done = impl_->set_complete(inode, kIncomplete); !done) log_error("{}", done.error().message);
}

Status Worktree::Impl::set_complete(const InodePtr& inode, std::int64_t complete) {
    {
        std::lock_guard lock(inode->mutex);
        if (inode->unlinked) return {};
    }
    CORAL_CHECK(state.write([&](Database& db) {
        return db.prepare("UPDATE inode SET complete=? WHERE ino=? AND complete!=1")
            .bind(complete)
            .bind(inode->ino)
            .run();
    }));
    ++changes;
    return {};
}

void Worktree::close_lent(const InodePtr& inode, bool writable) {
    if (writable) {
        if (auto done = impl_->settle_loan(inode); !done)
            log_error("close of {}: {}", inode->name, done.error().message);
    } else {
        std::lock_guard lock(inode->mutex);
        if (inode->loan.readers > 0) --inode->loan.readers;
    }
    impl_->close_handle(inode);
}

// A writer is gone. When it was the last one, and nobody else can write either, the file is complete.
Status Worktree::Impl::settle_loan(const InodePtr& inode) {
    bool sync_again = false;
    {
        std::lock_guard ops(ops_mutex);
        bool last;
        {
            std::lock_guard lock(inode->mutex);
            last = inode->loan.writers == 1;
            if (!last && inode->loan.writers > 0) --inode->loan.writers;
        }
        if (!last) {
            count_writer(inode, -1);
            return {};
        }
        if (may_still_change(inode)) {
            linger(inode);
            return {};
        }
        refresh_lent(inode);
        bool unwritten, others;
        {
            std::lock_guard lock(inode->mutex);
            Loan& loan = inode->loan;
            sync_again = loan.synced;
            unwritten = loan.was_complete && inode->generation == loan.generation && inode->staged &&
                        inode->staged->size() == loan.size && loan.seen_mtime_ns == loan.mtime_ns && !loan.times_set;
            loan.writers = 0;
            loan.synced = false;
            if (!unwritten) ++inode->generation;
            others = inode->writers > 1;
        }
        count_writer(inode, -1);
        if (others) return {};
        if (unwritten) return restore_unwritten(inode);
        CORAL_CHECK(complete_locked(inode));
    }
    if (sync_again) return tree.sync_file(inode);
    return {};
}

// Opened for writing, but nothing was written: as it was before.
Status Worktree::Impl::restore_unwritten(const InodePtr& inode) {
    bool ingested, unlinked;
    {
        std::lock_guard lock(inode->mutex);
        ingested = inode->loan.was_ingested;
        unlinked = inode->unlinked;
    }
    if (unlinked) return {};
    CORAL_CHECK(state.write([&](Database& db) {
        return db.prepare("UPDATE inode SET complete=1, ingested=? WHERE ino=?").bind(ingested).bind(inode->ino).run();
    }));
    ++changes;
    {
        std::lock_guard lock(inode->mutex);
        inode->complete = true;
        inode->ingested = ingested;
    }
    if (!ingested) enqueue(inode);
    std::lock_guard lock(queue_mutex);
    if (ingested) settled.push_back(inode);
    return {};
}

Result<bool> Worktree::make_plain(const InodePtr& inode, const std::atomic<bool>& stop) {
    std::optional<FileId> content = stored_content(inode);
    std::shared_ptr<HotTier> tier;
    {
        std::lock_guard lock(impl_->queue_mutex);
        tier = impl_->hot_tier;
    }
    if (!content || !tier || impl_->disk_is_short()) return false;
    CORAL_TRY(auto record, repo_.store().file(*content));
    if (record->size > tier->limit) return false;
    Uuid uuid = Uuid::random();
    std::string path = impl_->staging_path(uuid);
    CORAL_TRY(std::shared_ptr<File> file, repo_.os().open(path, OpenMode::kCreateNew));
    Status written = write_plain(repo_.store(), record, *file, stop);
    bool taken = false;
    if (written) {
        impl_->staging_files->put(uuid, std::move(file));
        auto staged = std::make_shared<StagedFile>(uuid, path, impl_->staging_files, record->size);
        auto done = impl_->attach_plain(inode, *content, staged);
        taken = done.ok() && *done;
        if (!done) written = std::move(done).error();
    }
    if (!taken) (void)repo_.os().remove(path);
    CORAL_CHECK(written);
    return taken;
}

// Unless the file has changed meanwhile.
Result<bool> Worktree::Impl::attach_plain(const InodePtr& inode, const FileId& content,
                                          const std::shared_ptr<StagedFile>& staged) {
    {
        std::lock_guard ops(ops_mutex);
        {
            std::lock_guard lock(inode->mutex);
            if (inode->staged || inode->unlinked || inode->content != content) return false;
        }
        CORAL_CHECK(state.write([&](Database& db) {
            return db
                .prepare(
                    "UPDATE inode SET staging=?, boot=?, ingested=1, complete=1, synced=0, overlay=NULL, "
                    "overlay_limit=0 WHERE ino=?")
                .bind(staged->uuid())
                .bind(boot)
                .bind(inode->ino)
                .run();
        }));
        ++changes;
        std::lock_guard lock(inode->mutex);
        inode->staged = staged;
        inode->ingested = inode->complete = true;
    }
    {
        std::lock_guard lock(queue_mutex);
        settled.push_back(inode);
        settled_bytes += staged->size();
    }
    return true;
}

void Worktree::Impl::linger(const InodePtr& inode) {
    {
        std::lock_guard lock(queue_mutex);
        if (std::find(lingering.begin(), lingering.end(), inode) == lingering.end()) lingering.push_back(inode);
    }
    queue_wake.notify_all();
}

void Worktree::Impl::retry_lingering() {
    std::vector<InodePtr> again;
    {
        std::lock_guard lock(queue_mutex);
        again.swap(lingering);
    }
    for (const InodePtr& inode : again) {
        bool lent;
        {
            std::lock_guard lock(inode->mutex);
            lent = inode->loan.writers > 0;
        }
        Status done = lent ? settle_loan(inode) : complete_file(inode);
        if (!done) log_error("{}: {}", inode->name, done.error().message);
    }
}

}  // namespace coral::repo
