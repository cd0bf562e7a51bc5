// SPDX-License-Identifier: Apache-2.0
// Listings. Nothing here walks history: only `ls commits/` asks for commits, and only for the newest.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

constexpr std::size_t kListedCommits = 1000;
constexpr std::size_t kSmallestPage = 32, kLargestPage = 4096;
constexpr std::uint64_t kDots = 2;

DirItem item_of(std::string name, NodeId node, FileType type) {
    DirItem item;
    item.name = std::move(name);
    item.attr.node = node;
    item.attr.type = type;
    item.attr.mode = type == FileType::kSymlink ? 0777 : 0755;
    return item;
}

}  // namespace

Result<HandleId> MountedFilesystem::open_directory(NodeId id) {
    drop_unanswered();
    CORAL_TRY(NodePtr node, node_of(id));
    if (node->kind == NodeKind::kBranchEntry) {
        CORAL_TRY(BranchRef ref, branch_ref(node));
        if (ref.worktree->attributes(ref.inode).type != FileType::kDirectory) {
            return make_error(Errc::kNotDirectory, "not a directory");
        }
    } else if (!node->is_directory()) {
        return make_error(Errc::kNotDirectory, "not a directory");
    }
    auto handle = std::make_shared<DirectoryHandle>();
    handle->node = node;
    nodes_.pin(node);
    handle->id = directories_.next();
    if (options_.handover) options_.handover->directory_opened(handle->id, id, current_request().unique);
    HandleId number = handle->id;
    directories_.put(number, std::move(handle));
    return number;
}

void MountedFilesystem::release_directory(HandleId id) {
    auto handle = directories_.take(id);
    if (!handle) return;
    nodes_.unpin(handle->node);
    if (options_.handover) options_.handover->directory_closed(id);
}

Status MountedFilesystem::sync_directory(NodeId id) {
    CORAL_TRY(NodePtr node, node_of(id));
    if (node->kind != NodeKind::kBranchEntry) return {};
    CORAL_TRY(BranchRef ref, branch_ref(node));
    return ref.worktree->sync_names();
}

// "." and "..". False when `visit` wants no more.
bool MountedFilesystem::show_dots(const DirectoryHandle& dir, std::uint64_t& offset, const Visit& visit) const {
    for (; offset < kDots; ++offset) {
        DirItem item =
            item_of(offset == 0 ? "." : "..", offset == 0 ? dir.node->id : dir.node->parent, FileType::kDirectory);
        item.next = offset + 1;
        if (!visit(item, nullptr)) return false;
    }
    return true;
}

Status MountedFilesystem::read_directory(HandleId id, std::uint64_t offset, bool plus, const Visit& visit) {
    CORAL_CHECK(check_up());
    CORAL_TRY(auto dir, directories_.find(id));
    std::lock_guard lock(dir->mutex);
    if (!show_dots(*dir, offset, visit)) return {};
    switch (dir->node->kind) {
        case NodeKind::kBranchEntry:
            return read_branch_directory(*dir, offset - kDots, plus, visit);
        case NodeKind::kTreeDirectory:
        case NodeKind::kForeignBranch:
            return read_tree_directory(*dir, offset - kDots, plus, visit);
        default:
            return read_virtual_directory(*dir, offset - kDots, visit);
    }
}

// `offset` counts entries behind "..".
Status MountedFilesystem::read_branch_directory(DirectoryHandle& dir, std::uint64_t offset, bool plus,
                                                const Visit& visit) {
    std::uint64_t known = std::min<std::uint64_t>(offset, dir.shown.size());
    dir.shown.resize(static_cast<std::size_t>(known));
    CORAL_TRY(bool there, skip_branch_entries(dir, offset));
    Status done = there ? show_branch_directory(dir, plus, visit) : Status{};
    if (options_.handover && dir.shown.size() > known) {
        auto first = dir.shown.begin() + static_cast<std::ptrdiff_t>(known);
        options_.handover->directory_shown(dir.id, known, std::vector<std::string>(first, dir.shown.end()));
    }
    return done;
}

// Who goes back forgets what came behind, and may then go forward to a place that telldir(3) told before. False when
// the directory ends before it.
Result<bool> MountedFilesystem::skip_branch_entries(DirectoryHandle& dir, std::uint64_t offset) {
    if (dir.shown.size() == offset) return true;
    CORAL_TRY(BranchRef ref, branch_ref(dir.node));
    while (dir.shown.size() < offset) {
        std::string after = dir.shown.empty() ? std::string() : dir.shown.back();
        auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(offset - dir.shown.size(), kLargestPage));
        CORAL_TRY(std::vector<repo::DirEntry> page, ref.worktree->list(ref.inode, after, wanted));
        for (repo::DirEntry& found : page) dir.shown.push_back(std::move(found.name));
        if (page.size() < wanted) return false;
    }
    return true;
}

Status MountedFilesystem::show_branch_directory(DirectoryHandle& dir, bool plus, const Visit& visit) {
    CORAL_TRY(BranchRef ref, branch_ref(dir.node));
    std::size_t taken = 0;
    while (true) {
        std::string after = dir.shown.empty() ? std::string() : dir.shown.back();
        CORAL_TRY(std::vector<repo::DirEntry> page, ref.worktree->list(ref.inode, after, dir.page));
        for (const repo::DirEntry& found : page) {
            DirItem item{found.name, attr_of(found.attributes), kDots + dir.shown.size() + 1};
            Entry entry{item.attr, kForEver, attr_timeout(found.attributes)};
            // The reference first: once `visit` has said yes the kernel may forget it at any moment.
            if (plus) nodes_.acquire_branch_entry(dir.node->slot, found.attributes.ino, dir.node->id);
            if (!visit(item, plus ? &entry : nullptr)) {
                if (plus) nodes_.forget(item.attr.node, 1);
                // The kernel's buffers are alike: next time no more is read than fits.
                dir.page = std::clamp(taken + taken / 4 + 4, kSmallestPage, kLargestPage);
                return {};
            }
            dir.shown.push_back(found.name);
            ++taken;
        }
        if (page.size() < dir.page) return {};
        dir.page = std::min(dir.page * 2, kLargestPage);
    }
}

Status MountedFilesystem::read_tree_directory(DirectoryHandle& dir, std::uint64_t offset, bool plus,
                                              const Visit& visit) {
    CORAL_TRY(TreePlace place, tree_place(*dir.node));
    CORAL_TRY(auto tree, tree_of(place));
    double timeout = dir.node->kind == NodeKind::kTreeDirectory ? kForEver : 0;
    for (std::uint64_t i = offset; i < tree->entries.size(); ++i) {
        const repo::TreeEntry& found = tree->entries[static_cast<std::size_t>(i)];
        DirItem item;
        item.name = found.name;
        item.next = kDots + i + 1;
        if (!plus) {
            item.attr = tree_attr(nodes_.peek(tree_key(place, found)), found, place.time_ns);
            if (!visit(item, nullptr)) return {};
            continue;
        }
        Entry entry = tree_entry(place, found, dir.node->id, timeout);
        item.attr = entry.attr;
        if (!visit(item, &entry)) {
            nodes_.forget(entry.attr.node, 1);
            return {};
        }
    }
    return {};
}

// Virtual directories are as they were when the reading began. Their entries are told without attributes to keep: the
// kernel looks up what it wants, so that `ls branches/` does not read one commit per branch.
Status MountedFilesystem::read_virtual_directory(DirectoryHandle& dir, std::uint64_t offset, const Visit& visit) {
    if (offset == 0 || !dir.listed) {
        CORAL_TRY(dir.listing, list_virtual(*dir.node));
        dir.listed = true;
    }
    for (std::uint64_t i = offset; i < dir.listing.size(); ++i) {
        DirItem& item = dir.listing[static_cast<std::size_t>(i)];
        item.next = kDots + i + 1;
        if (!visit(item, nullptr)) return {};
    }
    return {};
}

Result<std::vector<DirItem>> MountedFilesystem::list_virtual(const Node& node) {
    std::vector<DirItem> items;
    switch (node.kind) {
        case NodeKind::kMountRoot:
            items.push_back(item_of("HEAD", kHeadListedId, FileType::kSymlink));
            items.push_back(item_of("at", kAtId, FileType::kDirectory));
            items.push_back(item_of("branches", kBranchesId, FileType::kDirectory));
            items.push_back(item_of("commits", kCommitsId, FileType::kDirectory));
            items.push_back(item_of("tags", kTagsId, FileType::kDirectory));
            return items;
        case NodeKind::kCommits: {
            CORAL_TRY(std::vector<CommitId> newest, repo_.recent_commits(kListedCommits));
            for (const CommitId& id : newest) {
                std::string name = id.hex();
                NodeId number = nodes_.peek(fmt::format("tree \n{}\n", name));
                items.push_back(item_of(std::move(name), number, FileType::kDirectory));
            }
            return items;
        }
        case NodeKind::kBranches:
        case NodeKind::kTags:
            return list_refs(node.kind, "");
        case NodeKind::kPrefix:
            if (node.area == NodeKind::kAt) return items;
            return list_refs(node.area, node.text);
        default:
            return items;  // at/ is never listed
    }
}

Result<std::vector<DirItem>> MountedFilesystem::list_refs(NodeKind area, const std::string& prefix) {
    std::vector<std::string> names;
    if (area == NodeKind::kBranches) {
        CORAL_TRY(std::vector<repo::Branch> rows, repo_.branches());
        for (const repo::Branch& row : rows) names.push_back(row.name);
    } else {
        CORAL_TRY(std::vector<repo::Ref> refs, repo_.refs("tags/" + prefix));
        for (const repo::Ref& ref : refs) names.push_back(ref.name.substr(5));
    }
    std::sort(names.begin(), names.end());
    std::vector<DirItem> items;
    std::set<std::string> folders;
    for (const std::string& name : names) {
        if (!name.starts_with(prefix)) continue;
        Component part = component_after(name, prefix.size());
        bool link = area == NodeKind::kTags && !part.folder;
        if (part.folder && !folders.insert(part.name).second) continue;
        items.push_back(item_of(part.name, kUnlookedId, link ? FileType::kSymlink : FileType::kDirectory));
    }
    return items;
}

}  // namespace coral::vfs
