// SPDX-License-Identifier: Apache-2.0
// A worktree that goes on where another process stopped: its lock never was anybody else's, the kernel still names its
// inodes and has its files open. Removed files that are open have rows without a parent, and only here are they
// anybody's.
#include "coral/base/log.hpp"
#include "repo/overlay_rows.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {

Result<bool> Worktree::has(Ino ino) {
    bool there = false;
    CORAL_CHECK(impl_->state.read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT 1 FROM inode WHERE ino=? AND worktree=?");
        st.bind(ino).bind(impl_->row_id);
        CORAL_TRY(there, st.step());
        return {};
    }));
    return there;
}

Result<bool> Worktree::Impl::resume_row(const Row& row, std::vector<Ino>& ready) {
    if (row.boot != boot) return false;
    auto staged = repo.os().stat(staging_path(*row.staging));
    if (!staged) return false;
    if (!row.ingested || !row.content) {
        if (row.parent != 0) return false;  // as after any crash: what was written is there
        // Removed: nobody will ever ingest it.
        CORAL_CHECK(state.write([&](Database& db) {
            return db.prepare("UPDATE inode SET size=? WHERE ino=?").bind(staged->size).bind(row.ino).run();
        }));
        return true;
    }
    CORAL_TRY(bool stored, repo.store().contains(store::Kind::kFile, *row.content));
    if (!stored) return false;
    // Its staging file may be lent to the kernel, and is hot: it goes when it would have gone anyway.
    if (row.parent == 0) return true;
    CORAL_TRY(InodePtr inode, load_inode(row.ino));
    std::lock_guard lock(queue_mutex);
    settled.push_back(inode);
    settled_bytes += staged->size;
    (void)ready;
    return true;
}

Status Worktree::Impl::purge_removed() {
    return state.write([&](Database& db) -> Status {
        CORAL_CHECK(db.prepare("DELETE FROM inode WHERE worktree=? AND parent=0 AND ino!=?")
                        .bind(row_id)
                        .bind(tree.root_->ino)
                        .run());
        return forget_stray_units(db);
    });
}

Status Worktree::resumed() {
    Status done = impl_->let_go_of_closed();
    impl_->start_threads();
    return done;
}

// Of what was open when the process before this one stopped: what is not open now.
Status Worktree::Impl::let_go_of_closed() {
    std::vector<Ino> removed, lent = std::exchange(lent_before, {});
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT ino FROM inode WHERE worktree=? AND parent=0 AND ino!=?");
        st.bind(row_id).bind(tree.root_->ino);
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            removed.push_back(st.unsigned_integer(0));
        }
    }));
    for (Ino ino : removed) {
        CORAL_TRY(InodePtr inode, tree.get(ino));
        bool open;
        {
            std::lock_guard lock(inode->mutex);
            open = inode->handles > 0;
        }
        if (!open) drop_kept_row(inode);
    }
    for (Ino ino : lent) {
        CORAL_TRY(InodePtr inode, tree.get(ino));
        bool open;
        {
            std::lock_guard lock(inode->mutex);
            open = inode->loan.writers > 0;
        }
        if (!open) CORAL_CHECK(complete_file(inode));
    }
    return {};
}

Status Worktree::announce_all() {
    std::vector<std::tuple<Ino, std::string, Ino>> all;
    CORAL_CHECK(impl_->state.read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT parent, name, ino FROM inode WHERE worktree=? AND parent!=0");
        st.bind(impl_->row_id);
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            all.emplace_back(st.unsigned_integer(0), std::string(as_text(st.blob(1))), st.unsigned_integer(2));
        }
    }));
    impl_->changed(all);
    return {};
}

// ---- files that are removed while they are open

// Asked before the row would be deleted.
bool Worktree::Impl::keeps_row(Ino ino) {
    InodePtr inode = locks ? cached(ino) : nullptr;
    if (!inode || inode->type != EntryType::kFile) return false;
    std::lock_guard lock(inode->mutex);
    inode->kept = inode->handles > 0;
    return inode->kept;
}

void Worktree::Impl::drop_kept_row(const InodePtr& inode) {
    {
        std::lock_guard lock(inode->mutex);
        if (!inode->kept || !inode->unlinked) return;
        inode->kept = false;
    }
    Status done = state.write([&](Database& db) -> Status {
        CORAL_CHECK(forget_units_of(db, inode->ino));
        return db.prepare("DELETE FROM inode WHERE ino=? AND parent=0").bind(inode->ino).run();
    });
    if (!done) log_warn("{}: {}", inode->name, done.error().message);
    ++changes;
}

void Worktree::Impl::close_handle(const InodePtr& inode) {
    {
        std::lock_guard lock(inode->mutex);
        if (inode->handles > 0) --inode->handles;
        if (inode->handles > 0 || !inode->kept || !inode->unlinked) return;
    }
    drop_kept_row(inode);
}

}  // namespace coral::repo
