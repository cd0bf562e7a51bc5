// SPDX-License-Identifier: Apache-2.0
// Contents of a worktree's files. States of a file's bytes:
//
//   stored ──write──► staged, incomplete ──flush, no other writer──► staged, complete ──ingest──► ingested ──reap──►
//   stored
//                        ▲                                                │  write                  │ write
//                        └────────────────────────────────────────────────┴─────────────────────────┘
//
// `stored`: content names bytes in packs, no staging file. `ingested`: content names them too, but the packs may not be
// on the disk yet, so the row keeps the staging file. Every arrow is one row update, made before the bytes change (to
// the left) or after they are safe (to the right).
#include <fmt/format.h>

#include <algorithm>

#include "coral/base/descriptors.hpp"
#include "coral/base/log.hpp"
#include "repo/overlay_rows.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {

Status Worktree::open_file(const InodePtr& inode, bool writable, bool truncate) {
    if (inode->type == EntryType::kDirectory) return make_error(Errc::kIsDirectory, "is a directory");
    if (inode->type != EntryType::kFile) return make_error(Errc::kInvalid, "not a regular file");
    {
        std::lock_guard lock(inode->mutex);
        ++inode->handles;
    }
    if (writable) impl_->count_writer(inode, 1);
    if (!truncate) return {};
    std::lock_guard ops(impl_->ops_mutex);
    Status done = impl_->truncate_locked(inode, 0);
    if (done && !writable) done = impl_->complete_unwritten(inode);
    if (done) return done;
    if (writable) impl_->count_writer(inode, -1);
    impl_->close_handle(inode);
    return done;
}

void Worktree::Impl::count_writer(const InodePtr& inode, int by) {
    bool unlinked;
    {
        std::lock_guard lock(inode->mutex);
        if (by > 0)
            ++inode->writers;
        else if (inode->writers > 0)
            --inode->writers;
        unlinked = inode->unlinked;
    }
    std::lock_guard lock(table_mutex);
    if (by > 0 && !unlinked) {
        ++written[inode->ino];
        return;
    }
    auto found = written.find(inode->ino);
    if (by < 0 && found != written.end() && --found->second == 0) written.erase(found);
}

bool Worktree::Impl::open_for_writing(Ino ino) {
    std::lock_guard lock(table_mutex);
    return written.count(ino) != 0;
}

Result<std::size_t> Worktree::read(const InodePtr& inode, std::uint64_t offset, MutableBytes out) {
    impl_->refresh_lent(inode);
    std::shared_ptr<StagedFile> staged;
    std::optional<FileId> content;
    {
        std::lock_guard lock(inode->mutex);
        staged = inode->staged;
        content = inode->content;
    }
    if (staged) return staged->read(offset, out);
    if (!content) return std::size_t{0};
    CORAL_TRY(auto record, repo_.store().file(*content));
    return repo_.store().read_file(*record, offset, out);
}

// ---- writing

Result<std::shared_ptr<StagedFile>> Worktree::Impl::new_staged(const InodePtr& inode, bool empty) {
    std::optional<FileId> content;
    std::uint64_t size;
    {
        std::lock_guard lock(inode->mutex);
        content = inode->content;
        size = empty ? 0 : inode->size;
    }
    CORAL_TRY(Uuid uuid, new_staging_file());
    auto staged = std::make_shared<StagedFile>(uuid, staging_path(uuid), staging_files, size);
    staged->set_reusable(true);
    if (size > 0) {
        CORAL_TRY(auto file, staged->file());
        CORAL_CHECK(file->truncate(size));
    }
    if (content && size > 0) {
        StagedFile::Overlay overlay;
        overlay.store = &repo.store();
        CORAL_TRY(overlay.record, repo.store().file(*content));
        overlay.limit = size;
        overlay.enter_units = unit_writer(uuid);
        staged->set_overlay(std::move(overlay), {}, {});
    }
    return staged;
}

// ops_mutex held. `empty`: the bytes so far do not matter.
Status Worktree::Impl::begin_write_locked(const InodePtr& inode, bool empty) {
    std::shared_ptr<StagedFile> staged;
    bool unlinked, has_row, marked, promised;
    Ino parent;
    std::optional<FileId> content;
    {
        std::lock_guard lock(inode->mutex);
        staged = inode->staged;
        unlinked = inode->unlinked;
        has_row = !unlinked || inode->kept;
        parent = unlinked ? 0 : inode->parent;
        content = inode->content;
        marked = staged && !inode->complete && !inode->ingested;
        promised = staged && inode->synced;
    }
    if (marked) return {};
    bool fresh = !staged;
    if (fresh) {
        CORAL_TRY(staged, new_staged(inode, empty));
    }
    bool overlaid = fresh && content && staged->size() > 0;
    if (has_row) {
        auto rows = [&](Database& db) -> Status {
            if (fresh) {  // nothing of it is on the disk, whatever was of an earlier one
                Statement st =
                    db.prepare("UPDATE inode SET staging=?, boot=?, overlay=?, overlay_limit=?, synced=0 WHERE ino=?");
                st.bind(staged->uuid()).bind(boot);
                if (overlaid)
                    st.bind(*content).bind(staged->size());
                else
                    st.bind_null().bind(std::uint64_t{0});
                CORAL_CHECK(st.bind(inode->ino).run());
            }
            CORAL_CHECK(
                db.prepare("UPDATE inode SET complete=0, ingested=0, synced=CASE synced WHEN 0 THEN 0 ELSE 2 END "
                           "WHERE ino=?")
                    .bind(inode->ino)
                    .run());
            Statement times = db.prepare("SELECT mtime_ns FROM inode WHERE ino=?");
            times.bind(parent);
            CORAL_TRY(bool there, times.step());
            return there ? touch_directory(db, parent, times.integer(0)) : Status();
        };
        // A row that vouches for the staging file's bytes must be gone from the disk before these change: else a power
        // cut leaves it beside half of the new ones.
        Status stored = promised ? state.write_durably(rows) : state.write(rows);
        if (!stored && fresh) (void)repo.os().remove(staged->path());
        CORAL_CHECK(stored);
        ++changes;
    }
    if (unlinked && fresh) leave_orphan(staged);  // nobody can find it again once its last handle is closed
    std::lock_guard lock(inode->mutex);
    if (!inode->staged) inode->staged = staged;
    inode->complete = inode->ingested = inode->synced = false;
    ++inode->generation;
    return {};
}

Status Worktree::Impl::begin_write(const InodePtr& inode) {
    std::lock_guard ops(ops_mutex);
    return begin_write_locked(inode, false);
}

Status Worktree::write(const InodePtr& inode, std::uint64_t offset, Bytes data) {
    std::uint64_t end = 0;
    if (!checked_add(offset, data.size(), end) || end > kMostFileBytes)
        return make_error(Errc::kTooLarge, "file too large");
    if (data.empty()) return {};
    std::shared_ptr<StagedFile> staged;
    InFlight change;
    while (!staged) {
        {
            std::lock_guard lock(inode->mutex);
            if (inode->staged && !inode->complete && !inode->ingested) {
                staged = inode->staged;
                inode->synced = false;
                ++inode->generation;  // once before and once after: ingest notices a write that it overlapped
                change.begin(inode);
            }
        }
        if (!staged) CORAL_CHECK(impl_->begin_write(inode));
    }
    Status written = staged->write(offset, data);
    if (!written) impl_->undo_growth(inode, staged);
    CORAL_CHECK(impl_->finish_write(inode, staged));
    return written;
}

Result<std::uint64_t> Worktree::append(const InodePtr& inode, Bytes data) {
    std::shared_ptr<StagedFile> staged;
    std::uint64_t offset = 0;
    InFlight change;
    while (!staged) {
        {
            std::lock_guard lock(inode->mutex);
            if (inode->staged && !inode->complete && !inode->ingested) {
                std::uint64_t end = 0;
                if (!checked_add(inode->staged->size(), data.size(), end) || end > kMostFileBytes)
                    return make_error(Errc::kTooLarge, "file too large");
                staged = inode->staged;
                offset = staged->reserve(data.size());
                inode->synced = false;
                ++inode->generation;
                change.begin(inode);
            }
        }
        if (!staged) CORAL_CHECK(impl_->begin_write(inode));
    }
    Status written = staged->write(offset, data);
    if (!written) {
        staged->give_back(offset, data.size());
        impl_->undo_growth(inode, staged);
    }
    CORAL_CHECK(impl_->finish_write(inode, staged));
    CORAL_CHECK(written);
    return offset;
}

Status Worktree::Impl::finish_write(const InodePtr& inode, const std::shared_ptr<StagedFile>& staged) {
    bool flushed_meanwhile, nobody_else;
    {
        std::lock_guard lock(inode->mutex);
        ++inode->generation;
        inode->mtime_ns = inode->ctime_ns = now_ns();
        inode->size = staged->size();
        flushed_meanwhile = inode->complete || inode->ingested;
        nobody_else = inode->writers == 0;
    }
    if (flushed_meanwhile) CORAL_CHECK(begin_write(inode));
    // A page written back after the last close: nobody will flush it again.
    if (nobody_else) return complete_file(inode);
    return {};
}

// The caller of a write that fails is told that the file is as long as it was.
void Worktree::Impl::undo_growth(const InodePtr& inode, const std::shared_ptr<StagedFile>& staged) {
    StagedFile::Alone alone(*staged);
    std::lock_guard ops(ops_mutex);
    {
        std::lock_guard lock(inode->mutex);
        if (inode->loan.may_be_written()) return;  // the file below is as long as whoever writes it says
    }
    if (Status cut = staged->drop_excess(); !cut) log_warn("{}: {}", staged->path(), cut.error().message);
}

Status Worktree::Impl::truncate_locked(const InodePtr& inode, std::uint64_t size) {
    if (size > kMostFileBytes) return make_error(Errc::kTooLarge, "file too large");
    refresh_lent(inode);
    bool stays;
    {
        std::lock_guard lock(inode->mutex);
        std::uint64_t now_size = inode->staged ? inode->staged->size() : inode->size;
        // O_TRUNC of an empty file changes its times only, unless it is one that was never completed.
        stays = size == now_size && size == 0 && !inode->staged;
    }
    if (stays) return touch_file(inode);
    CORAL_CHECK(begin_write_locked(inode, size == 0));
    std::shared_ptr<StagedFile> staged;
    bool has_row;
    InFlight change;
    {
        std::lock_guard lock(inode->mutex);
        staged = inode->staged;
        has_row = !inode->unlinked || inode->kept;
        ++inode->generation;
        change.begin(inode);
    }
    if (has_row) {
        // Before the bytes go: after a crash the base must not shine through where the file was cut and grew again.
        Status noted = state.write([&](Database& db) -> Status {
            if (!staged->whole()) CORAL_CHECK(cut_links(db, staged->uuid(), size));
            return db.prepare("UPDATE inode SET overlay_limit=min(overlay_limit,?), size=? WHERE ino=?")
                .bind(size)
                .bind(size)
                .bind(inode->ino)
                .run();
        });
        if (!noted) {
            complete_later(inode);  // as it is
            return noted;
        }
    }
    // A file that is empty is not cut: ext4 takes a cut for the sign of a careless rewrite, and makes close(2) wait
    // until all that was written since is on the disk (auto_da_alloc).
    Status cut;
    if (size != 0 || staged->size() != 0 || !staged->whole()) cut = staged->truncate(size);
    bool nobody_writes;
    {
        std::lock_guard lock(inode->mutex);
        ++inode->generation;
        if (cut) {
            inode->size = size;
            inode->mtime_ns = inode->ctime_ns = now_ns();
        }
        nobody_writes = inode->writers == 0;
    }
    if (!nobody_writes) return cut;
    Status completed = complete_locked(inode);  // truncate(2) without a descriptor: nobody will flush
    return cut ? std::move(completed) : std::move(cut);
}

Status Worktree::allocate(const InodePtr& inode, std::uint64_t offset, std::uint64_t length, bool keep_size) {
    std::uint64_t end = 0;
    if (length == 0) return make_error(Errc::kInvalid, "a length of 0 cannot be allocated");
    if (!checked_add(offset, length, end) || end > kMostFileBytes) return make_error(Errc::kTooLarge, "file too large");
    // Room is promised by the disk below only when bytes are written: here it only sets the size.
    std::lock_guard ops(impl_->ops_mutex);
    std::uint64_t size = attributes(inode).size;
    if (keep_size || end <= size) return {};
    return impl_->truncate_locked(inode, end);
}

Status Worktree::zero(const InodePtr& inode, std::uint64_t offset, std::uint64_t length) {
    static const Buffer zeros(std::size_t{1} << 20);
    std::uint64_t size = attributes(inode).size, end = size;
    if (std::uint64_t wanted = 0; checked_add(offset, length, wanted)) end = std::min(size, wanted);
    auto whole_file = [&]() -> std::shared_ptr<File> {
        std::shared_ptr<StagedFile> staged;
        {
            std::lock_guard lock(inode->mutex);
            staged = inode->staged;
        }
        if (!staged || !staged->whole()) return nullptr;  // under a hole something may lie
        auto file = staged->file();
        return file ? *file : nullptr;
    };
    for (bool begun = false; offset < end; begun = true) {
        std::uint64_t until = end;
        // What is a hole already stays one: it may be larger than the disk. The first part is written even so, which
        // makes this a change as any other.
        if (auto file = begun ? whole_file() : nullptr) {
            offset = next_data(*file, offset, end);
            until = next_hole(*file, offset, end);
        }
        const std::uint64_t part = std::min<std::uint64_t>(zeros.size(), until - offset);
        if (part > 0) CORAL_CHECK(write(inode, offset, Bytes(zeros).first(static_cast<std::size_t>(part))));
        offset += part;
    }
    return {};
}

Status Worktree::Impl::complete_file(const InodePtr& inode) {
    std::lock_guard ops(ops_mutex);
    return complete_locked(inode);
}

Status Worktree::Impl::complete_locked(const InodePtr& inode) {
    if (may_still_change(inode)) {
        linger(inode);
        return {};
    }
    std::uint64_t size;
    std::int64_t mtime;
    bool synced;
    {
        std::lock_guard lock(inode->mutex);
        if (!inode->staged || inode->complete || inode->unlinked) return {};
        size = inode->staged->size();
        mtime = inode->mtime_ns;
    }
    Status noted = state.write([&](Database& db) {
        {
            std::lock_guard lock(inode->mutex);
            synced = inode->synced;  // here, where no sync can come between
        }
        return db
            .prepare(
                "UPDATE inode SET complete=1, size=?, mtime_ns=?, synced=CASE WHEN ? OR synced=0 THEN synced ELSE 2 "
                "END "
                "WHERE ino=?")
            .bind(size)
            .bind(mtime)
            .bind(synced)
            .bind(inode->ino)
            .run();
    });
    if (!noted) {
        complete_later(inode);  // its last close may have been this one
        return noted;
    }
    ++changes;
    {
        std::lock_guard lock(inode->mutex);
        inode->complete = true;
        inode->size = size;
    }
    enqueue(inode);
    return {};
}

Status Worktree::flush(const InodePtr& inode, bool writable) {
    if (!writable) return {};
    {
        std::lock_guard lock(inode->mutex);
        if (inode->writers > 1 || inode->loan.writers > 0) return {};
    }
    return impl_->complete_file(inode);
}

void Worktree::close_file(const InodePtr& inode, bool writable) {
    if (!writable) return impl_->close_handle(inode);
    impl_->count_writer(inode, -1);
    bool completes, waits;
    {
        std::lock_guard lock(inode->mutex);
        const bool last = inode->writers == 0 && inode->staged;
        completes = last && !inode->complete;
        waits = last && inode->complete && !inode->ingested && !inode->unlinked;  // ingest passes over open files
    }
    if (waits) impl_->enqueue(inode);
    if (completes) {
        if (auto done = impl_->complete_file(inode); !done) log_error("close: {}", done.error().message);
    }
    impl_->close_handle(inode);
}

// ---- durability

Status Worktree::sync_file(const InodePtr& inode) {
    impl_->refresh_lent(inode);
    std::shared_ptr<StagedFile> staged;
    std::uint64_t generation, size = 0;
    std::int64_t mtime;
    bool ingested, unlinked, lent, changing;
    {
        std::lock_guard lock(inode->mutex);
        lent = inode->loan.synced = inode->loan.writers > 0;
        staged = inode->staged;
        generation = inode->generation;
        ingested = inode->ingested;
        mtime = inode->mtime_ns;
        unlinked = inode->unlinked;
        changing = inode->changing > 0;
        if (staged) size = staged->size();
    }
    if (unlinked) return {};
    if (staged) {
        staged->promise();
        CORAL_CHECK(staged->sync_data());
        if (!staged->name_synced()) {
            CORAL_CHECK(repo_.os().sync_dir(impl_->staging_dir));
            staged->set_name_synced();
        }
    }
    if (!staged || ingested) CORAL_CHECK(repo_.store().sync());
    bool still_the_same = false;
    Status noted = impl_->state.write_durably([&](Database& db) -> Status {
        if (!staged) return {};
        {
            std::lock_guard lock(inode->mutex);
            still_the_same = !lent && !changing && inode->generation == generation && inode->staged == staged;
            if (still_the_same) inode->synced = true;
        }
        // Bytes written after the fdatasync began are not promised; what was there when fsync was called is. Whoever
        // wrote them may have noted the new size and time already: what was seen before must not take their place.
        CORAL_CHECK(db.prepare("UPDATE inode SET synced=?, boot=? WHERE ino=? AND staging=?")
                        .bind(still_the_same ? kSynced : kPartlySynced)
                        .bind(impl_->boot)
                        .bind(inode->ino)
                        .bind(staged->uuid())
                        .run());
        if (!still_the_same) return {};
        return db.prepare("UPDATE inode SET size=?, mtime_ns=? WHERE ino=? AND staging=?")
            .bind(size)
            .bind(mtime)
            .bind(inode->ino)
            .bind(staged->uuid())
            .run();
    });
    if (!noted && still_the_same) {
        std::lock_guard lock(inode->mutex);
        inode->synced = false;
    }
    return noted;
}

Status Worktree::sync_names() {
    CORAL_CHECK(repo_.store().sync());
    // A new file's row is worth nothing without its staging file: it would be taken for one that never came to be.
    CORAL_CHECK(repo_.os().sync_dir(impl_->staging_dir));
    return impl_->state.write_durably([](Database&) { return Status(); });
}

}  // namespace coral::repo
