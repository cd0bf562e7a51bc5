// SPDX-License-Identifier: Apache-2.0
// Names of a worktree: look-up, listing, creation, removal, rename.
#include <fmt/format.h>

#include <algorithm>

#include "repo/overlay_rows.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

Status check_name(std::string_view name) {
    if (name.size() > 255)
        return make_error(Errc::kNameTooLong, fmt::format("{}…: name longer than 255 bytes", name.substr(0, 40)));
    if (!valid_name(name)) return make_error(Errc::kInvalid, fmt::format("'{}' cannot be a name", name));
    return {};
}

Error no_entry(std::string_view name) {
    return make_error(Errc::kNotFound, fmt::format("{}: no such file or directory", name));
}

Attributes attributes_of_row(const Row& row) {
    Attributes out;
    out.ino = row.ino;
    out.type = file_type(row.type);
    out.mode = row.mode;
    out.uid = row.uid;
    out.gid = row.gid;
    out.size = row.size;
    out.atime_ns = out.mtime_ns = row.mtime_ns;
    out.ctime_ns = row.ctime_ns;
    out.incomplete = !row.complete;
    return out;
}

}  // namespace

// ---- filling

// A directory's entries become rows the first time somebody looks into it.
Status Worktree::Impl::fill(const InodePtr& dir) {
    {
        std::lock_guard lock(dir->mutex);
        if (dir->type != EntryType::kDirectory)
            return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", dir->name));
        if (dir->unlinked) return no_entry(dir->name);
        if (dir->filled) return {};
    }
    std::optional<Row> row;
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        CORAL_TRY(row, select_ino(db, dir->ino));
        return {};
    }));
    if (!row) return no_entry(dir->name);
    std::shared_ptr<const Tree> tree_object = std::make_shared<Tree>();
    if (row->content) {
        CORAL_TRY(tree_object, repo.tree(TreeId::from(*row->content)));
    }
    CORAL_CHECK(state.write([&](Database& db) { return fill_rows(db, dir->ino, *tree_object, row->mtime_ns); }));
    ++changes;
    std::lock_guard lock(dir->mutex);
    dir->filled = true;
    return {};
}

Status Worktree::Impl::fill_rows(Database& db, Ino dir, const Tree& entries, std::int64_t mtime_ns) {
    std::uint32_t uid = 0, gid = 0;
    CORAL_TRY(auto dir_row, select_ino(db, dir));
    if (dir_row) {
        uid = dir_row->uid;
        gid = dir_row->gid;
    }
    for (const TreeEntry& entry : entries.entries) {
        Row row;
        row.parent = dir;
        row.name = entry.name;
        row.type = entry.type;
        row.mode = entry.type == EntryType::kSymlink ? 0777 : entry.mode;
        row.uid = uid;
        row.gid = gid;
        row.size = entry.size;
        row.mtime_ns = entry.type == EntryType::kFile ? entry.mtime_ns : mtime_ns;
        row.ctime_ns = row.mtime_ns;
        if (entry.type != EntryType::kSymlink) row.content = entry.content;
        row.link = entry.link;
        if (!entry.xattrs.is_zero()) {
            CORAL_TRY(Xattrs xattrs, repo.xattrs(entry.xattrs));
            row.xattrs = encode_xattrs(xattrs);
        }
        CORAL_TRY(Ino ino, insert_row(db, row_id, row));
        (void)ino;
    }
    return db.prepare("UPDATE inode SET filled=1 WHERE ino=?").bind(dir).run();
}

// ---- look-up

Result<InodePtr> Worktree::lookup(const InodePtr& dir, std::string_view name) {
    CORAL_CHECK(check_name(name));
    while (true) {
        bool filled;
        {
            std::lock_guard lock(dir->mutex);
            filled = dir->filled;
            if (dir->type != EntryType::kDirectory)
                return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", dir->name));
        }
        if (!filled) {
            std::lock_guard ops(impl_->ops_mutex);
            CORAL_CHECK(impl_->fill(dir));
        }
        std::uint64_t before = impl_->changes;
        std::optional<Row> row;
        CORAL_CHECK(impl_->state.look_up([&](Database& db) -> Status {
            CORAL_TRY(row, select_child(db, dir->ino, name));
            return {};
        }));
        if (!row) return no_entry(name);
        auto inode = impl_->inode_of(*row, before);
        if (inode || inode.error().code != Errc::kConflict) return inode;
    }
}

Result<InodePtr> Worktree::lookup_path(std::string_view path) {
    InodePtr at = root_;
    while (!path.empty()) {
        std::size_t slash = path.find('/');
        std::string_view part = path.substr(0, slash);
        path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
        if (part.empty()) continue;
        CORAL_TRY(at, lookup(at, part));
    }
    return at;
}

Result<std::vector<DirEntry>> Worktree::list(const InodePtr& dir, std::string_view after, std::size_t limit) {
    {
        std::lock_guard ops(impl_->ops_mutex);
        auto filled = impl_->fill(dir);
        // A removed directory that is still open lists nothing.
        if (!filled && filled.error().code == Errc::kNotFound) return std::vector<DirEntry>{};
        CORAL_CHECK(filled);
    }
    std::vector<DirEntry> entries;
    CORAL_CHECK(impl_->state.read([&](Database& db) -> Status {
        Statement st = db.prepare(fmt::format(
            "SELECT {} FROM inode WHERE parent=? AND parent!=0 AND name>? ORDER BY name LIMIT ?", kColumns));
        st.bind(dir->ino).bind(as_bytes(after)).bind(static_cast<std::int64_t>(std::min<std::size_t>(limit, 1u << 30)));
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            Row row = read_row(st);
            entries.push_back({row.name, attributes_of_row(row)});
        }
    }));
    // Rows of files being written are behind their inodes.
    for (DirEntry& entry : entries) {
        if (InodePtr known = impl_->cached(entry.attributes.ino)) entry.attributes = attributes(known);
    }
    return entries;
}

Result<std::string> Worktree::path_of(const InodePtr& inode) {
    std::string path;
    InodePtr at = inode;
    for (int depth = 0; at->ino != root_->ino; ++depth) {
        Ino parent;
        {
            std::lock_guard lock(at->mutex);
            if (at->unlinked) return make_error(Errc::kStale, fmt::format("{}: has been removed", at->name));
            path = path.empty() ? at->name : fmt::format("{}/{}", at->name, path);
            parent = at->parent;
        }
        if (depth > 100'000) return make_error(Errc::kLoop, "state.db: a directory lies in itself");
        CORAL_TRY(at, get(parent));
    }
    return path;
}

Result<InodePtr> Worktree::parent_of(const InodePtr& inode) {
    if (inode->ino == root_->ino) return InodePtr();
    Ino parent;
    {
        std::lock_guard lock(inode->mutex);
        if (inode->unlinked) return make_error(Errc::kStale, fmt::format("{}: has been removed", inode->name));
        parent = inode->parent;
    }
    return get(parent);
}

// ---- creation and removal. ops_mutex is held by the callers below.

// Something in `dir` changed: it and all above may differ from the base now.
Status Worktree::Impl::touch_directory(Database& db, Ino dir, std::int64_t now) {
    CORAL_CHECK(db.prepare("UPDATE inode SET version=version+1, mtime_ns=?, ctime_ns=? WHERE ino=?")
                    .bind(now)
                    .bind(now)
                    .bind(dir)
                    .run());
    while (dir != 0) {
        Statement st = db.prepare("SELECT parent, dirty FROM inode WHERE ino=?");
        st.bind(dir);
        CORAL_TRY(bool there, st.step());
        if (!there || st.integer(1) != 0) return {};
        Ino parent = st.unsigned_integer(0);
        CORAL_CHECK(db.prepare("UPDATE inode SET dirty=1 WHERE ino=?").bind(dir).run());
        dir = parent;
    }
    return {};
}

void Worktree::Impl::touch_memory(const InodePtr& dir, std::int64_t now) {
    std::lock_guard lock(dir->mutex);
    dir->mtime_ns = dir->ctime_ns = now;
}

Result<Row> Worktree::Impl::child_row(const InodePtr& dir, std::string_view name) {
    CORAL_CHECK(fill(dir));
    std::optional<Row> row;
    CORAL_CHECK(state.look_up([&](Database& db) -> Status {
        CORAL_TRY(row, select_child(db, dir->ino, name));
        return {};
    }));
    if (!row) return no_entry(name);
    return std::move(*row);
}

Result<InodePtr> Worktree::Impl::insert_child(const InodePtr& dir, Row row) {
    CORAL_CHECK(check_name(row.name));
    CORAL_CHECK(fill(dir));
    std::string name = row.name;
    auto made = insert_row_in(dir, std::move(row), nullptr);  // names are unique: the index says so
    if (!made && made.error().code == Errc::kExists)
        return make_error(Errc::kExists, fmt::format("{}: exists already", name));
    return made;
}

// In one transaction with the removal of `replaced`, so that the name is never missing, whenever the machine stops.
Result<InodePtr> Worktree::Impl::insert_row_in(const InodePtr& dir, Row row, const Row* replaced) {
    row.parent = dir->ino;
    {
        std::lock_guard lock(dir->mutex);
        if (dir->mode & 02000) {  // set-gid directories hand their group down
            row.gid = dir->gid;
            if (row.type == EntryType::kDirectory) row.mode |= 02000;
        }
    }
    InodePtr old;
    if (replaced) {
        CORAL_TRY(old, load_inode(replaced->ino));
        pin_contents(old);
    }
    CORAL_CHECK(state.write([&](Database& db) -> Status {
        if (replaced) CORAL_CHECK(delete_row(db, *replaced));
        CORAL_TRY(row.ino, insert_row(db, row_id, row));
        return touch_directory(db, dir->ino, row.ctime_ns);
    }));
    touch_memory(dir, row.ctime_ns);
    if (old) forget_removed(old);
    auto inode = inode_of(row, ++changes);
    if (!inode && inode.error().code == Errc::kConflict) return load_inode(row.ino);  // a commit has just been made
    return inode;
}

Result<InodePtr> Worktree::create_file(const InodePtr& dir, std::string_view name, std::uint32_t mode,
                                       std::uint32_t uid, std::uint32_t gid) {
    std::lock_guard ops(impl_->ops_mutex);
    CORAL_CHECK(check_name(name));
    Row row;
    row.name = std::string(name);
    row.mode = mode & 07777;
    row.uid = uid;
    row.gid = gid;
    row.mtime_ns = row.ctime_ns = now_ns();
    row.complete = false;
    row.boot = impl_->boot;
    CORAL_CHECK(impl_->fill(dir));
    // The file first: a row must never name a staging file that is not there.
    CORAL_TRY(row.staging, impl_->new_staging_file());
    std::string path = impl_->staging_path(*row.staging);
    auto inode = impl_->insert_child(dir, std::move(row));
    if (!inode) {
        (void)repo_.os().remove(path);
        return inode;
    }
    std::lock_guard lock((*inode)->mutex);
    // Of a row that is not complete we think otherwise that a daemon that died has left it.
    (*inode)->loan.unknown_writers = false;
    if ((*inode)->staged) (*inode)->staged->set_reusable(true);
    return inode;
}

// What was made or emptied through a descriptor that cannot write: no writer's close will ever complete it.
Status Worktree::Impl::complete_unwritten(const InodePtr& inode) {
    {
        std::lock_guard lock(inode->mutex);
        if (inode->writers > 0 || inode->loan.writers > 0) return {};
    }
    return complete_locked(inode);
}

Status Worktree::complete_unwritten(const InodePtr& inode) {
    std::lock_guard ops(impl_->ops_mutex);
    return impl_->complete_unwritten(inode);
}

Result<InodePtr> Worktree::make_directory(const InodePtr& dir, std::string_view name, std::uint32_t mode,
                                          std::uint32_t uid, std::uint32_t gid) {
    std::lock_guard ops(impl_->ops_mutex);
    Row row;
    row.name = std::string(name);
    row.type = EntryType::kDirectory;
    row.mode = mode & 07777;
    row.uid = uid;
    row.gid = gid;
    row.mtime_ns = row.ctime_ns = now_ns();
    row.filled = row.dirty = true;
    return impl_->insert_child(dir, std::move(row));
}

Result<InodePtr> Worktree::make_symlink(const InodePtr& dir, std::string_view name, std::string_view target,
                                        std::uint32_t uid, std::uint32_t gid) {
    std::lock_guard ops(impl_->ops_mutex);
    if (target.empty()) return make_error(Errc::kNotFound, "a symlink cannot be empty");
    if (target.size() > 4095) return make_error(Errc::kNameTooLong, "a symlink's text is limited to 4095 bytes");
    Row row;
    row.name = std::string(name);
    row.type = EntryType::kSymlink;
    row.mode = 0777;
    row.uid = uid;
    row.gid = gid;
    row.size = target.size();
    row.mtime_ns = row.ctime_ns = now_ns();
    row.link = std::string(target);
    return impl_->insert_child(dir, std::move(row));
}

Status Worktree::Impl::delete_row(Database& db, const Row& row) {
    if (keeps_row(row.ino))
        return db.prepare("UPDATE inode SET parent=0, previous=NULL WHERE ino=?").bind(row.ino).run();
    if (row.staging) CORAL_CHECK(forget_units(db, *row.staging));
    return db.prepare("DELETE FROM inode WHERE ino=?").bind(row.ino).run();
}

// After its row is gone: handles go on with the inode; the staging file goes once the removal is on the disk.
// Before its name goes: whoever has it open reads on.
void Worktree::Impl::pin_contents(const InodePtr& inode) {
    std::vector<FileId> shown;
    {
        std::lock_guard lock(inode->mutex);
        if (inode->content) shown.push_back(*inode->content);
        if (inode->staged) {
            for (const FileId& id : inode->staged->shown()) shown.push_back(id);
        }
    }
    std::vector<std::shared_ptr<void>> pins;
    for (const FileId& id : shown) pins.push_back(repo.pin(id));
    std::lock_guard lock(inode->mutex);
    inode->pins = std::move(pins);
}

void Worktree::Impl::forget_removed(const InodePtr& inode) {
    std::shared_ptr<StagedFile> orphan;
    bool closed_meanwhile;
    {
        std::lock_guard lock(inode->mutex);
        inode->unlinked = true;
        closed_meanwhile = inode->handles == 0;
        ++inode->generation;
        inode->ctime_ns = now_ns();
        orphan = inode->staged;
    }
    {
        std::lock_guard lock(table_mutex);
        written.erase(inode->ino);
    }
    if (closed_meanwhile) drop_kept_row(inode);
    if (orphan) leave_orphan(orphan);
    std::lock_guard lock(queue_mutex);
    failures.erase(inode->ino);  // a commit has no file to miss
    if (current_inode == inode && current) current->cancel = true;
}

Result<InodePtr> Worktree::Impl::remove_entry(const InodePtr& dir, const Row& row) {
    CORAL_TRY(InodePtr inode, load_inode(row.ino));
    pin_contents(inode);
    std::int64_t now = now_ns();
    CORAL_CHECK(state.write([&](Database& db) -> Status {
        CORAL_CHECK(delete_row(db, row));
        return touch_directory(db, dir->ino, now);
    }));
    ++changes;
    touch_memory(dir, now);
    forget_removed(inode);
    return inode;
}

Result<InodePtr> Worktree::unlink(const InodePtr& dir, std::string_view name) {
    std::lock_guard ops(impl_->ops_mutex);
    CORAL_TRY(Row row, impl_->child_row(dir, name));
    if (row.type == EntryType::kDirectory)
        return make_error(Errc::kIsDirectory, fmt::format("{}: is a directory", name));
    return impl_->remove_entry(dir, row);
}

Result<InodePtr> Worktree::remove_directory(const InodePtr& dir, std::string_view name) {
    std::lock_guard ops(impl_->ops_mutex);
    CORAL_TRY(Row row, impl_->child_row(dir, name));
    if (row.type != EntryType::kDirectory)
        return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", name));
    CORAL_TRY(InodePtr inode, impl_->load_inode(row.ino));
    CORAL_CHECK(impl_->fill(inode));
    bool empty = false;
    CORAL_CHECK(impl_->state.read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT 1 FROM inode WHERE parent=? LIMIT 1");
        st.bind(row.ino);
        CORAL_TRY(bool any, st.step());
        empty = !any;
        return {};
    }));
    if (!empty) return make_error(Errc::kNotEmpty, fmt::format("{}: directory not empty", name));
    return impl_->remove_entry(dir, row);
}

}  // namespace coral::repo
