// SPDX-License-Identifier: Apache-2.0
// Extended attributes: the user's own in user.*, and user.coral.*, which are answers rather than attributes. The latter
// are not listed: whoever copies listed attributes (rsync -X, cp --preserve=xattr) would fail to set them.
#include <fmt/format.h>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

constexpr std::string_view kOurs = "user.coral.";

Error no_attribute(std::string_view name) {
    return make_error(Errc::kNoData, fmt::format("{}: no such attribute", name));
}

// What setting and removing refuse whatever the file is.
Status check_namespace(std::string_view name) {
    if (name.starts_with(kOurs)) return make_error(Errc::kPermission, fmt::format("{}: cannot be set", name));
    if (name.starts_with("trusted.")) return make_error(Errc::kPermission, fmt::format("{}: not kept here", name));
    if (!name.starts_with("user.") || name.size() == 5) {
        return make_error(Errc::kUnsupported, fmt::format("{}: only user.* is kept", name));
    }
    if (name.size() > 255) return make_error(Errc::kRange, "attribute name longer than 255 bytes");
    return {};
}

std::string io_xattr(const Node& node) {
    std::lock_guard lock(node.mutex);
    return std::string(to_string(node.io.state()));
}

}  // namespace

Result<std::string> MountedFilesystem::get_xattr(NodeId id, const std::string& name) {
    CORAL_TRY(NodePtr node, node_of(id));
    if (name.starts_with(kOurs)) return coral_xattr(node, std::string_view(name).substr(kOurs.size()));
    // "Not here at all" rather than "not on this file": `ls -l` asks for security.selinux once and not for every file.
    if (name.starts_with("system.") || name.starts_with("security."))
        return make_error(Errc::kUnsupported, fmt::format("{}: not supported", name));
    repo::Xattrs all;
    if (node->kind == NodeKind::kBranchEntry) {
        CORAL_TRY(BranchRef ref, branch_ref(node));
        all = ref.worktree->xattrs(ref.inode);
    } else if (!node->entry.xattrs.is_zero()) {
        CORAL_TRY(all, repo_.xattrs(node->entry.xattrs));
    }
    auto at = all.find(name);
    if (at == all.end()) return no_attribute(name);
    return at->second;
}

Result<std::vector<std::string>> MountedFilesystem::list_xattrs(NodeId id) {
    CORAL_TRY(NodePtr node, node_of(id));
    repo::Xattrs all;
    if (node->kind == NodeKind::kBranchEntry) {
        CORAL_TRY(BranchRef ref, branch_ref(node));
        all = ref.worktree->xattrs(ref.inode);
    } else if (!node->entry.xattrs.is_zero()) {
        CORAL_TRY(all, repo_.xattrs(node->entry.xattrs));
    }
    std::vector<std::string> names;
    names.reserve(all.size());
    for (const auto& [name, value] : all) names.push_back(name);
    return names;
}

Status MountedFilesystem::set_xattr(NodeId id, const std::string& name, const std::string& value,
                                    repo::Worktree::XattrMode mode) {
    CORAL_TRY(BranchRef ref, changeable(id));
    CORAL_CHECK(check_namespace(name));
    return once(
        [&] {
            return State{ref.worktree->xattrs(ref.inode).contains(name), 0};
        },
        [&] { return ref.worktree->set_xattr(ref.inode, name, value, mode); }, [] { return Status(); });
}

Status MountedFilesystem::remove_xattr(NodeId id, const std::string& name) {
    CORAL_TRY(BranchRef ref, changeable(id));
    CORAL_CHECK(check_namespace(name));
    return once(
        [&] {
            return State{ref.worktree->xattrs(ref.inode).contains(name), 0};
        },
        [&] { return ref.worktree->remove_xattr(ref.inode, name); }, [] { return Status(); });
}

// ---- user.coral.*; `name` is what comes behind

Result<std::string> MountedFilesystem::coral_xattr(const NodePtr& node, std::string_view name) {
    if (node->kind == NodeKind::kBranchEntry) {
        CORAL_TRY(BranchRef ref, branch_ref(node));
        auto value = coral_xattr_branch(ref, name);
        if (value || value.error().code != Errc::kNoData) return value;
        if (ref.worktree->attributes(ref.inode).type != FileType::kDirectory) return value;
    } else if (!node->is_directory()) {
        return coral_xattr_tree(node, name);
    } else if (node->kind == NodeKind::kTreeDirectory || node->kind == NodeKind::kForeignBranch) {
        auto value = coral_xattr_tree(node, name);
        if (value || value.error().code != Errc::kNoData) return value;
    }
    // How the command line finds its way from any directory of the mount.
    if (name == "repository") return repo_.dir();
    if (name == "socket") {
        std::shared_lock lock(notifier_mutex_);
        if (!socket_path_.empty()) return socket_path_;
    }
    return no_attribute(name);
}

Result<std::string> MountedFilesystem::coral_xattr_branch(const BranchRef& ref, std::string_view name) {
    if (name == "branch") return ref.worktree->branch();
    if (name == "path") return ref.worktree->path_of(ref.inode);
    repo::Attributes a = ref.worktree->attributes(ref.inode);
    if (name == "commit" && ref.inode == ref.worktree->root()) {
        if (auto base = ref.worktree->base_commit()) return base->hex();
    }
    if (a.type != FileType::kRegular) return no_attribute(name);
    if (name == "size") return std::to_string(a.size);
    if (name == "incomplete" && a.incomplete) return std::string("1");
    if (name == "io") return io_xattr(*ref.node);
    auto content = ref.worktree->content_id(ref.inode);
    if (!content) return no_attribute(name);
    if (name == "sha256" || name == "digest") return content->hex();
    if (name == "stored") {
        CORAL_TRY(auto record, repo_.store().file(*content));
        CORAL_TRY(std::uint64_t stored, repo_.store().stored_bytes_of(*record));
        return std::to_string(stored);
    }
    return no_attribute(name);
}

Result<std::string> MountedFilesystem::coral_xattr_tree(const NodePtr& node, std::string_view name) {
    if (node->kind == NodeKind::kTreeFile) {
        if (name == "io") return io_xattr(*node);
        if (name == "sha256" || name == "digest") return node->entry.content.hex();
        if (name == "size") return std::to_string(node->entry.size);
        if (name == "stored") {
            CORAL_TRY(auto record, record_of(node));
            CORAL_TRY(std::uint64_t stored, repo_.store().stored_bytes_of(*record));
            return std::to_string(stored);
        }
    }
    if (node->is_directory()) {
        CORAL_TRY(TreePlace place, tree_place(*node));
        if (name == "commit" && !place.commit.is_zero()) return place.commit.hex();
        if (name == "branch" && place.space.starts_with("branch ")) return place.space.substr(7);
        if (name == "path") return place.path;
    }
    return no_attribute(name);
}

}  // namespace coral::vfs
