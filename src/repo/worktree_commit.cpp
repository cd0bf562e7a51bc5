// SPDX-License-Identifier: Apache-2.0
// Commit: looks only into directories that are marked dirty; the rest is its tree id.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "coral/base/hash.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {

namespace {

constexpr auto kReleaseGrace = std::chrono::seconds(2);  // between close(2) and the kernel's RELEASE
// The same for who does not mind open files: a close that is under way counts, a writer that stays is not waited for.
constexpr auto kShortGrace = std::chrono::milliseconds(250);

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

Result<std::unique_ptr<DirSnapshot>> Worktree::Impl::snapshot() {
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

Result<std::optional<TreeId>> Worktree::Impl::tree_of(const std::optional<CommitId>& commit_id) {
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
    std::optional<TreeEntry> committed;
    if (before && before->type == EntryType::kFile) committed = *before;
    // Flushed, perhaps by a fork, but still open: what it holds now is its writer's affair. The last commit's stays.
    if (open) return committed;
    TreeEntry entry;
    if (ready) {
        entry.content = *row.content;
        entry.size = row.size;
    } else {
        // Its last complete content stays. One that never had any may be made anew in the place of one that had: a
        // commit beside the program that saves so must not be without the name. Only what is new altogether is left
        // out.
        std::optional<AnyId> earlier = row.content ? row.content : row.previous;
        if (!earlier) return committed;
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
            CORAL_TRY(auto built, build_file(row, old, join_names(path, row.name), may_be_open));
            if (!built) continue;
            entry = std::move(*built);
        } else if (row.type == EntryType::kSymlink) {
            entry.link = row.link;
            entry.size = row.link.size();
            entry.content = Sha256::of(as_bytes(row.link));
        } else if (row.filled && row.dirty) {
            std::optional<TreeId> below;
            if (old && old->type == EntryType::kDirectory) below = TreeId::from(old->content);
            CORAL_TRY(TreeId id, build(*dir.dirty[next_dirty++], below, join_names(path, row.name), may_be_open));
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

// Waits until nothing is being written (or the grace has passed), and for ingest of what is complete. A writer may take
// for ever, and what has to end meanwhile would wait with us.
Status Worktree::Impl::wait_complete(const CommitOptions& options) {
    auto give_up = std::chrono::steady_clock::now() + (options.allow_open ? kShortGrace : kReleaseGrace);
    while (true) {
        CORAL_CHECK(tree.wait_ingested(options.give_up));
        if (options.give_up && options.give_up())
            return make_error(Errc::kBusy, fmt::format("nothing was committed on {}: its daemon ends, or who asked for "
                                                       "the commit has gone",
                                                       tree.branch_));
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
        if (!open && !handles) return {};
        // A file that a crash cut off has no handle: nobody will ever complete it by closing.
        if (options.wait && handles) give_up = std::chrono::steady_clock::now() + kReleaseGrace;
        if (std::chrono::steady_clock::now() > give_up) return {};  // build() names the file
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        retry_lingering();  // what a mapping, or the kernel's own reference to it, kept open a moment ago
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

    Result<TreeId> graft(const TreeId& base, const TreeId& full, const std::string& path) {
        return graft_below(base, full, path, path);
    }

  private:
    // `rest` is what of `path` lies below these two trees.
    Result<TreeId> graft_below(const TreeId& base, const TreeId& full, std::string_view rest, const std::string& path) {
        std::size_t slash = rest.find('/');
        std::string name(rest.substr(0, slash));
        CORAL_TRY(Tree out, load(base));
        CORAL_TRY(Tree from, load(full));
        const TreeEntry* wanted = from.find(name);
        auto at = std::lower_bound(out.entries.begin(), out.entries.end(), name,
                                   [](const TreeEntry& e, const std::string& n) { return e.name < n; });
        bool there = at != out.entries.end() && at->name == name;
        if (slash == std::string_view::npos || !wanted || wanted->type != EntryType::kDirectory) {
            if (!wanted && !there) return make_error(Errc::kNotFound, fmt::format("{}: matches no file", path));
            if (!wanted)
                out.entries.erase(at);
            else if (there)
                *at = *wanted;
            else
                out.entries.insert(at, *wanted);
        } else {
            TreeId below = there && at->type == EntryType::kDirectory ? TreeId::from(at->content) : TreeId{};
            CORAL_TRY(TreeId grafted, graft_below(below, TreeId::from(wanted->content), rest.substr(slash + 1), path));
            TreeEntry entry = *wanted;
            entry.content = AnyId::from(grafted);
            if (there)
                *at = entry;
            else
                out.entries.insert(at, entry);
        }
        return repo_.put_tree(out);
    }

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

// The tree to commit: all of the snapshot, or the last commit with `options.paths` as they are now.
Result<TreeId> Worktree::Impl::tree_of_commit(const CommitOptions& options, DirSnapshot& snapshot,
                                              const std::optional<TreeId>& base_tree) {
    bool whole = options.paths.empty();
    // With paths, what lies outside them may be open: it is not part of this commit.
    auto may_be_open = [&](const std::string& path) {
        return options.allow_open ||
               (!whole && std::none_of(options.paths.begin(), options.paths.end(),
                                       [&](const std::string& wanted) { return covers(wanted, path); }));
    };
    CORAL_TRY(TreeId full, build(snapshot, base_tree, "", may_be_open));
    if (whole) return full;
    Grafter grafter(repo);
    TreeId grafted = base_tree.value_or(TreeId{});
    for (const std::string& path : options.paths) {
        if (path.empty()) {
            grafted = full;
            continue;
        }
        CORAL_TRY(grafted, grafter.graft(grafted, full, path));
    }
    return grafted;
}

Result<CommitId> Worktree::Impl::put_commit(const CommitOptions& options, const TreeId& tree_id,
                                            const std::optional<CommitId>& parent) {
    Commit commit;
    commit.tree = tree_id;
    if (parent) commit.parents.push_back(*parent);
    CORAL_TRY(commit.committer, repo.identity());
    if (options.time_ns) commit.committer.time_ns = *options.time_ns;
    commit.author = options.author.value_or(commit.committer);
    commit.meta = options.meta;
    std::sort(commit.meta.begin(), commit.meta.end());
    commit.message = options.message;
    return repo.put_commit(commit);
}

// The ref and the worktree's rows, in one transaction.
Status Worktree::Impl::move_branch(const CommitOptions& options, const DirSnapshot& snapshot,
                                   const std::optional<CommitId>& parent, const CommitId& commit) {
    RefUpdate update;
    update.name = "heads/" + tree.branch_;
    update.expected = parent ? AnyId::from(*parent) : AnyId{};
    update.target = AnyId::from(commit);
    update.fresh = true;
    update.reason = fmt::format("commit{}: {}", parent ? "" : " (initial)", first_line(options.message));
    CORAL_CHECK(repo.update_refs({update}, [&](Database& db) -> Status {
        CORAL_CHECK(db.prepare("UPDATE worktree SET base_commit=? WHERE id=?").bind(commit).bind(row_id).run());
        if (!options.paths.empty() || options.allow_open) return {};
        bool clean = false;
        return mark_clean(db, snapshot, clean);
    }));
    {
        std::lock_guard ops(ops_mutex);
        base = commit;
    }
    ++changes;
    return {};
}

// update_refs has just synced the packs: a good moment to let staging files go.
void Worktree::Impl::reap_soon() {
    {
        std::lock_guard lock(queue_mutex);
        if (!settled.empty()) settled_bytes = std::max<std::uint64_t>(settled_bytes, std::uint64_t{1} << 40);
    }
    queue_wake.notify_all();
}

Status Worktree::Impl::count_changes(const std::optional<TreeId>& before, const TreeId& after, CommitResult& result) {
    return diff_trees(repo, before.value_or(TreeId{}), after, [&](const Change& change) -> Status {
        ++result.changed;
        if (change.kind == ChangeKind::kAdded) ++result.added;
        if (change.kind == ChangeKind::kDeleted) ++result.deleted;
        return {};
    });
}

// The commit that this very request has made before, if it has.
Result<std::optional<CommitResult>> Worktree::Impl::made_before(const CommitOptions& options) {
    std::optional<CommitId> last = tree.base_commit();
    if (!last || !options.time_ns) return std::optional<CommitResult>();
    CORAL_TRY(auto commit, repo.commit(*last));
    if (commit->committer.time_ns != *options.time_ns || commit->message != options.message)
        return std::optional<CommitResult>();
    CommitResult result;
    result.id = *last;
    result.branch = tree.branch_;
    std::optional<TreeId> before;
    if (!commit->parents.empty()) {
        CORAL_TRY(auto parent, repo.commit(commit->parents.front()));
        before = parent->tree;
    }
    CORAL_CHECK(count_changes(before, commit->tree, result));
    return std::optional<CommitResult>(result);
}

Result<CommitResult> Worktree::commit(const CommitOptions& options) {
    if (options.again) {
        CORAL_TRY(auto before, impl_->made_before(options));
        if (before) return *before;
    }
    impl_->retry_failed();
    CORAL_CHECK(impl_->wait_complete(options));  // without a session: ingest needs one
    CORAL_TRY(store::Session session, repo_.store().session());
    // Read once: of the parent that the branch must still have at the end, or what another commit brings goes again.
    const std::optional<CommitId> parent = base_commit();
    CORAL_TRY(auto base_tree, impl_->tree_of(parent));
    CORAL_TRY(auto snapshot, impl_->snapshot());
    CORAL_TRY(TreeId tree, impl_->tree_of_commit(options, *snapshot, base_tree));
    CommitResult result;
    result.branch = branch_;
    CORAL_CHECK(impl_->count_changes(base_tree, tree, result));
    if (base_tree ? *base_tree == tree : result.changed == 0) {
        return make_error(Errc::kConflict, fmt::format("nothing to commit on {}", branch_));
    }
    CORAL_TRY(result.id, impl_->put_commit(options, tree, parent));
    CORAL_CHECK(impl_->move_branch(options, *snapshot, parent, result.id));
    impl_->reap_soon();
    return result;
}

}  // namespace coral::repo
