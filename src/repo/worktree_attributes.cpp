// SPDX-License-Identifier: Apache-2.0
// Attributes and extended attributes of a worktree's inodes.
#include <fmt/format.h>

#include <algorithm>

#include "repo/worktree_impl.hpp"

namespace coral::repo {

Attributes Worktree::attributes(const InodePtr& inode) const {
    impl_->refresh_lent(inode);
    std::lock_guard lock(inode->mutex);
    Attributes out;
    out.ino = inode->ino;
    out.type = file_type(inode->type);
    out.mode = inode->mode;
    out.uid = inode->uid;
    out.gid = inode->gid;
    out.size = inode->staged ? inode->staged->size() : inode->size;
    out.atime_ns = inode->atime_ns;
    out.mtime_ns = inode->mtime_ns;
    out.ctime_ns = inode->ctime_ns;
    out.nlink = inode->unlinked ? 0 : 1;
    out.incomplete = inode->staged && !inode->complete;
    out.lent = inode->loan.may_be_written();
    return out;
}

Status Worktree::set_attributes(const InodePtr& inode, const SetAttributes& set) {
    std::lock_guard ops(impl_->ops_mutex);
    if (set.size) {
        if (inode->type != EntryType::kFile) return make_error(Errc::kIsDirectory, "only a file's size can be set");
        CORAL_CHECK(impl_->truncate_locked(inode, *set.size));
    }
    impl_->refresh_lent(inode);  // what was written until now no longer decides the times
    if (set.mtime_ns) CORAL_CHECK(impl_->set_staged_mtime(inode, *set.mtime_ns));
    std::int64_t now = now_ns();
    Row row;
    bool has_row;
    {
        std::lock_guard lock(inode->mutex);
        row.mode = set.mode ? (*set.mode & 07777) : inode->mode;
        row.uid = set.uid.value_or(inode->uid);
        row.gid = set.gid.value_or(inode->gid);
        row.mtime_ns = set.mtime_ns.value_or(inode->mtime_ns);
        row.parent = inode->unlinked ? 0 : inode->parent;
        has_row = !inode->unlinked || inode->kept;
    }
    if (inode->type == EntryType::kSymlink) row.mode = 0777;
    if (has_row) {
        CORAL_CHECK(impl_->state.write([&](Database& db) -> Status {
            CORAL_CHECK(db.prepare("UPDATE inode SET mode=?, uid=?, gid=?, mtime_ns=?, ctime_ns=? WHERE ino=?")
                            .bind(row.mode)
                            .bind(row.uid)
                            .bind(row.gid)
                            .bind(row.mtime_ns)
                            .bind(now)
                            .bind(inode->ino)
                            .run());
            if (!set.mode || row.parent == 0) return {};
            // A mode is part of history, so the folder may differ from its base now; its own times stay.
            Statement times = db.prepare("SELECT mtime_ns FROM inode WHERE ino=?");
            times.bind(row.parent);
            CORAL_TRY(bool there, times.step());
            return there ? impl_->touch_directory(db, row.parent, times.integer(0)) : Status();
        }));
        ++impl_->changes;
    }
    std::lock_guard lock(inode->mutex);
    inode->mode = row.mode;
    inode->uid = row.uid;
    inode->gid = row.gid;
    inode->mtime_ns = row.mtime_ns;
    inode->ctime_ns = now;
    if (set.atime_ns) inode->atime_ns = *set.atime_ns;
    return {};
}

std::string Worktree::link_target(const InodePtr& inode) const {
    std::lock_guard lock(inode->mutex);
    return inode->link;
}

Xattrs Worktree::xattrs(const InodePtr& inode) const {
    std::lock_guard lock(inode->mutex);
    return inode->xattrs;
}

Status Worktree::set_xattr(const InodePtr& inode, const std::string& name, const std::string& value, XattrMode mode) {
    std::lock_guard ops(impl_->ops_mutex);
    Xattrs xattrs = this->xattrs(inode);
    bool there = xattrs.count(name) != 0;
    if (mode == XattrMode::kCreate && there) return make_error(Errc::kExists, fmt::format("{}: exists already", name));
    if (mode == XattrMode::kReplace && !there)
        return make_error(Errc::kNoData, fmt::format("{}: no such attribute", name));
    xattrs[name] = value;
    return impl_->store_xattrs(inode, xattrs);
}

Status Worktree::remove_xattr(const InodePtr& inode, const std::string& name) {
    std::lock_guard ops(impl_->ops_mutex);
    Xattrs xattrs = this->xattrs(inode);
    if (xattrs.erase(name) == 0) return make_error(Errc::kNoData, fmt::format("{}: no such attribute", name));
    return impl_->store_xattrs(inode, xattrs);
}

Status Worktree::Impl::store_xattrs(const InodePtr& inode, const Xattrs& xattrs) {
    constexpr std::size_t kLimit = 64u << 10;  // Linux's own limit for a list and for a value
    Buffer encoded = xattrs.empty() ? Buffer{} : encode_xattrs(xattrs);
    if (encoded.size() > kLimit)
        return make_error(Errc::kNoSpace, "extended attributes are limited to 64 KiB per file");
    Ino parent;
    bool has_row;
    {
        std::lock_guard lock(inode->mutex);
        parent = inode->unlinked ? 0 : inode->parent;
        has_row = !inode->unlinked || inode->kept;
    }
    std::int64_t now = now_ns();
    if (has_row) {
        CORAL_CHECK(state.write([&](Database& db) -> Status {
            Statement st = db.prepare("UPDATE inode SET xattrs=?, ctime_ns=? WHERE ino=?");
            if (encoded.empty())
                st.bind_null();
            else
                st.bind(Bytes(encoded));
            CORAL_CHECK(st.bind(now).bind(inode->ino).run());
            if (parent == 0) return {};
            Statement times = db.prepare("SELECT mtime_ns FROM inode WHERE ino=?");
            times.bind(parent);
            CORAL_TRY(bool there, times.step());
            return there ? touch_directory(db, parent, times.integer(0)) : Status();
        }));
        ++changes;
    }
    std::lock_guard lock(inode->mutex);
    inode->xattrs = xattrs;
    inode->ctime_ns = now;
    return {};
}

std::optional<FileId> Worktree::content_id(const InodePtr& inode) const {
    std::lock_guard lock(inode->mutex);
    if (inode->staged && !inode->ingested) return std::nullopt;
    return inode->content;
}

std::optional<FileId> Worktree::stored_content(const InodePtr& inode) const {
    std::lock_guard lock(inode->mutex);
    return inode->staged ? std::nullopt : inode->content;
}

}  // namespace coral::repo
