// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/stat.h>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

// What cp and du divide by: less than the size would make cp write holes (docs/semantics.md).
std::uint64_t blocks_of(std::uint64_t size) {
    return size / 512 + (size % 512 != 0);
}

}  // namespace

Attr MountedFilesystem::directory_attr(NodeId id, std::int64_t time_ns) const {
    Attr attr;
    attr.node = id;
    attr.type = FileType::kDirectory;
    attr.mode = 0755;
    attr.uid = uid_;
    attr.gid = gid_;
    attr.nlink = 2;
    attr.atime_ns = attr.mtime_ns = attr.ctime_ns = time_ns;
    return attr;
}

Attr MountedFilesystem::attr_of(const repo::Attributes& a) const {
    Attr attr;
    attr.node = branch_entry_id(a.ino);
    attr.type = a.type;
    attr.mode = a.mode;
    attr.uid = a.uid;
    attr.gid = a.gid;
    attr.nlink = a.type == FileType::kDirectory && a.nlink != 0 ? 2 : a.nlink;
    attr.size = a.type == FileType::kDirectory ? 0 : a.size;
    attr.blocks = blocks_of(attr.size);
    attr.atime_ns = a.atime_ns;
    attr.mtime_ns = a.mtime_ns;
    attr.ctime_ns = a.ctime_ns;
    // Whoever writes a new file writes it to the disk himself.
    if (backing_files_.load() != nullptr) attr.preferred_io = kDiskWrite;
    return attr;
}

// What the kernel writes without us has attributes that change without us. And it does not forget the mode of what it
// lets us write: set-user-id would go on working after the write that took it away.
double MountedFilesystem::attr_timeout(const repo::Attributes& attributes) {
    bool set_ids = attributes.type == FileType::kRegular && (attributes.mode & (S_ISUID | S_ISGID));
    return attributes.lent || set_ids ? 0 : kForEver;
}

double MountedFilesystem::attr_timeout(const Node& node) {
    switch (node.kind) {
        case NodeKind::kTreeDirectory:
        case NodeKind::kTreeFile:
        case NodeKind::kTreeLink:
            return kForEver;
        case NodeKind::kBranches:
        case NodeKind::kTags:
        case NodeKind::kCommits:
        case NodeKind::kAt:
            return kForEver;
        // Soon anew, so that a stat of a dead mount says so.
        case NodeKind::kMountRoot:
            return kMoment;
        default:
            return 0;
    }
}

// The name was not asked for, so it keeps its timeout.
Result<Entry> MountedFilesystem::entry_of(const NodePtr& node) {
    if (node->kind != NodeKind::kBranchEntry) {
        CORAL_TRY(Attr attr, attr_of(node));
        return Entry{attr, 0, attr_timeout(*node)};
    }
    CORAL_TRY(BranchRef ref, branch_ref(node));
    repo::Attributes a = ref.worktree->attributes(ref.inode);
    return Entry{attr_of(a), 0, ref.inode == ref.worktree->root() ? kMoment : attr_timeout(a)};
}

Result<Attr> MountedFilesystem::attr_of(const NodePtr& node) {
    switch (node->kind) {
        case NodeKind::kTreeDirectory:
        case NodeKind::kTreeFile:
        case NodeKind::kTreeLink:
            return tree_attr(node->id, node->entry, node->time_ns);
        case NodeKind::kLink: {
            Attr attr = directory_attr(node->id, node->time_ns);
            attr.type = FileType::kSymlink;
            attr.mode = 0777;
            attr.nlink = 1;
            attr.size = node->text.size();
            attr.blocks = blocks_of(attr.size);
            return attr;
        }
        case NodeKind::kForeignBranch: {
            CORAL_TRY(TreePlace place, tree_place(*node));
            return directory_attr(node->id, place.time_ns);
        }
        default:
            return directory_attr(node->id, started_ns_);
    }
}

Result<Entry> MountedFilesystem::attributes(NodeId id, std::optional<HandleId> handle) {
    CORAL_CHECK(check_up());
    if (handle) {
        // An unlinked file is known by its handle even when the kernel has forgotten the name's node.
        if (auto open = files_.find(*handle); open && (*open)->inode) {
            repo::Attributes a = (*open)->worktree->attributes((*open)->inode);
            return Entry{attr_of(a), 0, attr_timeout(a)};
        }
    }
    CORAL_TRY(NodePtr node, node_of(id));
    return entry_of(node);
}

Result<Entry> MountedFilesystem::set_attributes(NodeId id, const repo::SetAttributes& set,
                                                std::optional<HandleId> handle) {
    CORAL_CHECK(check_up());
    std::shared_ptr<FileHandle> open;
    if (handle) {
        if (auto found = files_.find(*handle); found && (*found)->inode) open = *found;
    }
    BranchRef ref;
    if (open) {
        ref = BranchRef{open->node, open->worktree, open->inode, 0};
    } else {
        CORAL_TRY(ref, changeable(id));
    }
    CORAL_CHECK(ref.worktree->set_attributes(ref.inode, set));
    if (set.size) {
        std::lock_guard lock(ref.node->mutex);
        ref.node->copied_from.reset();
    }
    repo::Attributes a = ref.worktree->attributes(ref.inode);
    return Entry{attr_of(a), 0, ref.inode == ref.worktree->root() ? kMoment : attr_timeout(a)};
}

Result<Entry> MountedFilesystem::drop_set_ids(NodeId id, const Caller& caller) {
    CORAL_TRY(Entry now, attributes(id, std::nullopt));
    bool of_group = caller.uid == 0 || caller.gid == now.attr.gid;  // other groups of the caller are not told to us
    std::uint32_t drop = now.attr.mode & ((now.attr.mode & 010u) || !of_group ? 06000u : 04000u);
    if (now.attr.type != FileType::kRegular || drop == 0) return now;
    repo::SetAttributes set;
    set.mode = now.attr.mode & ~drop;
    return set_attributes(id, set, std::nullopt);
}

Result<std::string> MountedFilesystem::read_link(NodeId id) {
    CORAL_TRY(NodePtr node, node_of(id));
    if (node->kind == NodeKind::kLink) return node->text;
    if (node->kind == NodeKind::kTreeLink) return node->entry.link;
    if (node->kind == NodeKind::kBranchEntry) {
        CORAL_TRY(BranchRef ref, branch_ref(node));
        if (ref.worktree->attributes(ref.inode).type == FileType::kSymlink) return ref.worktree->link_target(ref.inode);
    }
    return make_error(Errc::kInvalid, "not a symlink");
}

}  // namespace coral::vfs
