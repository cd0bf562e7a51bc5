// SPDX-License-Identifier: Apache-2.0
// Status: what differs from the last commit. Looks only into directories that are marked dirty.
#include <algorithm>

#include "coral/base/hash.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

class StatusWalk {
  public:
    StatusWalk(Repository& repo, std::vector<Change>& out) : repo_(repo), out_(out) {}

    Status directory(const DirSnapshot& dir, const std::optional<TreeId>& before_id, const std::string& path) {
        std::shared_ptr<const Tree> before = std::make_shared<Tree>();
        if (before_id && !before_id->is_zero()) {
            CORAL_TRY(before, repo_.tree(*before_id));
        }
        auto old = before->entries.begin();
        std::size_t next_dirty = 0;
        // Both are sorted by name: what is passed over is there no more.
        for (const Row& row : dir.rows) {
            for (; old != before->entries.end() && old->name < row.name; ++old) CORAL_CHECK(deleted(*old, path));
            const TreeEntry* same = old != before->entries.end() && old->name == row.name ? &*old++ : nullptr;
            bool walked = row.type == EntryType::kDirectory && row.filled && row.dirty;
            const DirSnapshot* below = walked ? dir.dirty[next_dirty++].get() : nullptr;
            std::string here = join_names(path, row.name);
            if (!same || (same->type == EntryType::kDirectory) != (row.type == EntryType::kDirectory)) {
                if (same) CORAL_CHECK(deleted(*same, path));
                CORAL_CHECK(added(row, below, here));
            } else if (row.type == EntryType::kDirectory) {
                CORAL_CHECK(directory_again(row, *same, below, here));
            } else {
                file_again(row, *same, here);
            }
        }
        for (; old != before->entries.end(); ++old) CORAL_CHECK(deleted(*old, path));
        return {};
    }

    Status between(const TreeId& before, const TreeId& now, const std::string& path) {
        auto collect = [this](const Change& change) -> Status {
            out_.push_back(change);
            return {};
        };
        return diff_trees(repo_, before, now, collect, path);
    }

  private:
    Status deleted(const TreeEntry& entry, const std::string& folder) {
        std::string path = join_names(folder, entry.name);
        if (entry.type == EntryType::kDirectory) {
            CORAL_TRY(auto tree, repo_.tree(TreeId::from(entry.content)));
            if (tree->entries.empty())
                out_.push_back({ChangeKind::kDeleted, path, 0, 0, entry.content, {}, true, false});
            return between(TreeId::from(entry.content), TreeId{}, path);
        }
        out_.push_back({ChangeKind::kDeleted, path, entry.size, 0, entry.content, {}, false, false});
        return {};
    }

    // Of an empty directory nothing would be seen but itself.
    Status added(const Row& row, const DirSnapshot* below, const std::string& path) {
        if (below) {
            if (below->rows.empty()) out_.push_back({ChangeKind::kAdded, path, 0, 0, {}, {}, true, false});
            return directory(*below, std::nullopt, path);
        }
        if (row.type == EntryType::kDirectory) {
            if (!row.content) return {};
            CORAL_TRY(auto tree, repo_.tree(TreeId::from(*row.content)));
            if (tree->entries.empty()) out_.push_back({ChangeKind::kAdded, path, 0, 0, {}, *row.content, true, false});
            return between(TreeId{}, TreeId::from(*row.content), path);
        }
        out_.push_back({ChangeKind::kAdded, path, 0, row.size, {}, content_of(row), false, !row.complete});
        return {};
    }

    Status directory_again(const Row& row, const TreeEntry& before, const DirSnapshot* below, const std::string& path) {
        if (mode_of(row) != before.mode || xattrs_of(row) != before.xattrs)
            out_.push_back({ChangeKind::kModeChanged, path, 0, 0, before.content, {}, true, false});
        if (below) return directory(*below, TreeId::from(before.content), path);
        return between(TreeId::from(before.content), TreeId::from(row.content.value_or(AnyId{})), path);
    }

    void file_again(const Row& row, const TreeEntry& before, const std::string& path) {
        Change change{ChangeKind::kModified, path,  before.size,  row.size, before.content,
                      content_of(row),       false, !row.complete};
        if (row.type != before.type) {
            change.kind = ChangeKind::kTypeChanged;
        } else if (change.new_content == before.content) {
            bool same_mode = row.type == EntryType::kSymlink || mode_of(row) == before.mode;
            if (same_mode && xattrs_of(row) == before.xattrs) return;
            change.kind = ChangeKind::kModeChanged;
        }
        out_.push_back(std::move(change));
    }

    // Zero while it is not known.
    static AnyId content_of(const Row& row) {
        if (row.type == EntryType::kSymlink) return Sha256::of(as_bytes(row.link));
        return is_ready(row) ? *row.content : AnyId{};
    }
    static std::uint16_t mode_of(const Row& row) { return static_cast<std::uint16_t>(row.mode & 0777); }
    static SegmentId xattrs_of(const Row& row) {
        return row.xattrs.empty() ? SegmentId{} : SegmentId::from(Sha256::of(row.xattrs));
    }

    Repository& repo_;
    std::vector<Change>& out_;
};

}  // namespace

Result<StatusResult> Worktree::status() {
    StatusResult result;
    result.branch = branch_;
    // What a file holds is known once it is ingested; until then it counts as changed. Small files are worth the wait.
    impl_->wait_a_little();
    result.commit = base_commit();
    CORAL_TRY(auto base_tree, impl_->tree_of(result.commit));
    CORAL_TRY(auto snapshot, impl_->snapshot());
    StatusWalk walk(repo_, result.changes);
    if (!snapshot->row.filled) {
        if (snapshot->row.content)
            CORAL_CHECK(walk.between(base_tree.value_or(TreeId{}), TreeId::from(*snapshot->row.content), ""));
    } else if (snapshot->row.dirty || !base_tree) {
        CORAL_CHECK(walk.directory(*snapshot, base_tree, ""));
    }
    // Sizes of files being written are ahead of their rows.
    std::sort(result.changes.begin(), result.changes.end(),
              [](const Change& a, const Change& b) { return a.path < b.path; });
    return result;
}

}  // namespace coral::repo
