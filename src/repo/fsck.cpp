// SPDX-License-Identifier: Apache-2.0
// Is everything there that names lead to? First the store looks at its own bytes, then history and worktrees are
// followed from every root; each object is read (and so hashed again) once.
#include <fmt/format.h>

#include <unordered_map>
#include <unordered_set>

#include "coral/repo/repository.hpp"
#include "repo/state.hpp"

namespace coral::repo {
namespace {

using Severity = store::Problem::Severity;

// Segments known to be there, forgotten when there are this many: saves most look-ups without an entry for each of 10
// M.
constexpr std::size_t kKnownSegments = 1u << 20;

struct Root {
    std::string who;  // "branch main", "reflog of heads/main"
    AnyId target;
    bool annotated = false;
    bool maybe_tag = false;  // a reflog does not say whether it was a tag object
};

struct StagedRow {
    std::string who;
    Uuid worktree, staging;
    std::optional<FileId> ingested;  // content that holds the staging file's bytes
    bool synced = false;
    std::string boot;
};

struct NamedFile {
    std::string who;
    FileId file;
    bool may_lack = false;  // a staging file holds what counts, and the packs with this one may not have been synced
};

// Everything that state.db leads to, read in one go: no transaction stays open while the store is read.
struct Roots {
    std::vector<Root> commits;
    std::vector<std::pair<std::string, TreeId>> trees;
    std::vector<NamedFile> files;
    std::vector<StagedRow> staged;
    std::vector<store::Problem> problems;
};

class Collector {
  public:
    Collector(Database& db, Roots& roots) : db_(db), roots_(roots) {}

    Status run() {
        CORAL_CHECK(check_database());
        CORAL_CHECK(refs());
        CORAL_CHECK(head());
        CORAL_CHECK(reflog());
        CORAL_CHECK(worktrees());
        CORAL_CHECK(links());
        return inodes();
    }

  private:
    void problem(Severity severity, std::string what) { roots_.problems.push_back({severity, std::move(what), false}); }

    Status check_database() {
        Statement st = db_.prepare("PRAGMA integrity_check(20)");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            if (st.text(0) != "ok") problem(Severity::kDamaged, fmt::format("{}: {}", db_.path(), st.text(0)));
        }
    }

    Status refs() {
        Statement st = db_.prepare(
            "SELECT r.name, r.target, r.annotated, w.id FROM refs r LEFT JOIN worktree w ON r.name = 'heads/' || "
            "w.branch");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            std::string name = st.text(0);
            if (name.starts_with("heads/") && st.is_null(3)) {
                problem(Severity::kDamaged, fmt::format("{}: the branch has no worktree", name));
            }
            roots_.commits.push_back({name, st.id<AnyId>(1), st.integer(2) != 0, false});
        }
    }

    Status head() {
        Statement st = db_.prepare(
            "SELECT m.value, w.id FROM meta m LEFT JOIN worktree w ON m.value = 'heads/' || w.branch WHERE m.key = "
            "'head'");
        CORAL_TRY(bool row, st.step());
        std::string value = row ? st.text(0) : std::string();
        if (auto id = CommitId::from_hex(value)) {
            roots_.commits.push_back({"HEAD", AnyId::from(*id), false, false});
        } else if (!row || st.is_null(1)) {
            problem(Severity::kDamaged,
                    fmt::format("HEAD: points at '{}', which is no branch; set it with `coral checkout`", value));
        }
        return {};
    }

    Status reflog() {
        Statement st = db_.prepare(
            "SELECT DISTINCT ref, target FROM (SELECT ref, new_target AS target FROM reflog UNION "
            "SELECT ref, old_target FROM reflog) WHERE target IS NOT NULL");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            roots_.commits.push_back({fmt::format("reflog of {}", st.text(0)), st.id<AnyId>(1), false, true});
        }
    }

    Status worktrees() {
        Statement st = db_.prepare(
            "SELECT w.branch, w.base_commit, i.ino FROM worktree w LEFT JOIN inode i ON i.ino = w.root AND i.worktree "
            "= w.id");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            std::string who = fmt::format("worktree of {}", st.text(0));
            if (!st.is_null(1)) roots_.commits.push_back({who, st.id<AnyId>(1), false, false});
            if (st.is_null(2)) problem(Severity::kDamaged, fmt::format("{}: its root directory is missing", who));
        }
    }

    Status links() {
        Statement st = db_.prepare(
            "SELECT w.branch, i.name, l.content FROM overlay_link l JOIN inode i ON i.staging = l.staging "
            "LEFT JOIN worktree w ON w.id = i.worktree");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            std::string who = fmt::format("worktree of {}: '{}'", st.text(0), as_text(st.blob(1)));
            roots_.files.push_back({who, st.id<FileId>(2), false});
        }
    }

    Status inodes() {
        Statement st = db_.prepare(
            "SELECT w.branch, i.name, i.type, i.content, i.overlay, i.previous, i.staging, i.ingested, "
            "w.uuid, i.synced, i.boot FROM inode i "
            "LEFT JOIN worktree w ON w.id = i.worktree "
            "WHERE i.content IS NOT NULL OR i.overlay IS NOT NULL OR i.previous IS NOT NULL OR i.staging IS NOT NULL");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            std::string who = fmt::format("worktree of {}: '{}'", st.text(0), as_text(st.blob(1)));
            bool directory = st.integer(2) == static_cast<int>(EntryType::kDirectory);
            bool ingested = st.integer(7) != 0;
            if (directory && !st.is_null(3)) roots_.trees.emplace_back(who, st.id<TreeId>(3));
            for (int column : {3, 4, 5}) {
                bool may_lack = !st.is_null(6) && (column != 4 || ingested);
                if (!directory && !st.is_null(column)) roots_.files.push_back({who, st.id<FileId>(column), may_lack});
            }
            if (st.is_null(6)) continue;
            StagedRow staged{who, st.uuid(8), st.uuid(6), std::nullopt, st.integer(9) != 0, st.text(10)};
            if (ingested && !st.is_null(3)) staged.ingested = st.id<FileId>(3);
            roots_.staged.push_back(std::move(staged));
        }
    }

    Database& db_;
    Roots& roots_;
};

class Follower {
  public:
    Follower(Repository& repo, std::vector<store::Problem>& problems) : repo_(repo), problems_(problems) {}

    Status run(const Roots& roots) {
        for (const Root& root : roots.commits) CORAL_CHECK(from_root(root));
        for (const auto& [who, tree] : roots.trees) add_tree(who, tree);
        CORAL_CHECK(drain());
        for (const NamedFile& named : roots.files) {
            if (named.may_lack) {
                CORAL_TRY(bool stored, repo_.store().contains(store::Kind::kFile, AnyId::from(named.file)));
                if (!stored) continue;
            }
            CORAL_CHECK(check_file(named.who, named.file, std::nullopt));
        }
        for (const StagedRow& row : roots.staged) CORAL_CHECK(check_staged(row));
        return {};
    }

  private:
    Status check_staged(const StagedRow& row) {
        std::string path = fmt::format("{}/staging/{}/{}", repo_.dir(), row.worktree.text(), row.staging.text());
        if (repo_.os().exists(path)) return {};
        if (row.ingested) {
            CORAL_TRY(bool stored, repo_.store().contains(store::Kind::kFile, AnyId::from(*row.ingested)));
            if (stored) return {};
        }
        // The worktree's owner may have finished with the file since the rows were read.
        bool still = false;
        CORAL_CHECK(repo_.state().read([&](Database& db) -> Status {
            Statement st = db.prepare("SELECT 1 FROM inode WHERE staging = ?");
            CORAL_TRY(still, st.bind(row.staging).step());
            return {};
        }));
        if (!still) return {};
        // Never synced before the machine stopped: it was promised to nobody, and the worktree's next owner says so.
        bool promised = row.synced || row.boot == repo_.os().boot_id();
        report(promised ? Severity::kLost : Severity::kWarning,
               fmt::format("{}: its staging file {} is missing", row.who, path));
        return {};
    }

    void report(Severity severity, std::string what) { problems_.push_back({severity, std::move(what), false}); }

    // Says in one way what could not be read; content that was dropped on purpose is no problem. An error that tells
    // nothing of the object (no permission, out of memory) ends the check instead of being taken for damage.
    Status unreadable(const std::string& who, std::string_view kind, const AnyId& id, const Error& error) {
        if (error.code == Errc::kNoData) return {};
        if (error.code == Errc::kNotFound) {
            report(Severity::kLost, fmt::format("{}: {} {} is missing", who, kind, id.hex()));
            return {};
        }
        if (error.code == Errc::kCorrupt || error.code == Errc::kIo || error.code == Errc::kUnsupported) {
            report(Severity::kDamaged, fmt::format("{}: {} {} cannot be read: {}", who, kind, id.hex(), error.message));
            return {};
        }
        return error;
    }

    Status from_root(const Root& root) {
        bool tag = root.annotated;
        if (root.maybe_tag) {
            CORAL_TRY(tag, repo_.store().contains(store::Kind::kTag, root.target));
        }
        if (!tag) {
            add_commit(root.who, CommitId::from(root.target));
            return {};
        }
        if (!tags_.insert(root.target).second) return {};
        auto raw = repo_.store().object(store::Kind::kTag, root.target);
        if (!raw) return unreadable(root.who, "tag", root.target, raw.error());
        auto decoded = decode_tag(*raw);
        if (!decoded) return unreadable(root.who, "tag", root.target, decoded.error());
        add_commit(fmt::format("tag {}", root.target.hex()), decoded->target);
        return {};
    }

    void add_commit(std::string who, const CommitId& id) {
        if (commits_.insert(id).second) commit_queue_.emplace_back(std::move(who), id);
    }
    void add_tree(std::string who, const TreeId& id) {
        if (trees_.insert(id).second) tree_queue_.emplace_back(std::move(who), id);
    }

    Status drain() {
        while (!commit_queue_.empty() || !tree_queue_.empty()) {
            // Trees first: the queue of commits holds little, that of trees one commit's worth.
            if (!tree_queue_.empty()) {
                auto [who, id] = std::move(tree_queue_.back());
                tree_queue_.pop_back();
                CORAL_CHECK(check_tree_object(who, id));
                continue;
            }
            auto [who, id] = std::move(commit_queue_.back());
            commit_queue_.pop_back();
            CORAL_CHECK(check_commit_object(who, id));
        }
        return {};
    }

    // Past the caches: what lies on the disk is read, verified and decoded.
    Status check_commit_object(const std::string& who, const CommitId& id) {
        auto raw = repo_.store().object(store::Kind::kCommit, AnyId::from(id));
        if (!raw) return unreadable(who, "commit", AnyId::from(id), raw.error());
        auto commit = decode_commit(*raw);
        if (!commit) return unreadable(who, "commit", AnyId::from(id), commit.error());
        std::string me = fmt::format("commit {}", id.hex());
        add_tree(me, commit->tree);
        for (const CommitId& parent : commit->parents) add_commit(me, parent);
        return {};
    }

    Status check_tree_object(const std::string& who, const TreeId& id) {
        auto raw = repo_.store().object(store::Kind::kTree, AnyId::from(id));
        if (!raw) return unreadable(who, "tree", AnyId::from(id), raw.error());
        auto tree = decode_tree(*raw);
        if (!tree) return unreadable(who, "tree", AnyId::from(id), tree.error());
        std::string me = fmt::format("tree {}", id.hex());
        for (const TreeEntry& e : tree->entries) {
            std::string named = fmt::format("{}: '{}'", me, e.name);
            if (!e.xattrs.is_zero()) CORAL_CHECK(check_segment(named, e.xattrs));
            if (e.type == EntryType::kDirectory) add_tree(named, TreeId::from(e.content));
            if (e.type == EntryType::kFile) CORAL_CHECK(check_file(named, FileId::from(e.content), e.size));
        }
        return {};
    }

    Status check_file(const std::string& who, const FileId& id, std::optional<std::uint64_t> size) {
        auto [at, fresh] = files_.try_emplace(id, 0);
        if (fresh) {
            auto record = repo_.store().file(id);
            // Whoever stores it again meanwhile, because its first record has lost something, may cut it differently:
            // asked for all of it, the store looks for what is new.
            std::size_t before = problems_.size();
            if (record) CORAL_CHECK(check_segments(who, **record));
            if (record && problems_.size() != before) {
                CORAL_TRY(bool whole, repo_.store().contains(store::Kind::kFile, AnyId::from(id)));
                if (whole) {
                    problems_.resize(before);
                    record = repo_.store().file(id);
                }
            }
            if (!record) {
                files_.erase(at);  // told again for everyone who needs it
                return unreadable(who, "file", AnyId::from(id), record.error());
            }
            at->second = (*record)->size;
        }
        if (size && *size != at->second) {
            report(Severity::kDamaged,
                   fmt::format("{}: is {} bytes long, but file {} has {}", who, *size, id.hex(), at->second));
        }
        return {};
    }

    Status check_segments(const std::string& who, const store::FileRecord& record) {
        std::string me = fmt::format("file {} ({})", record.id.hex(), who);
        for (const SegmentId& segment : record.segments) CORAL_CHECK(check_segment(me, segment));
        return {};
    }

    Status check_segment(const std::string& who, const SegmentId& id) {
        if (segments_.contains(id)) return {};
        auto there = repo_.store().contains(store::Kind::kSegment, AnyId::from(id));
        if (!there) return unreadable(who, "segment", AnyId::from(id), there.error());
        if (!*there) {
            report(Severity::kLost, fmt::format("{}: segment {} is missing", who, id.hex()));
            return {};
        }
        if (segments_.size() >= kKnownSegments) segments_.clear();
        segments_.insert(id);
        return {};
    }

    Repository& repo_;
    std::vector<store::Problem>& problems_;
    std::unordered_set<AnyId> tags_;
    std::unordered_set<CommitId> commits_;
    std::unordered_set<TreeId> trees_;
    std::unordered_map<FileId, std::uint64_t> files_;  // and their sizes
    std::unordered_set<SegmentId> segments_;
    std::vector<std::pair<std::string, CommitId>> commit_queue_;
    std::vector<std::pair<std::string, TreeId>> tree_queue_;
};

}  // namespace

Result<std::vector<store::Problem>> Repository::fsck(
    bool full, const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    CORAL_TRY(store::Session session, store_->session());
    CORAL_TRY(std::vector<store::Problem> problems, store_->verify(full, progress));
    // Whoever is reached is asked again below whether all of it is there.
    std::erase_if(problems, [](const store::Problem& problem) { return problem.if_used; });
    Roots roots;
    CORAL_CHECK(state_->read([&](Database& db) { return Collector(db, roots).run(); }));
    problems.insert(problems.end(), roots.problems.begin(), roots.problems.end());
    CORAL_CHECK(Follower(*this, problems).run(roots));
    return problems;
}

}  // namespace coral::repo
