// SPDX-License-Identifier: Apache-2.0
// Names: what lies under each part of the mount.
#include <fmt/format.h>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

Error no_entry(std::string_view name) {
    return make_error(Errc::kNotFound, fmt::format("{}: no such file or directory", name));
}

bool is_refusal(const Error& error) {
    return error.code == Errc::kNotFound || error.code == Errc::kInvalid;
}

}  // namespace

std::string up_from(std::string_view name) {
    std::string up = "../";
    for (char c : name) {
        if (c == '/') up += "../";
    }
    return up;
}

Component component_after(const std::string& name, std::size_t prefix_length) {
    std::size_t slash = name.find('/', prefix_length);
    return {name.substr(prefix_length, slash == std::string::npos ? slash : slash - prefix_length),
            slash != std::string::npos};
}

Result<Entry> MountedFilesystem::lookup(NodeId parent_id, std::string_view name) {
    CORAL_CHECK(check_name_length(name));
    if (name == "." || name == "..") return lookup_number(parent_id, name == "..");
    CORAL_TRY(NodePtr parent, node_of(parent_id));
    switch (parent->kind) {
        case NodeKind::kMountRoot:
            return lookup_root(name);
        case NodeKind::kBranches:
            return lookup_branch(*parent, std::string(name));
        case NodeKind::kTags:
            return lookup_tag(*parent, std::string(name));
        case NodeKind::kAt:
            return lookup_revision(*parent, std::string(name));
        case NodeKind::kCommits:
            return lookup_commit(name);
        case NodeKind::kPrefix: {
            std::string full = parent->text + std::string(name);
            if (parent->area == NodeKind::kBranches) return lookup_branch(*parent, full);
            if (parent->area == NodeKind::kTags) return lookup_tag(*parent, full);
            return lookup_revision(*parent, full);
        }
        case NodeKind::kForeignBranch:
        case NodeKind::kTreeDirectory:
            return lookup_in_tree(*parent, name);
        case NodeKind::kBranchEntry:
            return lookup_in_branch(parent, name);
        case NodeKind::kLink:
        case NodeKind::kTreeFile:
        case NodeKind::kTreeLink:
            break;
    }
    return make_error(Errc::kNotDirectory, fmt::format("{}: its parent is not a directory", name));
}

void MountedFilesystem::forget(NodeId node, std::uint64_t count) {
    nodes_.forget(node, count);
}

Result<Entry> MountedFilesystem::lookup_root(std::string_view name) {
    static constexpr std::pair<std::string_view, NodeId> kParts[] = {
        {"branches", kBranchesId}, {"tags", kTagsId}, {"commits", kCommitsId}, {"at", kAtId}};
    for (auto [part, id] : kParts) {
        // Pinned, so the reference that the kernel counts needs no counting here.
        if (name == part) return Entry{directory_attr(id, started_ns_), kForEver, kForEver};
    }
    if (name != "HEAD") return no_entry(name);
    CORAL_TRY(repo::Head head, repo_.head());
    std::string target =
        head.branch.empty() ? "commits/" + head.commit.value_or(CommitId{}).hex() : "branches/" + head.branch;
    return link_entry(NodeKind::kMountRoot, "HEAD", target, head.commit.value_or(CommitId{}), kRoot);
}

// ---- made-up symlinks and folders. None of them is cached: another process may move a ref at any time.

Entry MountedFilesystem::link_entry(NodeKind area, const std::string& name, const std::string& target,
                                    const CommitId& commit, NodeId parent) {
    std::int64_t time = started_ns_;
    if (!commit.is_zero()) {
        if (auto object = repo_.commit(commit)) time = (*object)->committer.time_ns;
    }
    // The target is part of the key: a ref that moves is another node, so no cached text of the old one can show.
    std::string key = fmt::format("link {} {}\n{}", static_cast<int>(area), name, target);
    NodePtr node = nodes_.acquire(key, [&](NodeId id) {
        auto made = std::make_shared<Node>(id, NodeKind::kLink);
        made->text = target;
        made->time_ns = time;
        made->parent = parent;
        return made;
    });
    Attr attr = directory_attr(node->id, time);
    attr.type = FileType::kSymlink;
    attr.mode = 0777;
    attr.nlink = 1;
    attr.size = target.size();
    attr.blocks = (attr.size + 511) / 512;
    return Entry{attr, 0, 0};
}

Entry MountedFilesystem::prefix_entry(NodeKind area, const std::string& prefix, NodeId parent) {
    NodePtr node = nodes_.acquire(fmt::format("prefix {} {}", static_cast<int>(area), prefix), [&](NodeId id) {
        auto made = std::make_shared<Node>(id, NodeKind::kPrefix);
        made->area = area;
        made->text = prefix;
        made->parent = parent;
        return made;
    });
    return Entry{directory_attr(node->id, started_ns_), 0, 0};
}

// Is some name below "prefix", which ends in '/'? In at/ branches and tags both count.
Result<bool> MountedFilesystem::is_prefix(NodeKind area, const std::string& prefix) {
    if (area != NodeKind::kTags) {
        CORAL_TRY(std::vector<repo::Branch> rows, repo_.branches());  // unborn ones have no ref
        for (const repo::Branch& row : rows) {
            if (row.name.starts_with(prefix)) return true;
        }
        if (area == NodeKind::kBranches) return false;
    }
    CORAL_TRY(std::vector<repo::Ref> tags, repo_.refs("tags/" + prefix));
    return !tags.empty();
}

Result<Entry> MountedFilesystem::lookup_branch(const Node& parent, const std::string& name) {
    auto found = branches_.get(name);
    if (!found) {
        if (!is_refusal(found.error())) return std::move(found).error();
        CORAL_TRY(bool prefix, is_prefix(NodeKind::kBranches, name + "/"));
        if (!prefix) return no_entry(name);
        return prefix_entry(NodeKind::kBranches, name + "/", parent.id);
    }
    if (found->worktree) {
        TreeSlot::View view = found->slot->view();
        Entry entry = branch_entry(found->slot, found->worktree, view.worktree == found->worktree ? view.generation : 0,
                                   found->worktree->root(), parent.id);
        entry.entry_timeout = entry.attr_timeout = kMoment;
        return entry;
    }
    std::int64_t time = started_ns_;
    if (found->row.commit) {
        CORAL_TRY(auto commit, repo_.commit(*found->row.commit));
        time = commit->committer.time_ns;
    }
    NodePtr node = nodes_.acquire("foreign " + name, [&](NodeId id) {
        auto made = std::make_shared<Node>(id, NodeKind::kForeignBranch);
        made->text = name;
        made->parent = parent.id;
        return made;
    });
    return Entry{directory_attr(node->id, time), 0, 0};
}

Result<Entry> MountedFilesystem::lookup_tag(const Node& parent, const std::string& name) {
    CORAL_TRY(std::optional<repo::Ref> ref, repo_.ref("tags/" + name));
    if (!ref) {
        CORAL_TRY(bool prefix, is_prefix(NodeKind::kTags, name + "/"));
        if (!prefix) return no_entry(name);
        return prefix_entry(NodeKind::kTags, name + "/", parent.id);
    }
    CommitId commit = CommitId::from(ref->target);
    if (ref->annotated) {
        CORAL_TRY(auto tag, repo_.tag(TagId::from(ref->target)));
        commit = tag->target;
    }
    return link_entry(NodeKind::kTags, name, up_from(name) + "commits/" + commit.hex(), commit, parent.id);
}

Result<Entry> MountedFilesystem::lookup_revision(const Node& parent, const std::string& name) {
    auto commit = repo_.resolve(name);
    if (commit) return link_entry(NodeKind::kAt, name, up_from(name) + "commits/" + commit->hex(), *commit, parent.id);
    if (!is_refusal(commit.error())) return std::move(commit).error();
    CORAL_TRY(bool prefix, is_prefix(NodeKind::kAt, name + "/"));
    if (!prefix) return no_entry(name);
    return prefix_entry(NodeKind::kAt, name + "/", parent.id);
}

// ---- branches

Entry MountedFilesystem::branch_entry(const std::shared_ptr<TreeSlot>& slot, const WorktreePtr& worktree,
                                      std::uint64_t generation, const repo::InodePtr& inode, NodeId parent) {
    repo::Attributes a = worktree->attributes(inode);
    NodePtr node = nodes_.acquire_branch_entry(slot, a.ino, parent);
    {
        std::lock_guard lock(node->mutex);
        if (node->generation != 0 && node->generation != generation) node->io.changed_outside();
        node->inode = inode;
        node->generation = generation;
    }
    return Entry{attr_of(a), kForEver, attr_timeout(a)};
}

Result<Entry> MountedFilesystem::lookup_in_branch(const NodePtr& parent, std::string_view name) {
    CORAL_TRY(BranchRef dir, branch_ref(parent));
    CORAL_TRY(repo::InodePtr inode, dir.worktree->lookup(dir.inode, name));
    return branch_entry(parent->slot, dir.worktree, dir.generation, inode, parent->id);
}

// ---- file handles. The kernel names a node that it may have forgotten long ago: open_by_handle_at(2), an NFS server.

Result<Entry> MountedFilesystem::lookup_number(NodeId id, bool its_parent) {
    CORAL_CHECK(check_up());
    for (NodeId fixed : {kRoot, kBranchesId, kTagsId, kCommitsId, kAtId}) {
        if (id == fixed) return Entry{directory_attr(its_parent ? kRoot : id, started_ns_), kForEver, kForEver};
    }
    // Numbers of branch entries are those of their rows; what the others stood for is not noted anywhere.
    const Error gone = make_error(Errc::kStale, fmt::format("node {} is not known any more", id));
    if (id < kBranchEntryBase || id >= kHashedBase) return gone;
    const repo::Ino ino = id - kBranchEntryBase;
    auto slot = branches_.slot_with(ino);
    if (!slot) return gone;
    TreeSlot::View view = slot->view();
    if (!view.worktree) return gone;
    auto inode = view.worktree->get(ino);
    if (!inode) return gone;
    CORAL_TRY(repo::InodePtr above, view.worktree->parent_of(*inode));
    if (!its_parent) {
        const NodeId parent = above ? branch_entry_id(view.worktree->attributes(above).ino) : kBranchesId;
        return branch_entry(slot, view.worktree, view.generation, *inode, parent);
    }
    if (above) return branch_entry(slot, view.worktree, view.generation, above, kBranchesId);
    const std::string& name = view.worktree->branch();
    const std::size_t slash = name.rfind('/');
    if (slash == std::string::npos) return Entry{directory_attr(kBranchesId, started_ns_), kForEver, kForEver};
    return prefix_entry(NodeKind::kBranches, name.substr(0, slash + 1), kBranchesId);
}

}  // namespace coral::vfs
