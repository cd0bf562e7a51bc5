// SPDX-License-Identifier: Apache-2.0
// Contents that come from the store instead of a writer: restore, and what `coral add` places. A replaced file gets a
// new inode; the old one keeps its bytes for whoever has it open. Directories keep theirs.
#include <fmt/format.h>

#include <algorithm>

#include "repo/whole.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

Row row_of(const TreeEntry& entry, std::uint32_t uid, std::uint32_t gid, std::int64_t now) {
    Row row;
    row.name = entry.name;
    row.type = entry.type;
    row.mode = entry.type == EntryType::kSymlink ? 0777 : entry.mode;
    row.uid = uid;
    row.gid = gid;
    row.size = entry.size;
    row.mtime_ns = entry.type == EntryType::kFile ? entry.mtime_ns : now;
    row.ctime_ns = now;
    if (entry.type != EntryType::kSymlink) row.content = entry.content;
    row.link = entry.link;
    return row;
}

// Mode and extended attributes of a directory that is there and stays. True: they were others. (A template, because
// Worktree alone may name its Impl.)
template <class Impl>
Result<bool> restore_attributes(Impl& impl, const InodePtr& inode, const Row& there, const TreeEntry& wanted) {
    CORAL_TRY(Xattrs xattrs, impl.repo.xattrs(wanted.xattrs));
    const Buffer encoded = xattrs.empty() ? Buffer{} : encode_xattrs(xattrs);
    if (static_cast<std::uint16_t>(there.mode & 0777) == wanted.mode && encoded == there.xattrs) return false;
    const std::int64_t now = now_ns();
    CORAL_CHECK(impl.state.write([&](Database& db) -> Status {
        Statement st = db.prepare("UPDATE inode SET mode=?, xattrs=?, ctime_ns=? WHERE ino=?");
        st.bind(std::uint32_t{wanted.mode});
        if (encoded.empty())
            st.bind_null();
        else
            st.bind(Bytes(encoded));
        CORAL_CHECK(st.bind(now).bind(there.ino).run());
        // They are part of history, so the folder above may differ from its base now; its own times stay.
        Statement times = db.prepare("SELECT mtime_ns FROM inode WHERE ino=?");
        times.bind(there.parent);
        CORAL_TRY(bool above, times.step());
        return above ? impl.touch_directory(db, there.parent, times.integer(0)) : Status();
    }));
    ++impl.changes;
    std::lock_guard lock(inode->mutex);
    inode->mode = wanted.mode;
    inode->xattrs = std::move(xattrs);
    inode->ctime_ns = now;
    return true;
}

}  // namespace

// Who is not in history: of a file that is there its own, of a new one that of its directory.
Worktree::Impl::Owner Worktree::Impl::owner_of(const Inode& inode) {
    std::lock_guard lock(inode.mutex);
    return {inode.uid, inode.gid};
}

// Nothing when there is no such entry; other errors pass.
Result<InodePtr> Worktree::Impl::find_child(const InodePtr& dir, std::string_view name) {
    auto row = child_row(dir, name);
    if (!row && row.error().code == Errc::kNotFound) return InodePtr();
    CORAL_CHECK(row);
    return load_inode(row->ino);
}

Result<std::uint64_t> Worktree::Impl::remove_recursively(const InodePtr& dir, const Row& row, Events& events) {
    std::uint64_t removed = row.type == EntryType::kDirectory ? 0 : 1;
    CORAL_CHECK(empty_directory(row, events, removed));
    CORAL_CHECK(remove_entry(dir, row));
    events.emplace_back(dir->ino, row.name, row.ino);
    return removed;
}

// Nothing to do for what is no directory.
Status Worktree::Impl::empty_directory(const Row& row, Events& events, std::uint64_t& removed) {
    if (row.type != EntryType::kDirectory) return {};
    CORAL_TRY(InodePtr inode, load_inode(row.ino));
    CORAL_CHECK(fill(inode));
    std::vector<Row> children;
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        CORAL_TRY(children, select_children(db, row.ino));
        return {};
    }));
    for (const Row& child : children) {
        CORAL_TRY(std::uint64_t below, remove_recursively(inode, child, events));
        removed += below;
    }
    return {};
}

Result<std::uint64_t> Worktree::Impl::restore_entry(const InodePtr& dir, const std::string& name,
                                                    const TreeEntry* wanted, Events& events) {
    auto there = child_row(dir, name);
    if (!there && there.error().code != Errc::kNotFound) return std::move(there).error();
    if (!wanted) {
        if (!there) return std::uint64_t{0};
        return remove_recursively(dir, *there, events);
    }
    if (there) {
        bool same_type = there->type == wanted->type;
        if (same_type && wanted->type == EntryType::kDirectory) {
            CORAL_TRY(InodePtr inode, load_inode(there->ino));
            CORAL_TRY(const bool differed, restore_attributes(*this, inode, *there, *wanted));
            // Without a name: whoever has the directory as its current one would lose it.
            if (differed) events.emplace_back(there->ino, "", 0);
            CORAL_TRY(std::uint64_t below, restore_directory(inode, TreeId::from(wanted->content), events));
            return below + (differed ? 1 : 0);
        }
        bool at_rest = there->content && (!there->staging || there->ingested) && *there->content == wanted->content;
        CORAL_TRY(Xattrs xattrs, repo.xattrs(wanted->xattrs));
        bool same_xattrs = (xattrs.empty() ? Buffer{} : encode_xattrs(xattrs)) == there->xattrs;
        bool same_mode = static_cast<std::uint16_t>(there->mode & 0777) == wanted->mode;
        if (same_type && wanted->type == EntryType::kFile && at_rest && same_xattrs && same_mode)
            return std::uint64_t{0};
        if (same_type && wanted->type == EntryType::kSymlink && there->link == wanted->link) return std::uint64_t{0};
        std::uint64_t removed = 0;  // counted once, below, as the entry that came
        CORAL_CHECK(empty_directory(*there, events, removed));
    }
    const Owner owner = there ? Owner{there->uid, there->gid} : owner_of(*dir);
    Row row = row_of(*wanted, owner.uid, owner.gid, now_ns());
    row.name = name;
    if (!wanted->xattrs.is_zero()) {
        CORAL_TRY(Xattrs xattrs, repo.xattrs(wanted->xattrs));
        row.xattrs = encode_xattrs(xattrs);
    }
    CORAL_CHECK(insert_row_in(dir, std::move(row), there ? &*there : nullptr));
    events.emplace_back(dir->ino, name, there ? there->ino : 0);
    if (wanted->type != EntryType::kDirectory) return std::uint64_t{1};
    std::uint64_t files = 0;  // a whole directory came: count what is in it
    CORAL_CHECK(diff_trees(repo, TreeId{}, TreeId::from(wanted->content), [&](const Change&) -> Status {
        ++files;
        return {};
    }));
    return files;
}

Result<std::uint64_t> Worktree::Impl::restore_directory(const InodePtr& dir, const TreeId& wanted_id, Events& events) {
    CORAL_CHECK(fill(dir));
    std::shared_ptr<const Tree> wanted = std::make_shared<Tree>();
    if (!wanted_id.is_zero()) {
        CORAL_TRY(wanted, repo.tree(wanted_id));
    }
    std::vector<Row> rows;
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        CORAL_TRY(rows, select_children(db, dir->ino));
        return {};
    }));
    std::uint64_t changed = 0;
    for (const Row& row : rows) {
        if (wanted->find(row.name)) continue;
        CORAL_TRY(std::uint64_t removed, remove_recursively(dir, row, events));
        changed += removed;
    }
    for (const TreeEntry& entry : wanted->entries) {
        CORAL_TRY(std::uint64_t below, restore_entry(dir, entry.name, &entry, events));
        changed += below;
    }
    return changed;
}

Result<std::optional<TreeEntry>> Worktree::Impl::wanted_at(const TreeId& source, const std::string& path) {
    if (source.is_zero()) return std::optional<TreeEntry>();
    auto entry = repo.entry_at(source, path);
    if (entry) return std::optional<TreeEntry>(std::move(*entry));
    if (entry.error().code != Errc::kNotFound && entry.error().code != Errc::kNotDirectory)
        return std::move(entry).error();
    return std::optional<TreeEntry>();
}

// Null when it is not there, or something on the way is no directory.
Result<InodePtr> Worktree::Impl::find_path(std::string_view path) {
    InodePtr at = tree.root_;
    while (at && !path.empty()) {
        const std::size_t slash = path.find('/');
        if (at->type != EntryType::kDirectory) return InodePtr();
        CORAL_TRY(at, find_child(at, path.substr(0, slash)));
        path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    }
    return at;
}

Status Worktree::Impl::check_restorable(const std::string& path, bool wanted, const std::vector<std::string>& paths) {
    if (!wanted) {
        CORAL_TRY(InodePtr there, find_path(path));
        if (there) return {};
        return make_error(Errc::kNotFound, fmt::format("{}: is neither in the source nor on {}", path, tree.branch_));
    }
    for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
        const std::string above = path.substr(0, slash);
        CORAL_TRY(InodePtr there, find_path(above));
        if (!there || std::find(paths.begin(), paths.end(), above) != paths.end()) return {};
        if (there->type != EntryType::kDirectory)
            return make_error(Errc::kNotDirectory,
                              fmt::format("{}: {} is a file now; restore that, or remove it", path, above));
    }
    return {};
}

Result<std::uint64_t> Worktree::restore(const TreeId& source, const std::vector<std::string>& paths) {
    // `source` may be of a commit that no name leads to.
    CORAL_TRY(store::Session session, repo_.store().session());
    CORAL_CHECK(require_whole(repo_, source));
    Impl::Events events;
    auto work = [&]() -> Result<std::uint64_t> {
        std::lock_guard ops(impl_->ops_mutex);
        std::uint64_t changed = 0;
        if (paths.empty() || std::find(paths.begin(), paths.end(), "") != paths.end()) {
            return impl_->restore_directory(root_, source, events);
        }
        // First all of them are looked at: an error at the last one must not come after the first was overwritten.
        std::vector<std::optional<TreeEntry>> wanted;
        for (const std::string& path : paths) {
            CORAL_TRY(wanted.emplace_back(), impl_->wanted_at(source, path));
            CORAL_CHECK(impl_->check_restorable(path, wanted.back().has_value(), paths));
        }
        for (std::size_t i = 0; i < paths.size(); ++i) {
            const std::string parent = path_parent(paths[i]) == "." ? "" : path_parent(paths[i]);
            InodePtr dir;
            if (wanted[i]) {
                CORAL_TRY(dir, impl_->make_path(parent, std::nullopt, events));
            } else {
                CORAL_TRY(dir, impl_->find_path(parent));
                if (!dir) continue;  // went with an earlier one
            }
            CORAL_TRY(std::uint64_t below,
                      impl_->restore_entry(dir, path_name(paths[i]), wanted[i] ? &*wanted[i] : nullptr, events));
            changed += below;
        }
        return changed;
    };
    auto done = work();
    impl_->changed(events);
    return done;
}

// Directories down to `path`, made where they are missing. A file in the way is kNotDirectory.
Result<InodePtr> Worktree::Impl::make_path(std::string_view path, std::optional<Owner> owner, Events& events) {
    InodePtr at = tree.root_;
    while (!path.empty()) {
        std::size_t slash = path.find('/');
        std::string name(path.substr(0, slash));
        path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
        CORAL_TRY(InodePtr next, find_child(at, name));
        if (!next) {
            Row row;
            row.name = name;
            row.type = EntryType::kDirectory;
            row.mode = 0755;
            const Owner its = owner ? *owner : owner_of(*at);
            row.uid = its.uid;
            row.gid = its.gid;
            row.mtime_ns = row.ctime_ns = now_ns();
            row.filled = row.dirty = true;
            CORAL_TRY(next, insert_child(at, std::move(row)));
            events.emplace_back(at->ino, name, 0);
        } else if (next->type != EntryType::kDirectory) {
            return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", name));
        }
        at = next;
    }
    return at;
}

Result<InodePtr> Worktree::place_file(const std::string& path, const FileId& file, std::uint64_t size,
                                      std::uint32_t mode, std::int64_t mtime_ns, std::uint32_t uid, std::uint32_t gid) {
    CORAL_TRY(store::Session session, repo_.store().session());
    CORAL_TRY(bool stored, repo_.store().contains(store::Kind::kFile, AnyId::from(file)));
    if (!stored)
        return make_error(Errc::kNotFound, fmt::format("{}: its content {} is not in the store", path, file.hex()));
    Impl::Events events;
    auto work = [&]() -> Result<InodePtr> {
        std::lock_guard ops(impl_->ops_mutex);
        CORAL_TRY(InodePtr dir,
                  impl_->make_path(path_parent(path) == "." ? "" : path_parent(path), Impl::Owner{uid, gid}, events));
        std::string name = path_name(path);
        if (!valid_name(name)) return make_error(Errc::kInvalid, fmt::format("{}: cannot be a name", path));
        auto there = impl_->child_row(dir, name);
        if (there) {
            if (there->type == EntryType::kDirectory)
                return make_error(Errc::kIsDirectory, fmt::format("{}: is a directory", path));
        } else if (there.error().code != Errc::kNotFound) {
            return std::move(there).error();
        }
        Row row;
        row.name = name;
        row.mode = mode & 07777;
        row.uid = uid;
        row.gid = gid;
        row.size = size;
        row.mtime_ns = mtime_ns;
        row.ctime_ns = now_ns();
        row.content = AnyId::from(file);
        events.emplace_back(dir->ino, name, there ? there->ino : 0);
        return impl_->insert_row_in(dir, std::move(row), there ? &*there : nullptr);
    };
    auto done = work();
    impl_->changed(events);
    if (done) {
        store::WorkHint hint{uuid_, branch_, path, file, mode, mtime_ns, true};
        CORAL_CHECK(repo_.store().put_work_hint(hint));
        if (auto record = repo_.store().file(file)) base_map_.learn(**record);
    }
    return done;
}

}  // namespace coral::repo
