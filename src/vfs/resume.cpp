// SPDX-License-Identifier: Apache-2.0
// Going on where another process of the same mount stopped: the kernel names nodes and handles that it gave out, and
// sends again what it did not answer.
#include <fcntl.h>

#include "coral/base/log.hpp"
#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {

Status MountedFilesystem::resume() {
    if (!options_.handover) return {};
    CORAL_TRY(Saved saved, options_.handover->load());
    resuming_ = options_.handover->workers() > 1;
    resume_nodes(saved);
    for (const auto& [id, file] : saved.files) {
        Status done = resume_file(file);
        // Its requests will be answered with EBADF. Somebody else has the branch, or its commit was collected.
        if (!done) log_warn("handle {} of node {} is lost: {}", id, file.node, done.error().message);
    }
    for (auto& [id, dir] : saved.directories) {
        auto node = node_of(dir.node);
        if (!node) continue;
        auto handle = std::make_shared<DirectoryHandle>();
        handle->id = id;
        handle->node = *node;
        handle->shown = std::move(dir.shown);
        nodes_.pin(*node);
        directories_.put(id, std::move(handle));
        unanswered_[dir.unique] = {id, true};
    }
    branches_.resumed();
    if (resuming_)
        log_info("going on with {} nodes, {} open files, {} listings", saved.nodes.size(), files_.size(),
                 saved.directories.size());
    return {};
}

void MountedFilesystem::resume_nodes(const Saved& saved) {
    for (const auto& [id, from] : saved.nodes) {
        auto node = std::make_shared<Node>(id, static_cast<NodeKind>(from.kind));
        node->parent = from.parent;
        node->key = from.key;
        node->area = static_cast<NodeKind>(from.area);
        node->text = from.text;
        node->time_ns = from.time_ns;
        node->space = from.space;
        node->commit = from.commit;
        node->entry = from.entry;
        nodes_.adopt(node);
    }
}

// A branch entry's number is its row's. What the kernel holds of its bytes may be older than what was written since.
NodePtr MountedFilesystem::rebuild_branch_entry(NodeId id) {
    if (id < kBranchEntryBase || id >= kHashedBase) return nullptr;
    repo::Ino ino = id - kBranchEntryBase;
    auto slot = branches_.slot_with(ino);
    if (!slot) return nullptr;
    auto node = std::make_shared<Node>(id, NodeKind::kBranchEntry);
    node->slot = slot;
    node->ino = ino;
    node->io.changed_outside();
    return nodes_.adopt(node);
}

Result<std::shared_ptr<FileHandle>> MountedFilesystem::reopened(const NodePtr& node, const SavedFile& file) {
    auto handle = std::make_shared<FileHandle>();
    handle->node = node;
    handle->flags = file.flags;
    handle->readable = (file.flags & O_ACCMODE) != O_WRONLY;
    handle->writable = (file.flags & O_ACCMODE) != O_RDONLY;
    if (node->kind != NodeKind::kBranchEntry) {
        CORAL_TRY(handle->record, record_of(node));
        handle->pin = repo_.pin(handle->record->id);
        return handle;
    }
    CORAL_TRY(BranchRef ref, branch_ref(node));
    handle->worktree = ref.worktree;
    handle->inode = ref.inode;
    if (!node->slot->enter(ref.worktree)) return make_error(Errc::kStale, "the branch has just been given away");
    auto opened = ref.worktree->open_file(ref.inode, handle->writable, false);
    if (opened && file.mode == IoMode::kPassthrough) {
        repo::Worktree::Lending lending{handle->writable, handle->writable && handle->readable, 0};
        auto lent = ref.worktree->lend(ref.inode, lending);
        handle->lent = lent && *lent;
        if (!handle->lent) log_warn("node {}: the file that the kernel uses is not there any more", node->id);
    }
    if (opened) return handle;
    node->slot->leave();
    return std::move(opened).error();
}

Status MountedFilesystem::resume_file(const SavedFile& file) {
    CORAL_TRY(NodePtr node, node_of(file.node));
    CORAL_TRY(auto handle, reopened(node, file));
    nodes_.pin(node);
    handle->saved = file;
    if (file.released) {  // its RELEASE comes again
        handle->left_backing = file.backing;
        files_.put(file.id, std::move(handle));
        return {};
    }
    {
        std::lock_guard lock(node->mutex);
        handle->ticket = node->io.resume(file.mode, handle->writable);
        if (file.mode == IoMode::kPassthrough) node->backing = file.backing;
        if (handle->inode && file.mode == IoMode::kPassthrough && !handle->lent) node->backing_is_lost = true;
    }
    handle->counted = file.mode == IoMode::kPassthrough;
    if (handle->counted) ++passthrough_handles_;
    files_.put(file.id, std::move(handle));
    unanswered_[file.unique] = {file.id, false};
    return {};
}

// An open that comes again: the handle that its first answer would have named was never seen by the kernel.
void MountedFilesystem::drop_unanswered() {
    const CurrentRequest& request = current_request();
    if (!request.again || !resuming_) return;
    std::pair<HandleId, bool> lost;
    {
        std::lock_guard lock(unanswered_mutex_);
        auto at = unanswered_.find(request.unique);
        if (at == unanswered_.end()) return;
        lost = at->second;
        unanswered_.erase(at);
    }
    lost.second ? release_directory(lost.first) : release(lost.first);
}

Handover::State MountedFilesystem::state_of(const BranchRef& dir, std::string_view name) const {
    auto found = dir.worktree->lookup(dir.inode, name);
    return {found ? dir.worktree->attributes(*found).ino : 0, 0};
}

}  // namespace coral::vfs
