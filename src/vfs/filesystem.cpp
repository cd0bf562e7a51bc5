// SPDX-License-Identifier: Apache-2.0
// Beginning and end, the way from ids to nodes, notifications, and what control asks for.
#include "vfs/filesystem_impl.hpp"

#include <fmt/format.h>

#include "coral/base/log.hpp"

namespace coral::vfs {

Error read_only_error(std::string_view what) {
    return make_error(Errc::kReadOnly, fmt::format("{}: read-only; only files in branches/ can be changed", what));
}

Status check_name_length(std::string_view name) {
    if (name.size() > 255) return make_error(Errc::kNameTooLong, "name longer than 255 bytes");
    return {};
}

Result<std::unique_ptr<Filesystem>> Filesystem::open(repo::Repository& repo, const Options& options) {
    auto fs = std::make_unique<MountedFilesystem>(repo, options);
    CORAL_CHECK(fs->start());
    return std::unique_ptr<Filesystem>(std::move(fs));
}

MountedFilesystem::MountedFilesystem(repo::Repository& repo, const Options& options)
    : repo_(repo),
      options_(options),
      started_ns_(now_ns()),
      pool_("coral-vfs", options.threads ? options.threads : hardware_threads()),
      nodes_(options.handover),
      files_(options.handover),
      directories_(options.handover),
      backlog_(std::make_shared<repo::Backlog>(repo.os(), repo.dir(), options.backlog)),
      plain_(repo, options.cache_size, most_plain_copies()),
      branches_(
          repo, pool_, !options.read_only && !repo.read_only(), {hot_, backlog_},
          [this](repo::Ino parent, const std::string& name, repo::Ino replaced) {
              on_outside_change(parent, name, replaced);
          },
          options.locks) {}

MountedFilesystem::~MountedFilesystem() {
    if (!down_) (void)shut_down();
}

Status MountedFilesystem::start() {
    hot_->limit = options_.hot_size;
    // The owner of /proc/self is the process's effective user and group.
    if (auto self = real_os().stat("/proc/self")) {
        uid_ = self->uid;
        gid_ = self->gid;
    }
    if (!repo_.read_only()) warmer_.submit([this] { plain_.remove_left_over(); });
    CORAL_CHECK(branches_.refresh());
    return resume();
}

void MountedFilesystem::set_notifier(Notifier* notifier) {
    {
        std::unique_lock lock(notifier_mutex_);
        notifier_ = notifier;
    }
    if (!notifier || !resuming_ || !options_.handover->outside_change_was_cut()) return;
    for (const WorktreePtr& worktree : branches_.all_owned()) {
        if (Status done = worktree->announce_all(); !done) log_error("{}", done.error().message);
        forget_below(worktree->branch());
    }
}

// Names that are gone have no row that could tell of them: with the branch's own the kernel forgets all below it.
void MountedFilesystem::forget_below(const std::string& branch) {
    auto branches = lookup(kRoot, "branches");
    if (!branches) return;
    notify_entry(branches->attr.node, branch.substr(0, branch.find('/')));
    forget(branches->attr.node, 1);
}

void MountedFilesystem::set_socket_path(const std::string& path) {
    std::unique_lock lock(notifier_mutex_);
    socket_path_ = path;
}

Status MountedFilesystem::shut_down() {
    if (down_.exchange(true)) return {};
    set_notifier(nullptr);
    warmer_.stop();
    return branches_.release_all();
}

Status MountedFilesystem::check_up() const {
    if (down_) return make_error(Errc::kIo, "the filesystem is shutting down");
    return {};
}

Result<NodePtr> MountedFilesystem::node_of(NodeId id) {
    CORAL_CHECK(check_up());
    NodePtr node = nodes_.find(id);
    if (!node && resuming_) node = rebuild_branch_entry(id);
    if (!node) return make_error(Errc::kStale, fmt::format("node {} is not known", id));
    return node;
}

Result<MountedFilesystem::BranchRef> MountedFilesystem::branch_ref(const NodePtr& node) {
    TreeSlot::View view = node->slot->view();
    // ESTALE makes the kernel look the path up again, and find the branch as it is shown now.
    if (!view.worktree) return make_error(Errc::kStale, "another process owns this branch now");
    {
        std::lock_guard lock(node->mutex);
        if (node->inode && node->generation == view.generation)
            return BranchRef{node, view.worktree, node->inode, view.generation};
    }
    auto inode = view.worktree->get(node->ino);
    if (!inode) {
        Error error = std::move(inode).error();
        if (error.code == Errc::kNotFound) error.code = Errc::kStale;
        return error;
    }
    std::lock_guard lock(node->mutex);
    if (node->generation != 0 && node->generation != view.generation) node->io.changed_outside();
    node->inode = *inode;
    node->generation = view.generation;
    return BranchRef{node, view.worktree, node->inode, view.generation};
}

Result<MountedFilesystem::BranchRef> MountedFilesystem::changeable(NodeId id) {
    CORAL_TRY(NodePtr node, node_of(id));
    if (node->kind != NodeKind::kBranchEntry) return read_only_error(node->text);
    return branch_ref(node);
}

void MountedFilesystem::notify_entry(NodeId parent, const std::string& name) {
    if (!resuming_ && !nodes_.find(parent)) return;  // the kernel cannot know the name either
    std::shared_lock lock(notifier_mutex_);
    if (notifier_) notifier_->entry_changed(parent, name);
}

void MountedFilesystem::notify_attributes(NodeId node) {
    if (!resuming_ && !nodes_.find(node)) return;
    std::shared_lock lock(notifier_mutex_);
    if (notifier_) notifier_->attributes_changed(node);
}

void MountedFilesystem::notify_contents(NodeId node, std::uint64_t offset, std::uint64_t length) {
    std::shared_lock lock(notifier_mutex_);
    if (notifier_) notifier_->contents_changed(node, offset, length);
}

// Without a name only the attributes of `parent` have changed.
void MountedFilesystem::on_outside_change(repo::Ino parent, const std::string& name, repo::Ino replaced) {
    if (!name.empty()) notify_entry(branch_entry_id(parent), name);
    notify_attributes(branch_entry_id(parent));
    if (replaced != 0) notify_attributes(branch_entry_id(replaced));
}

Result<WorktreePtr> MountedFilesystem::worktree(const std::string& branch) {
    CORAL_CHECK(check_up());
    CORAL_TRY(Branches::Branch found, branches_.get(branch));
    if (!found.worktree) {
        return make_error(
            Errc::kBusy,
            fmt::format("branch {}: this mount does not own it (read-only, or another process does)", branch));
    }
    return found.worktree;
}

Status MountedFilesystem::branches_changed() {
    CORAL_CHECK(check_up());
    return branches_.refresh();
}

Status MountedFilesystem::release_branch(const std::string& branch) {
    CORAL_CHECK(check_up());
    CORAL_CHECK(branches_.release(branch));
    notify_entry(kBranchesId, branch);
    return {};
}

Usage MountedFilesystem::usage() const {
    return {plain_.bytes(), plain_.limit(), hot_->used, hot_->limit, files_.size(), passthrough_handles_};
}

Result<SpaceInfo> MountedFilesystem::space(NodeId) {
    CORAL_CHECK(check_up());
    CORAL_TRY(SpaceStat disk, repo_.os().space(repo_.dir()));
    return SpaceInfo{disk.block_size, disk.blocks, disk.blocks_free, disk.blocks_available, disk.files,
                     disk.files_free, 255};
}

}  // namespace coral::vfs
