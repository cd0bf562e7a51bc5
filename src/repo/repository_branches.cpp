// SPDX-License-Identifier: Apache-2.0
// Branches (a ref and a worktree row under one name) and where HEAD points.
#include <fmt/format.h>

#include "coral/base/log.hpp"
#include "repo/names.hpp"
#include "repo/overlay_rows.hpp"
#include "repo/refs.hpp"
#include "repo/state.hpp"
#include "repo/whole.hpp"
#include "repo/worktree_lock.hpp"

namespace coral::repo {
namespace {

constexpr std::string_view kHeads = "heads/";
// An owner that has just been asked to leave may still be on its way out; others look whether the lock is free.
constexpr auto kOwnerLeaves = std::chrono::seconds(2);

std::string ref_of(const std::string& branch) {
    return std::string(kHeads) + branch;
}

Error no_branch(const std::string& name) {
    return make_error(Errc::kNotFound, fmt::format("{}: no such branch; `coral branch` lists them", name));
}

Error read_only_error(const std::string& dir) {
    return make_error(Errc::kReadOnly, fmt::format("{}: the repository is open read-only", dir));
}

Result<bool> branch_exists(Database& db, const std::string& name) {
    Statement st = db.prepare("SELECT 1 FROM worktree WHERE branch = ?");
    return st.bind(name).step();
}

Branch read_branch(const Statement& st) {
    Branch branch{st.text(0), std::nullopt, st.uuid(1)};
    if (!st.is_null(2)) branch.commit = st.id<CommitId>(2);
    return branch;
}

// Rows of the branch's worktree; `staging` gets the files that nothing names any more.
Status delete_rows(Database& db, const std::string& name, std::vector<Uuid>& staging) {
    {
        Statement st = db.prepare(
            "SELECT i.staging FROM inode i JOIN worktree w ON i.worktree = w.id WHERE w.branch = ? AND i.staging IS "
            "NOT NULL");
        st.bind(name);
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) break;
            staging.push_back(st.uuid(0));
        }
    }
    for (const Uuid& uuid : staging) {
        CORAL_CHECK(forget_units(db, uuid));
    }
    CORAL_CHECK(
        db.prepare("DELETE FROM inode WHERE worktree = (SELECT id FROM worktree WHERE branch = ?)").bind(name).run());
    return db.prepare("DELETE FROM worktree WHERE branch = ?").bind(name).run();
}

// A branch that nobody owns and whose name stays what it is, for as long as this lives.
struct BranchHold {
    Branch branch;
    std::unique_ptr<File> worktree_lock;
    NamesLock names_lock;

    static Result<BranchHold> take(Repository& repo, const std::string& name);
};

Result<BranchHold> BranchHold::take(Repository& repo, const std::string& name) {
    CORAL_TRY(Branch found, repo.branch(name));
    CORAL_TRY(auto worktree_lock, lock_worktree(repo, found.worktree, kOwnerLeaves));
    if (!worktree_lock) {
        return make_error(Errc::kBusy,
                          fmt::format("branch {}: another process owns it (a mount of {}?); unmount that, or wait for "
                                      "the command to end",
                                      name, repo.dir()));
    }
    // In this order, as in a commit: the owner takes the names' lock.
    CORAL_TRY(NamesLock names, NamesLock::take(repo.os(), repo.dir()));
    CORAL_TRY(Branch branch, repo.branch(name));
    if (branch.worktree != found.worktree) {
        return make_error(Errc::kConflict,
                          fmt::format("branch {}: another one has just got this name; look and try again", name));
    }
    return BranchHold{std::move(branch), std::move(worktree_lock), std::move(names)};
}

}  // namespace

Result<std::vector<Branch>> Repository::branches() {
    std::vector<Branch> found;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        Statement st = db.prepare(
            "SELECT w.branch, w.uuid, r.target FROM worktree w LEFT JOIN refs r ON r.name = 'heads/' || w.branch "
            "ORDER BY w.branch");
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            found.push_back(read_branch(st));
        }
    }));
    return found;
}

Result<Branch> Repository::branch(const std::string& name) {
    std::optional<Branch> found;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        Statement st = db.prepare(
            "SELECT w.branch, w.uuid, r.target FROM worktree w LEFT JOIN refs r ON r.name = 'heads/' || w.branch "
            "WHERE w.branch = ?");
        CORAL_TRY(bool row, st.bind(name).step());
        if (row) found = read_branch(st);
        return {};
    }));
    if (!found) return no_branch(name);
    return *found;
}

Status Repository::create_branch(const std::string& name, const std::optional<CommitId>& commit,
                                 const std::string& reason) {
    if (read_only_) return read_only_error(dir_);
    if (!valid_branch_name(name)) return make_error(Errc::kInvalid, fmt::format("'{}': not a valid branch name", name));
    CORAL_TRY(store::Session session, store_->session());
    CORAL_TRY(NamesLock lock, NamesLock::take(os_, dir_));
    auto check = [&](Database& db) -> Status {
        CORAL_TRY(bool there, branch_exists(db, name));
        if (there) return make_error(Errc::kExists, fmt::format("{}: a branch of this name exists already", name));
        return check_folders(db, std::string(kHeads), name, {});
    };
    CORAL_CHECK(state_->read(check));
    if (!commit) {
        return state_->write_durably([&](Database& db) -> Status {
            CORAL_CHECK(check(db));
            return insert_branch(db, NewBranch{name, Uuid::random(), std::nullopt, std::nullopt}, process_owner());
        });
    }
    // The worktree's rows come with the ref (RefMove).
    std::vector<RefUpdate> updates{{ref_of(name), AnyId{}, AnyId::from(*commit), false, reason, false}};
    CORAL_CHECK(check_whole(updates));
    return RefMove(*this, updates, {}).run({});
}

Status Repository::delete_branch(const std::string& name, const std::string& reason) {
    if (read_only_) return read_only_error(dir_);
    auto check_head = [&]() -> Status {
        CORAL_TRY(Head head, this->head());
        if (head.branch != name) return {};
        return make_error(Errc::kBusy,
                          fmt::format("{}: HEAD is on this branch; `coral checkout` another one first", name));
    };
    CORAL_CHECK(check_head());  // before any wait
    CORAL_TRY(BranchHold hold, BranchHold::take(*this, name));
    CORAL_CHECK(check_head());
    const Branch& branch = hold.branch;
    std::vector<Uuid> staging;
    auto rows = [&](Database& db) { return delete_rows(db, name, staging); };
    if (branch.commit) {
        std::vector<RefUpdate> updates{{ref_of(name), AnyId::from(*branch.commit), AnyId{}, false, reason}};
        CORAL_CHECK(RefMove(*this, updates, {name}).run(rows));
    } else {
        CORAL_CHECK(state_->write_durably(rows));
    }
    for (const Uuid& uuid : staging) {
        auto removed = os_.remove(fmt::format("{}/staging/{}/{}", dir_, branch.worktree.text(), uuid.text()));
        // No row names it: what could not be removed now is only space, and cleared at the next start.
        if (!removed && removed.error().code != Errc::kNotFound) log_warn("{}", removed.error().message);
    }
    (void)os_.remove_dir(fmt::format("{}/staging/{}", dir_, branch.worktree.text()));  // there if ever it was opened
    remove_worktree_lock(*this, branch.worktree);
    return {};
}

Status Repository::rename_branch(const std::string& from, const std::string& to) {
    if (read_only_) return read_only_error(dir_);
    if (!valid_branch_name(to)) return make_error(Errc::kInvalid, fmt::format("'{}': not a valid branch name", to));
    // An owner would go on committing to the old name.
    CORAL_TRY(BranchHold hold, BranchHold::take(*this, from));
    const Branch& branch = hold.branch;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        CORAL_TRY(bool there, branch_exists(db, to));
        if (there) return make_error(Errc::kExists, fmt::format("{}: a branch of this name exists already", to));
        return check_folders(db, std::string(kHeads), to, {from});
    }));
    auto rows = [&](Database& db) -> Status {
        CORAL_CHECK(db.prepare("UPDATE worktree SET branch = ? WHERE branch = ?").bind(to).bind(from).run());
        // The branch's past goes with it, as in git; that it left its old name is told by the new name's first line.
        CORAL_CHECK(db.prepare("DELETE FROM reflog WHERE ref = ? AND new_target IS NULL").bind(ref_of(from)).run());
        CORAL_CHECK(db.prepare("UPDATE reflog SET ref = ? WHERE ref = ?").bind(ref_of(to)).bind(ref_of(from)).run());
        CORAL_TRY(std::string head, read_head(db));
        return head == ref_of(from) ? write_head(db, ref_of(to)) : Status();
    };
    if (!branch.commit) return state_->write_durably(rows);
    std::string reason = fmt::format("branch: renamed {} to {}", from, to);
    AnyId target = AnyId::from(*branch.commit);
    std::vector<RefUpdate> updates{{ref_of(from), target, AnyId{}, false, reason},
                                   {ref_of(to), AnyId{}, target, false, reason}};
    return RefMove(*this, updates, {from}).run(rows);
}

namespace {

// Moves HEAD and logs it. `value` as in meta; `target` is the commit that it then means (zero on an unborn branch).
Status move_head(Repository& repo, const std::string& value, const std::string& to, const AnyId& target) {
    CORAL_TRY(Head old, repo.head());
    CORAL_TRY(Person actor, repo.identity());
    std::string from = old.branch.empty() ? old.commit.value_or(CommitId{}).hex() : old.branch;
    LogLine line{"HEAD",
                 AnyId::from(old.commit.value_or(CommitId{})),
                 target,
                 fmt::format("{} <{}>", actor.name, actor.mail),
                 fmt::format("checkout: moving from {} to {}", from, to),
                 actor.time_ns};
    return repo.state().write_durably([&](Database& db) -> Status {
        CORAL_CHECK(write_head(db, value));
        return log_ref(db, line);
    });
}

}  // namespace

Status Repository::set_head_branch(const std::string& branch) {
    if (read_only_) return read_only_error(dir_);
    CORAL_TRY(NamesLock lock, NamesLock::take(os_, dir_));
    CORAL_TRY(Branch found, this->branch(branch));
    return move_head(*this, ref_of(branch), branch, AnyId::from(found.commit.value_or(CommitId{})));
}

Status Repository::set_head_detached(const CommitId& commit) {
    if (read_only_) return read_only_error(dir_);
    CORAL_TRY(store::Session session, store_->session());
    CORAL_TRY(NamesLock lock, NamesLock::take(os_, dir_));
    CORAL_TRY(bool there, store_->contains(store::Kind::kCommit, AnyId::from(commit)));
    if (!there)
        return make_error(Errc::kNotFound, fmt::format("{}: there is no such commit in the repository", commit.hex()));
    CORAL_CHECK(require_whole(*this, commit));
    return move_head(*this, commit.hex(), commit.hex(), AnyId::from(commit));
}

}  // namespace coral::repo
