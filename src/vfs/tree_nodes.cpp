// SPDX-License-Identifier: Apache-2.0
// Nodes of commits: they never change, so what they are called and what is in them is the kernel's for ever.
#include <fmt/format.h>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

// What a commit names and the store has not is lost, not absent: EIO, never ENOENT.
template <class T>
Result<T> must_be_there(Result<T> found) {
    if (found || found.error().code != Errc::kNotFound) return found;
    return make_error(Errc::kCorrupt, found.error().message);
}

}  // namespace

// A file is one node in all commits where everything that can be seen of it is equal. Directories and links are never
// shared: one commit's ".." and times are not another's. Nor is anything shared between commits/ and a branch that
// another process owns: `cp` from one to the other would find "the same file".
std::string MountedFilesystem::tree_key(const TreePlace& dir, const repo::TreeEntry& entry) const {
    std::string path = dir.path.empty() ? entry.name : dir.path + "/" + entry.name;
    bool shared = options_.share && entry.type == repo::EntryType::kFile && dir.space.empty();
    if (!shared) return fmt::format("tree {}\n{}\n{}", dir.space, dir.commit.hex(), path);
    return fmt::format("file {} {:o} {} {}\n{}", entry.content.hex(), entry.mode, entry.mtime_ns, entry.xattrs.hex(),
                       path);
}

Attr MountedFilesystem::tree_attr(NodeId id, const repo::TreeEntry& entry, std::int64_t time_ns) const {
    Attr attr = directory_attr(id, time_ns);
    if (entry.type == repo::EntryType::kDirectory) {
        attr.mode = entry.mode & 0777u;
        return attr;
    }
    bool link = entry.type == repo::EntryType::kSymlink;
    attr.type = link ? FileType::kSymlink : FileType::kRegular;
    attr.mode = link ? 0777u : entry.mode & 0777u;
    attr.nlink = 1;
    attr.size = link ? entry.link.size() : entry.size;
    attr.blocks = attr.size / 512 + (attr.size % 512 != 0);
    if (!link) attr.atime_ns = attr.mtime_ns = attr.ctime_ns = entry.mtime_ns;
    return attr;
}

Entry MountedFilesystem::tree_entry(const TreePlace& dir, const repo::TreeEntry& entry, NodeId parent,
                                    double entry_timeout) {
    NodePtr node = nodes_.acquire(tree_key(dir, entry), [&](NodeId id) {
        NodeKind kind = entry.type == repo::EntryType::kFile        ? NodeKind::kTreeFile
                        : entry.type == repo::EntryType::kDirectory ? NodeKind::kTreeDirectory
                                                                    : NodeKind::kTreeLink;
        auto made = std::make_shared<Node>(id, kind);
        made->text = dir.path.empty() ? entry.name : dir.path + "/" + entry.name;
        made->space = dir.space;
        made->commit = dir.commit;
        made->entry = entry;
        made->time_ns = dir.time_ns;
        made->parent = parent;
        return made;
    });
    return Entry{tree_attr(node->id, entry, dir.time_ns), entry_timeout, kForEver};
}

Result<Entry> MountedFilesystem::lookup_commit(std::string_view name) {
    auto id = CommitId::from_hex(name);
    // One name per commit: not the same digits in capitals.
    if (!id || id->hex() != name)
        return make_error(Errc::kNotFound, fmt::format("commits/{}: not the full id of a commit", name));
    CORAL_TRY(auto commit, repo_.commit(*id));
    NodePtr node = nodes_.acquire(fmt::format("tree \n{}\n", name), [&](NodeId number) {
        auto made = std::make_shared<Node>(number, NodeKind::kTreeDirectory);
        made->commit = *id;
        made->entry.type = repo::EntryType::kDirectory;
        made->entry.mode = 0755;
        made->entry.content = AnyId::from(commit->tree);
        made->time_ns = commit->committer.time_ns;
        made->parent = kCommitsId;
        return made;
    });
    return Entry{tree_attr(node->id, node->entry, node->time_ns), kForEver, kForEver};
}

Result<MountedFilesystem::TreePlace> MountedFilesystem::tree_place(const Node& node) {
    if (node.kind == NodeKind::kTreeDirectory) {
        return TreePlace{node.space, node.text, node.commit, TreeId::from(node.entry.content), node.time_ns};
    }
    CORAL_TRY(repo::Branch branch, repo_.branch(node.text));
    TreePlace place{"branch " + node.text, "", {}, {}, started_ns_};
    if (!branch.commit) return place;
    CORAL_TRY(auto commit, must_be_there(repo_.commit(*branch.commit)));
    place.commit = *branch.commit;
    place.tree = commit->tree;
    place.time_ns = commit->committer.time_ns;
    return place;
}

Result<std::shared_ptr<const repo::Tree>> MountedFilesystem::tree_of(const TreePlace& place) {
    if (place.tree.is_zero()) return std::make_shared<const repo::Tree>();  // a branch without a commit
    return must_be_there(repo_.tree(place.tree));
}

Result<Entry> MountedFilesystem::lookup_in_tree(const Node& parent, std::string_view name) {
    CORAL_TRY(TreePlace place, tree_place(parent));
    CORAL_TRY(auto tree, tree_of(place));
    const repo::TreeEntry* entry = tree->find(name);
    if (!entry) return make_error(Errc::kNotFound, fmt::format("{}: no such file or directory", name));
    // The root of a branch that is not ours shows another commit as soon as its owner makes one.
    bool fixed = parent.kind == NodeKind::kTreeDirectory;
    return tree_entry(place, *entry, parent.id, fixed ? kForEver : 0);
}

Result<std::shared_ptr<const store::FileRecord>> MountedFilesystem::record_of(const NodePtr& node) {
    {
        std::lock_guard lock(node->mutex);
        if (node->record) return node->record;
    }
    CORAL_TRY(auto record, must_be_there(repo_.store().file(FileId::from(node->entry.content))));
    std::lock_guard lock(node->mutex);
    if (!node->record) node->record = record;
    return node->record;
}

}  // namespace coral::vfs
