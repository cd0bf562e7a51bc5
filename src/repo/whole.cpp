// SPDX-License-Identifier: Apache-2.0
#include "repo/whole.hpp"

#include <fmt/format.h>

#include <unordered_set>

#include "coral/base/log.hpp"
#include "repo/refs.hpp"
#include "repo/state.hpp"

namespace coral::repo {
namespace {

constexpr std::int64_t kClockErrorNs = 7ll * 24 * 3600 * 1'000'000'000;

class Checker {
  public:
    explicit Checker(Repository& repo) : repo_(repo) {}

    // False when nothing was ever removed: then all is whole.
    Result<bool> begin() {
        bool removed = false;
        CORAL_CHECK(repo_.state().read([&](Database& db) -> Status {
            Statement st = db.prepare("SELECT 1 FROM meta WHERE key = ?");
            CORAL_TRY(removed, st.bind(kRemovedKey).step());
            if (!removed) return {};
            CORAL_TRY(std::string head, read_head(db));
            if (auto id = CommitId::from_hex(head)) named_.insert(*id);
            Statement names = db.prepare(
                "SELECT target FROM refs WHERE annotated = 0 UNION SELECT base_commit FROM worktree WHERE base_commit "
                "IS "
                "NOT NULL");
            while (true) {
                CORAL_TRY(bool row, names.step());
                if (!row) return {};
                named_.insert(names.id<CommitId>(0));
            }
        }));
        return removed;
    }

    Status check(const CommitId& target) {
        CORAL_TRY(bool known, is_named(target));
        if (known) return {};
        std::vector<CommitId> todo{target};
        std::unordered_set<CommitId> done{target};
        while (!todo.empty()) {
            CommitId id = todo.back();
            todo.pop_back();
            CORAL_TRY(auto commit, repo_.commit(id));
            CORAL_CHECK(check(commit->tree));
            for (const CommitId& parent : commit->parents) {
                if (!named_.contains(parent) && done.insert(parent).second) todo.push_back(parent);
            }
        }
        return {};
    }

    Status check(const TreeId& top) {
        std::vector<TreeId> todo{top};
        while (!todo.empty()) {
            TreeId id = todo.back();
            todo.pop_back();
            if (!trees_.insert(id).second) continue;
            // Past the cache, which may remember what is no more.
            CORAL_TRY(Buffer raw, repo_.store().object(store::Kind::kTree, AnyId::from(id)));
            CORAL_TRY(Tree tree, decode_tree(raw));
            for (const TreeEntry& entry : tree.entries) {
                if (entry.type == EntryType::kDirectory) todo.push_back(TreeId::from(entry.content));
                if (entry.type == EntryType::kFile) CORAL_CHECK(check(store::Kind::kFile, entry.content));
                if (!entry.xattrs.is_zero()) CORAL_CHECK(check(store::Kind::kSegment, AnyId::from(entry.xattrs)));
            }
        }
        return {};
    }

    bool is_named_tree(const TreeId& tree) {
        for (const CommitId& id : named_) {
            auto commit = repo_.commit(id);
            if (commit && (*commit)->tree == tree) return true;
        }
        return false;
    }

  private:
    Status check(store::Kind kind, const AnyId& id) {
        if (!known_.insert(id).second) return {};
        CORAL_TRY(bool there, repo_.store().contains(kind, id));
        if (there) return {};
        return make_error(Errc::kNotFound, fmt::format("{} {} is not there", store::kind_name(kind), id.hex()));
    }

    // Found on the way back from the names; far behind the commit's own time nobody looks.
    Result<bool> is_named(const CommitId& target) {
        if (named_.contains(target)) return true;
        CORAL_TRY(auto commit, repo_.commit(target));
        std::int64_t oldest = commit->committer.time_ns - kClockErrorNs;
        bool found = false;
        CORAL_CHECK(
            repo_.walk({named_.begin(), named_.end()}, [&](const CommitId& id, const Commit& at) -> Result<bool> {
                found = found || id == target;
                return !found && at.committer.time_ns >= oldest;
            }));
        return found;
    }

    Repository& repo_;
    std::unordered_set<CommitId> named_;
    std::unordered_set<TreeId> trees_;
    std::unordered_set<AnyId> known_;
};

Status explained(Status checked, std::string_view what, const std::string& id) {
    if (checked || checked.error().code != Errc::kNotFound) return checked;
    return make_error(Errc::kNotFound,
                      fmt::format("{} {}: `coral gc` has removed a part of it, for no branch or tag led to it: {}",
                                  what, id, checked.error().message));
}

}  // namespace

Status require_whole(Repository& repo, const CommitId& commit) {
    Checker checker(repo);
    CORAL_TRY(bool needed, checker.begin());
    return needed ? explained(checker.check(commit), "commit", commit.hex()) : Status();
}

Status require_whole(Repository& repo, const TreeId& tree) {
    if (tree.is_zero()) return {};
    Checker checker(repo);
    CORAL_TRY(bool needed, checker.begin());
    if (!needed || checker.is_named_tree(tree)) return {};
    return explained(checker.check(tree), "tree", tree.hex());
}

}  // namespace coral::repo
