// SPDX-License-Identifier: Apache-2.0
// rename(2) and renameat2(2) with NOREPLACE and EXCHANGE: one transaction, so a name is always old or new.
#include <fmt/format.h>

#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

Status move_row(Database& db, const Row& row, Ino parent, std::string_view name, const std::optional<AnyId>& previous) {
    Statement st = db.prepare("UPDATE inode SET parent=?, name=?, previous=coalesce(?, previous) WHERE ino=?");
    st.bind(parent).bind(as_bytes(name));
    if (previous)
        st.bind(*previous);
    else
        st.bind_null();
    return st.bind(row.ino).run();
}

void move_memory(const InodePtr& inode, Ino parent, std::string_view name, std::int64_t now) {
    std::lock_guard lock(inode->mutex);
    inode->parent = parent;
    inode->name = std::string(name);
    inode->ctime_ns = now;
}

}  // namespace

// Would `dir` be `ancestor` or lie below it?
Status Worktree::Impl::check_not_below(Ino dir, Ino ancestor) {
    return state.read([&](Database& db) -> Status {
        for (Ino at = dir; at != 0;) {
            if (at == ancestor) return make_error(Errc::kInvalid, "a directory cannot be moved into itself");
            Statement st = db.prepare("SELECT parent FROM inode WHERE ino=?");
            st.bind(at);
            CORAL_TRY(bool there, st.step());
            at = there ? st.unsigned_integer(0) : 0;
        }
        return {};
    });
}

Status Worktree::Impl::check_replace(const Row& from, const std::optional<Row>& to) {
    if (!to) return {};
    bool from_dir = from.type == EntryType::kDirectory, to_dir = to->type == EntryType::kDirectory;
    if (to_dir && !from_dir) return make_error(Errc::kIsDirectory, fmt::format("{}: is a directory", to->name));
    if (!to_dir && from_dir) return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", to->name));
    if (!to_dir) return {};
    CORAL_TRY(InodePtr inode, load_inode(to->ino));
    CORAL_CHECK(fill(inode));
    return state.read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT 1 FROM inode WHERE parent=? LIMIT 1");
        st.bind(to->ino);
        CORAL_TRY(bool any, st.step());
        if (any) return make_error(Errc::kNotEmpty, fmt::format("{}: directory not empty", to->name));
        return {};
    });
}

Result<InodePtr> Worktree::rename(const InodePtr& from_dir, std::string_view from, const InodePtr& to_dir,
                                  std::string_view to, RenameMode mode) {
    std::lock_guard ops(impl_->ops_mutex);
    if (to.size() > 255) return make_error(Errc::kNameTooLong, "name longer than 255 bytes");
    if (!valid_name(to)) return make_error(Errc::kInvalid, fmt::format("'{}' cannot be a name", to));
    CORAL_TRY(Row source, impl_->child_row(from_dir, from));
    std::optional<Row> target;
    if (auto there = impl_->child_row(to_dir, to))
        target = std::move(*there);
    else if (there.error().code != Errc::kNotFound)
        return std::move(there).error();
    CORAL_CHECK(impl_->fill(to_dir));
    if (mode == RenameMode::kNoReplace && target)
        return make_error(Errc::kExists, fmt::format("{}: exists already", to));
    if (mode == RenameMode::kExchange && !target)
        return make_error(Errc::kNotFound, fmt::format("{}: no such file", to));
    if (target && target->ino == source.ino) return InodePtr();
    if (source.type == EntryType::kDirectory) CORAL_CHECK(impl_->check_not_below(to_dir->ino, source.ino));
    bool exchange = mode == RenameMode::kExchange;
    if (exchange && target->type == EntryType::kDirectory)
        CORAL_CHECK(impl_->check_not_below(from_dir->ino, target->ino));
    if (!exchange) CORAL_CHECK(impl_->check_replace(source, target));

    CORAL_TRY(InodePtr moved, impl_->load_inode(source.ino));
    InodePtr other;
    if (target) {
        CORAL_TRY(other, impl_->load_inode(target->ino));
        if (!exchange) impl_->pin_contents(other);
    }
    // What is replaced stays known until the new bytes are safe: a power cut must not leave neither (design,
    // "Durability").
    std::optional<AnyId> previous;
    // While the target has a staging file, its `previous` is the content that is surely on the disk (see settle).
    if (target && !exchange && source.staging) {
        bool unsure = target->staging && target->previous;
        previous = unsure || !target->content ? target->previous : target->content;
    }
    std::int64_t now = now_ns();
    CORAL_CHECK(impl_->state.write([&](Database& db) -> Status {
        if (exchange)
            CORAL_CHECK(move_row(db, *target, 0, to, std::nullopt));  // out of the way of the unique name
        else if (target)
            CORAL_CHECK(impl_->delete_row(db, *target));
        CORAL_CHECK(move_row(db, source, to_dir->ino, to, previous));
        if (exchange) CORAL_CHECK(move_row(db, *target, from_dir->ino, from, std::nullopt));
        CORAL_CHECK(impl_->touch_directory(db, from_dir->ino, now));
        return impl_->touch_directory(db, to_dir->ino, now);
    }));
    ++impl_->changes;
    move_memory(moved, to_dir->ino, to, now);
    if (exchange)
        move_memory(other, from_dir->ino, from, now);
    else if (other)
        impl_->forget_removed(other);
    impl_->touch_memory(from_dir, now);
    impl_->touch_memory(to_dir, now);
    return exchange ? InodePtr() : other;
}

}  // namespace coral::repo
