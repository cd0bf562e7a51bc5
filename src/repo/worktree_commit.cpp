// SPDX-License-Identifier: Apache-2.0
// Commit and status. Both look only into directories that are marked dirty; the rest is its tree id.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "coral/base/hash.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {

// A dirty directory at one moment. Clean subdirectories stand in `rows` with their tree id only.
struct Worktree::Impl::DirSnapshot {
    Row row;
    std::vector<Row> rows;                            // sorted by name
    std::vector<std::unique_ptr<DirSnapshot>> dirty;  // of the directories among rows, in their order
    TreeId tree;                                      // set by build
};

namespace {

constexpr auto kReleaseGrace = std::chrono::seconds(2);  // between close(2) and the kernel's RELEASE

bool is_ready(const Row& row) {
    return row.content && (!row.staging || row.ingested);
}

std::string join(const std::string& path, const std::string& name) {
    return path.empty() ? name : path + "/" + name;
}

bool covers(const std::string& wanted, const std::string& path) {
    return wanted.empty() || path == wanted ||
           (path.size() > wanted.size() && path.starts_with(wanted) && path[wanted.size()] == '/');
}

// Equal but for mtime: the parent's stands, so that a touch alone is no change.
void keep_mtime(TreeEntry& entry, const TreeEntry* before) {
    if (before && before->same_content(entry)) entry.mtime_ns = before->mtime_ns;
}

}  // namespace

// ---- the snapshot

Status Worktree::Impl::snapshot_dir(Database& db, DirSnapshot& dir) {
    CORAL_TRY(dir.rows, select_children(db, dir.row.ino));
    for (const Row& row : dir.rows) {
        if (row.type != EntryType::kDirectory || !row.filled || !row.dirty) continue;
        auto below = std::make_unique<DirSnapshot>();
        below->row = row;
        CORAL_CHECK(snapshot_dir(db, *below));
        dir.dirty.push_back(std::move(below));
    }
    return {};
}

Result<std::unique_ptr<Worktree::Impl::DirSnapshot>> Worktree::Impl::snapshot() {
    auto top = std::make_unique<DirSnapshot>();
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        CORAL_TRY(auto row, select_ino(db, tree.root_->ino));
        if (!row) return make_error(Errc::kStale, fmt::format("branch {} has been deleted", tree.branch_));
        top->row = std::move(*row);
        if (!top->row.filled) return {};
        return snapshot_dir(db, *top);
    }));
    return top;
}

Result<std::optional<TreeId>> Worktree::Impl::base_tree() {
    auto commit_id = tree.base_commit();
    if (!commit_id) return std::optional<TreeId>();
    CORAL_TRY(auto commit, repo.commit(*commit_id));
    return std::optional<TreeId>(commit->tree);
}

// ---- building trees

Result<std::optional<TreeEntry>> Worktree::Impl::build_file(const Row& row, const TreeEntry* before,
                                                            const std::string& path, const MayBeOpen& may_be_open) {
    bool ready = is_ready(row), open = open_for_writing(row.ino);
    if ((!ready || open) && !may_be_open(path)) {
        return make_error(
            Errc::kBusy,
            open
                ? fmt::format("{}: is being written (close it, or commit with --wait or --allow-open)", path)
                : fmt::format("{}: its writer was cut off by a crash (write it again, `: >> FILE` to keep it as it is, "
                              "or commit with --allow-open without what was written)",
                              path));
    }
    // Flushed, perhaps by a fork, but still open: what it holds now is its writer's affair. The last commit's stays.
    if (open) return before && before->type == EntryType::kFile ? std::optional<TreeEntry>(*before) : std::nullopt;
    TreeEntry entry;
    if (ready) {
        entry.content = *row.content;
        entry.size = row.size;
    } else {
        // Its last complete content stays; a file that never had one is left out.
        std::optional<AnyId> earlier = row.content ? row.content : row.previous;
        if (!earlier) return std::optional<TreeEntry>();
        CORAL_TRY(auto record, repo.store().file(FileId::from(*earlier)));
        entry.content = *earlier;
        entry.size = record->size;
    }
    entry.mtime_ns = row.mtime_ns;
    return std::optional<TreeEntry>(std::move(entry));
}

Result<TreeId> Worktree::Impl::build(DirSnapshot& dir, const std::optional<TreeId>& before_id, const std::string& path,
                                     const MayBeOpen& may_be_open) {
    if (dir.row.content && (!dir.row.filled || !dir.row.dirty)) {
        dir.tree = TreeId::from(*dir.row.content);
        return dir.tree;
    }
    std::shared_ptr<const Tree> before = std::make_shared<Tree>();
    if (before_id && !before_id->is_zero()) {
        CORAL_TRY(before, repo.tree(*before_id));
    }
    Tree out;
    std::size_t next_dirty = 0;
    for (const Row& row : dir.rows) {
        const TreeEntry* old = before->find(row.name);
        TreeEntry entry;
        if (row.type == EntryType::kFile) {
            CORAL_TRY(auto built, build_file(row, old, join(path, row.name), may_be_open));
            if (!built) continue;
            entry = std::move(*built);
        } else if (row.type == EntryType::kSymlink) {
            entry.link = row.link;
            entry.size = row.link.size();
            entry.content = Sha256::of(as_bytes(row.link));
        } else if (row.filled && row.dirty) {
            std::optional<TreeId> below;
            if (old && old->type == EntryType::kDirectory) below = TreeId::from(old->content);
            CORAL_TRY(TreeId id, build(*dir.dirty[next_dirty++], below, join(path, row.name), may_be_open));
            entry.content = AnyId::from(id);
        } else {
            entry.content = row.content.value_or(AnyId{});
        }
        entry.name = row.name;
        entry.type = row.type;
        entry.mode = row.type == EntryType::kSymlink ? 0777 : static_cast<std::uint16_t>(row.mode & 0777);
        if (!row.xattrs.empty()) {
            CORAL_TRY(Xattrs xattrs, decode_xattrs(row.xattrs));
            CORAL_TRY(entry.xattrs, repo.put_xattrs(xattrs));
        }
        keep_mtime(entry, old);
        out.entries.push_back(std::move(entry));
    }
    CORAL_TRY(dir.tree, repo.put_tree(out));
    return dir.tree;
}

// ---- commit

void Worktree::Impl::retry_failed() {
    std::vector<Ino> failed;
    {
        std::lock_guard lock(queue_mutex);
        for (const auto& [ino, why] : failures) failed.push_back(ino);
        failures.clear();
    }
    for (Ino ino : failed) {
        if (auto inode = load_inode(ino)) enqueue(*inode);
    }
}

// Waits until nothing is being written (or the grace has passed), and for ingest of what is complete.
Status Worktree::Impl::wait_complete(const CommitOptions& options) {
    auto give_up = std::chrono::steady_clock::now() + kReleaseGrace;
    while (true) {
        CORAL_CHECK(tree.wait_ingested());
        bool open = false;
        CORAL_CHECK(state.read([&](Database& db) -> Status {
            Statement st =
                db.prepare("SELECT 1 FROM inode WHERE worktree=? AND staging IS NOT NULL AND ingested=0 LIMIT 1");
            st.bind(row_id);
            CORAL_TRY(open, st.step());
            return {};
        }));
        bool handles = false;
        {
            std::lock_guard lock(table_mutex);
            handles = !written.empty();
        }
        if ((!open && !handles) || options.allow_open) return {};
        // A file that a crash cut off has no handle: nobody will ever complete it by closing.
        if (options.wait && handles) give_up = std::chrono::steady_clock::now() + kReleaseGrace;
        if (std::chrono::steady_clock::now() > give_up) return {};  // build() names the file
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

// Directories that have not changed since the snapshot are clean now; one is clean only with all below it.
Status Worktree::Impl::mark_clean(Database& db, const DirSnapshot& dir, bool& clean) {
    clean = true;
    for (const auto& below : dir.dirty) {
        bool below_clean = false;
        CORAL_CHECK(mark_clean(db, *below, below_clean));
        clean = clean && below_clean;
    }
    Statement st = db.prepare("SELECT version FROM inode WHERE ino=?");
    st.bind(dir.row.ino);
    CORAL_TRY(bool there, st.step());
    clean = clean && there && st.unsigned_integer(0) == dir.row.version;
    if (!clean) return {};
    return db.prepare("UPDATE inode SET content=?, dirty=0 WHERE ino=?").bind(dir.tree).bind(dir.row.ino).run();
}

namespace {

// The tree `base` with the entries of `paths` as they are in `full`.
class Grafter {
  public:
    explicit Grafter(Repository& repo) : repo_(repo) {}

    Result<TreeId> graft(const TreeId& base, const TreeId& full, std::string_view path) {
        std::size_t slash = path.find('/');
        std::string name(path.substr(0, slash));
        CORAL_TRY(Tree out, load(base));
        CORAL_TRY(Tree from, load(full));
        const TreeEntry* wanted = from.find(name);
        auto at = std::lower_bound(out.entries.begin(), out.entries.end(), name,
                                   [](const TreeEntry& e, const std::string& n) { return e.name < n; });
        bool there = at != out.entries.end() && at->name == name;
        if (slash == std::string_view::npos || !wanted || wanted->type != EntryType::kDirectory) {
            if (!wanted && !there) return make_error(Errc::kNotFound, fmt::format("{}: matches no file", name));
            if (!wanted)
                out.entries.erase(at);
            else if (there)
                *at = *wanted;
            else
                out.entries.insert(at, *wanted);
        } else {
            TreeId below = there && at->type == EntryType::kDirectory ? TreeId::from(at->content) : TreeId{};
            CORAL_TRY(TreeId grafted, graft(below, TreeId::from(wanted->content), path.substr(slash + 1)));
            TreeEntry entry = *wanted;
            entry.content = AnyId::from(grafted);
            if (there)
                *at = entry;
            else
                out.entries.insert(at, entry);
        }
        return repo_.put_tree(out);
    }

  private:
    Result<Tree> load(const TreeId& id) {
        if (id.is_zero()) return Tree{};
        CORAL_TRY(auto tree, repo_.tree(id));
        return *tree;
    }
    Repository& repo_;
};

std::string first_line(const std::string& message) {
    return message.substr(0, message.find('\n'));
}

}  // namespace

Result<CommitResult> Worktree::commit(const CommitOptions& options) {
    impl_->retry_failed();
    CORAL_CHECK(impl_->wait_complete(options));
    CORAL_TRY(auto base_tree, impl_->base_tree());
    std::optional<CommitId> parent = base_commit();
    CORAL_TRY(auto snapshot, impl_->snapshot());
    bool whole = options.paths.empty();
    // With paths, what lies outside them may be open: it is not part of this commit.
    auto may_be_open = [&](const std::string& path) {
        return options.allow_open ||
               (!whole && std::none_of(options.paths.begin(), options.paths.end(),
                                       [&](const std::string& wanted) { return covers(wanted, path); }));
    };
    CORAL_TRY(TreeId tree, impl_->build(*snapshot, base_tree, "", may_be_open));
    if (!whole) {
        Grafter grafter(repo_);
        TreeId grafted = base_tree.value_or(TreeId{});
        for (const std::string& path : options.paths) {
            if (path.empty()) {
                grafted = tree;
                continue;
            }
            CORAL_TRY(grafted, grafter.graft(grafted, tree, path));
        }
        tree = grafted;
    }
    CommitResult result;
    result.branch = branch_;
    CORAL_CHECK(diff_trees(repo_, base_tree.value_or(TreeId{}), tree, [&](const Change& change) -> Status {
        ++result.changed;
        if (change.kind == ChangeKind::kAdded) ++result.added;
        if (change.kind == ChangeKind::kDeleted) ++result.deleted;
        return {};
    }));
    if (base_tree ? *base_tree == tree : result.changed == 0) {
        return make_error(Errc::kConflict, fmt::format("nothing to commit on {}", branch_));
    }
    Commit commit;
    commit.tree = tree;
    if (parent) commit.parents.push_back(*parent);
    CORAL_TRY(commit.committer, repo_.identity());
    commit.author = options.author.value_or(commit.committer);
    commit.meta = options.meta;
    std::sort(commit.meta.begin(), commit.meta.end());
    commit.message = options.message;
    CORAL_TRY(result.id, repo_.put_commit(commit));

    RefUpdate update;
    update.name = "heads/" + branch_;
    update.expected = parent ? AnyId::from(*parent) : AnyId{};
    update.target = AnyId::from(result.id);
    update.reason = fmt::format("commit{}: {}", parent ? "" : " (initial)", first_line(options.message));
    CORAL_CHECK(repo_.update_refs({update}, [&](Database& db) -> Status {
        CORAL_CHECK(
            db.prepare("UPDATE worktree SET base_commit=? WHERE id=?").bind(result.id).bind(impl_->row_id).run());
        if (!whole || options.allow_open) return {};
        bool clean = false;
        return impl_->mark_clean(db, *snapshot, clean);
    }));
    {
        std::lock_guard ops(impl_->ops_mutex);
        impl_->base = result.id;
    }
    ++impl_->changes;
    // update_refs has just synced the packs: a good moment to let staging files go.
    {
        std::lock_guard lock(impl_->queue_mutex);
        if (!impl_->settled.empty())
            impl_->settled_bytes = std::max<std::uint64_t>(impl_->settled_bytes, std::uint64_t{1} << 40);
    }
    impl_->queue_wake.notify_all();
    return result;
}

// ---- status

Status Worktree::Impl::status_added(const Row& row, const std::string& path, std::vector<Change>& out) {
    if (row.type != EntryType::kDirectory) {
        Change change{ChangeKind::kAdded, path, 0, row.size, {}, {}, false, !row.complete};
        if (row.type == EntryType::kSymlink)
            change.new_content = Sha256::of(as_bytes(row.link));
        else if (is_ready(row))
            change.new_content = *row.content;
        out.push_back(std::move(change));
        return {};
    }
    if (!row.filled) {
        if (!row.content) return {};
        return diff_trees(
            repo, TreeId{}, TreeId::from(*row.content),
            [&](const Change& c) -> Status {
                out.push_back(c);
                return {};
            },
            path);
    }
    return {};  // filled directories are walked by status_dir
}

Status Worktree::Impl::status_dir(const DirSnapshot& dir, const std::optional<TreeId>& before_id,
                                  const std::string& path, std::vector<Change>& out) {
    std::shared_ptr<const Tree> before = std::make_shared<Tree>();
    if (before_id && !before_id->is_zero()) {
        CORAL_TRY(before, repo.tree(*before_id));
    }
    auto collect = [&](const Change& change) -> Status {
        out.push_back(change);
        return {};
    };
    auto old = before->entries.begin();
    std::size_t next_dirty = 0;
    auto deleted = [&](const TreeEntry& entry) -> Status {
        if (entry.type == EntryType::kDirectory) {
            CORAL_TRY(auto folder, repo.tree(TreeId::from(entry.content)));
            if (folder->entries.empty())
                out.push_back({ChangeKind::kDeleted, join(path, entry.name), 0, 0, entry.content, {}, true, false});
            return diff_trees(repo, TreeId::from(entry.content), TreeId{}, collect, join(path, entry.name));
        }
        out.push_back({ChangeKind::kDeleted, join(path, entry.name), entry.size, 0, entry.content, {}, false, false});
        return {};
    };
    for (const Row& row : dir.rows) {
        for (; old != before->entries.end() && old->name < row.name; ++old) CORAL_CHECK(deleted(*old));
        const TreeEntry* same = old != before->entries.end() && old->name == row.name ? &*old++ : nullptr;
        std::string here = join(path, row.name);
        bool walked = row.type == EntryType::kDirectory && row.filled && row.dirty;
        const DirSnapshot* below = walked ? dir.dirty[next_dirty++].get() : nullptr;
        if (!same || (same->type == EntryType::kDirectory) != (row.type == EntryType::kDirectory)) {
            if (same) CORAL_CHECK(deleted(*same));
            if (below) {
                if (below->rows.empty()) out.push_back({ChangeKind::kAdded, here, 0, 0, {}, {}, true, false});
                CORAL_CHECK(status_dir(*below, std::nullopt, here, out));
            } else if (row.type == EntryType::kDirectory && row.content) {
                CORAL_TRY(auto folder, repo.tree(TreeId::from(*row.content)));
                if (folder->entries.empty())
                    out.push_back({ChangeKind::kAdded, here, 0, 0, {}, *row.content, true, false});
                CORAL_CHECK(diff_trees(repo, TreeId{}, TreeId::from(*row.content), collect, here));
            } else {
                CORAL_CHECK(status_added(row, here, out));
            }
            continue;
        }
        SegmentId xattr_id = row.xattrs.empty() ? SegmentId{} : SegmentId::from(Sha256::of(row.xattrs));
        if (row.type == EntryType::kDirectory) {
            if (static_cast<std::uint16_t>(row.mode & 0777) != same->mode || xattr_id != same->xattrs) {
                out.push_back({ChangeKind::kModeChanged, here, 0, 0, same->content, {}, true, false});
            }
            if (below)
                CORAL_CHECK(status_dir(*below, TreeId::from(same->content), here, out));
            else
                CORAL_CHECK(diff_trees(repo, TreeId::from(same->content), TreeId::from(row.content.value_or(AnyId{})),
                                       collect, here));
            continue;
        }
        Change change{ChangeKind::kModified, here, same->size, row.size, same->content, {}, false, !row.complete};
        if (row.type == EntryType::kSymlink)
            change.new_content = Sha256::of(as_bytes(row.link));
        else if (is_ready(row))
            change.new_content = *row.content;
        if (row.type != same->type)
            change.kind = ChangeKind::kTypeChanged;
        else if (change.new_content == same->content) {
            bool same_mode =
                row.type == EntryType::kSymlink || static_cast<std::uint16_t>(row.mode & 0777) == same->mode;
            if (same_mode && xattr_id == same->xattrs) continue;
            change.kind = ChangeKind::kModeChanged;
        }
        out.push_back(std::move(change));
    }
    for (; old != before->entries.end(); ++old) CORAL_CHECK(deleted(*old));
    return {};
}

Result<StatusResult> Worktree::status() {
    StatusResult result;
    result.branch = branch_;
    // What a file holds is known once it is ingested; until then it counts as changed. Small files are worth the wait.
    impl_->wait_a_little();
    result.commit = base_commit();
    CORAL_TRY(auto base_tree, impl_->base_tree());
    CORAL_TRY(auto snapshot, impl_->snapshot());
    if (!snapshot->row.filled) {
        if (snapshot->row.content) {
            CORAL_CHECK(diff_trees(repo_, base_tree.value_or(TreeId{}), TreeId::from(*snapshot->row.content),
                                   [&](const Change& change) -> Status {
                                       result.changes.push_back(change);
                                       return {};
                                   }));
        }
    } else if (snapshot->row.dirty || !base_tree) {
        CORAL_CHECK(impl_->status_dir(*snapshot, base_tree, "", result.changes));
    }
    // Sizes of files being written are ahead of their rows.
    std::sort(result.changes.begin(), result.changes.end(),
              [](const Change& a, const Change& b) { return a.path < b.path; });
    return result;
}

}  // namespace coral::repo
