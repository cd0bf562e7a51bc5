// SPDX-License-Identifier: Apache-2.0
// Changes of names: in a worktree, and of branches themselves.
#include <fmt/format.h>

#include "coral/base/log.hpp"
#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {

Result<Entry> MountedFilesystem::make_directory(NodeId parent_id, std::string_view name, std::uint32_t mode,
                                                const Caller& caller) {
    CORAL_CHECK(check_name_length(name));
    CORAL_TRY(NodePtr parent, node_of(parent_id));
    if (parent->kind == NodeKind::kBranches) return make_branch(parent_id, std::string(name));
    if (parent->kind == NodeKind::kPrefix && parent->area == NodeKind::kBranches) {
        return make_branch(parent_id, parent->text + std::string(name));
    }
    CORAL_TRY(BranchRef dir, changeable(parent_id));
    auto made = once(
        [&] { return state_of(dir, name); },
        [&] { return dir.worktree->make_directory(dir.inode, name, mode & ~caller.umask, caller.uid, caller.gid); },
        [&] { return dir.worktree->lookup(dir.inode, name); });
    CORAL_TRY(repo::InodePtr inode, std::move(made));
    return branch_entry(dir.node->slot, dir.worktree, dir.generation, inode, parent_id);
}

Result<Entry> MountedFilesystem::make_symlink(NodeId parent_id, std::string_view name, std::string_view target,
                                              const Caller& caller) {
    CORAL_CHECK(check_name_length(name));
    CORAL_TRY(BranchRef dir, changeable(parent_id));
    auto made = once([&] { return state_of(dir, name); },
                     [&] { return dir.worktree->make_symlink(dir.inode, name, target, caller.uid, caller.gid); },
                     [&] { return dir.worktree->lookup(dir.inode, name); });
    CORAL_TRY(repo::InodePtr inode, std::move(made));
    return branch_entry(dir.node->slot, dir.worktree, dir.generation, inode, parent_id);
}

// The kernel may name a removed file still: its node keeps the inode, which nobody could find again by number.
void MountedFilesystem::keep_removed(repo::InodePtr removed, const WorktreePtr& worktree) {
    if (!removed) return;
    NodePtr node = nodes_.find(branch_entry_id(worktree->attributes(removed).ino));
    if (!node || !node->slot) return;
    TreeSlot::View view = node->slot->view();
    if (view.worktree != worktree) return;
    std::lock_guard lock(node->mutex);
    node->inode = std::move(removed);
    node->generation = view.generation;
}

Status MountedFilesystem::check_writable(NodeId directory) {
    CORAL_CHECK(changeable(directory));
    return {};
}

Status MountedFilesystem::unlink(NodeId parent, std::string_view name) {
    CORAL_TRY(BranchRef dir, changeable(parent));
    auto done = once([&] { return state_of(dir, name); }, [&] { return dir.worktree->unlink(dir.inode, name); },
                     [] { return Result<repo::InodePtr>(repo::InodePtr()); });
    CORAL_TRY(repo::InodePtr removed, std::move(done));
    keep_removed(std::move(removed), dir.worktree);
    return {};
}

Status MountedFilesystem::remove_directory(NodeId parent_id, std::string_view name) {
    CORAL_TRY(NodePtr parent, node_of(parent_id));
    if (parent->kind == NodeKind::kBranches) return remove_branch(std::string(name));
    if (parent->kind == NodeKind::kPrefix && parent->area == NodeKind::kBranches) {
        return remove_branch(parent->text + std::string(name));
    }
    CORAL_TRY(BranchRef dir, changeable(parent_id));
    auto done =
        once([&] { return state_of(dir, name); }, [&] { return dir.worktree->remove_directory(dir.inode, name); },
             [] { return Result<repo::InodePtr>(repo::InodePtr()); });
    CORAL_TRY(repo::InodePtr removed, std::move(done));
    keep_removed(std::move(removed), dir.worktree);
    return {};
}

Status MountedFilesystem::rename(NodeId from_id, std::string_view from_name, NodeId to_id, std::string_view to_name,
                                 repo::RenameMode mode) {
    CORAL_CHECK(check_name_length(to_name));
    CORAL_TRY(BranchRef from, changeable(from_id));
    CORAL_TRY(BranchRef to, changeable(to_id));
    if (from.worktree != to.worktree) {
        return make_error(Errc::kCrossDevice, fmt::format("{}: cannot be moved to another branch; copy it", from_name));
    }
    auto done = once(
        [&] {
            return State{state_of(from, from_name)[0], state_of(to, to_name)[0]};
        },
        [&] { return from.worktree->rename(from.inode, from_name, to.inode, to_name, mode); },
        [] { return Result<repo::InodePtr>(repo::InodePtr()); });
    CORAL_TRY(repo::InodePtr replaced, std::move(done));
    keep_removed(std::move(replaced), from.worktree);
    return {};
}

// ---- branches

Result<Entry> MountedFilesystem::make_branch(NodeId parent_id, const std::string& name) {
    if (options_.read_only || repo_.read_only()) return read_only_error(name);
    if (!repo::valid_branch_name(name))
        return make_error(Errc::kInvalid, fmt::format("'{}': not a valid branch name", name));
    CORAL_TRY(bool folder, is_prefix(NodeKind::kBranches, name + "/"));
    if (folder) return make_error(Errc::kExists, fmt::format("{}: branches lie below this name", name));
    CORAL_TRY(repo::Head head, repo_.head());
    CORAL_CHECK(once(
        [&] {
            return State{repo_.branch(name).ok(), 0};
        },
        [&] { return repo_.create_branch(name, head.commit, "branch: made by mkdir"); }, [] { return Status(); }));
    CORAL_TRY(NodePtr parent, node_of(parent_id));
    return lookup_branch(*parent, name);
}

// Would `commit` still be known by a name without the branch?
Result<bool> MountedFilesystem::reachable_elsewhere(const std::string& branch, const CommitId& commit) {
    std::vector<CommitId> tips;
    CORAL_TRY(std::vector<repo::Ref> refs, repo_.refs(""));
    for (const repo::Ref& ref : refs) {
        if (ref.name == "heads/" + branch) continue;
        CommitId tip = CommitId::from(ref.target);
        if (ref.annotated) {
            CORAL_TRY(auto tag, repo_.tag(TagId::from(ref.target)));
            tip = tag->target;
        }
        if (tip == commit) return true;
        tips.push_back(tip);
    }
    CORAL_TRY(repo::Head head, repo_.head());
    if (head.branch.empty() && head.commit) tips.push_back(*head.commit);
    bool found = false;
    CORAL_CHECK(repo_.walk(tips, [&](const CommitId& id, const repo::Commit&) -> Result<bool> {
        found = id == commit;
        return !found;
    }));
    return found;
}

// rmdir of a branch: only where nothing at all is lost by it. `coral branch -d` asks the same, -D does not.
Status MountedFilesystem::remove_branch(const std::string& name) {
    return once(
        [&] {
            return State{repo_.branch(name).ok(), 0};
        },
        [&] { return remove_branch_once(name); }, [] { return Status(); });
}

Status MountedFilesystem::remove_branch_once(const std::string& name) {
    if (options_.read_only || repo_.read_only()) return read_only_error(name);
    auto found = branches_.get(name);
    if (!found) {
        if (found.error().code != Errc::kNotFound) return std::move(found).error();
        CORAL_TRY(bool folder, is_prefix(NodeKind::kBranches, name + "/"));
        if (folder) return make_error(Errc::kNotEmpty, fmt::format("{}: branches lie below it", name));
        return std::move(found).error();
    }
    CORAL_TRY(repo::Head head, repo_.head());
    if (head.branch == name) return make_error(Errc::kBusy, fmt::format("{}: HEAD is on this branch", name));
    if (!found->worktree) return make_error(Errc::kBusy, fmt::format("{}: another process owns this branch", name));
    CORAL_TRY(repo::StatusResult status, found->worktree->status());
    if (!status.changes.empty()) {
        return make_error(Errc::kNotEmpty, fmt::format("{}: has changes that are in no commit", name));
    }
    if (found->row.commit) {
        CORAL_TRY(bool kept, reachable_elsewhere(name, *found->row.commit));
        if (!kept)
            return make_error(Errc::kNotEmpty, fmt::format("{}: its commits are on no other branch or tag", name));
    }
    found->worktree.reset();
    CORAL_CHECK(branches_.release(name));
    Status removed = repo_.delete_branch(name, "branch: removed by rmdir");
    if (auto refreshed = branches_.refresh(); !refreshed) log_warn("{}", refreshed.error().message);
    return removed;
}

}  // namespace coral::vfs
