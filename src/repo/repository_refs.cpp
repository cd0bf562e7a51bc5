// SPDX-License-Identifier: Apache-2.0
// HEAD, refs and the reflog. Every change: lock, compare, REF hints, packs synced, then one FULL commit that compares
// again. A crash between hint and commit leaves a hint of a change that never was; `recover` knows (docs/format.md,
// "REF").
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "coral/base/log.hpp"
#include "repo/names.hpp"
#include "repo/refs.hpp"
#include "repo/state.hpp"
#include "repo/whole.hpp"

namespace coral::repo {
namespace {

constexpr std::string_view kHeads = "heads/";

std::string at_text(const AnyId& id) {
    return id.is_zero() ? std::string("nothing") : id.hex().substr(0, 12);
}

Status check_update(const RefUpdate& update) {
    if (!valid_ref_name(update.name)) {
        return make_error(Errc::kInvalid,
                          fmt::format("'{}': not a valid ref name (heads/NAME or tags/NAME)", update.name));
    }
    if (update.annotated && update.name.starts_with(kHeads)) {
        return make_error(Errc::kInvalid, fmt::format("{}: a branch cannot point at a tag object", update.name));
    }
    return {};
}

Status check_updates(const std::vector<RefUpdate>& updates) {
    std::set<std::string_view> names;
    for (const RefUpdate& update : updates) {
        CORAL_CHECK(check_update(update));
        if (!names.insert(update.name).second) {
            return make_error(Errc::kInvalid, fmt::format("{}: twice in one update", update.name));
        }
    }
    for (std::string_view name : names) {
        for (std::size_t slash = name.rfind('/'); slash != std::string_view::npos;
             slash = name.substr(0, slash).rfind('/')) {
            if (!names.contains(name.substr(0, slash))) continue;
            return make_error(Errc::kInvalid, fmt::format("{}: cannot exist beside {}", name, name.substr(0, slash)));
        }
    }
    return {};
}

// One line of bounded length: what a reflog shows and a hint holds.
std::string one_line(std::string text) {
    constexpr std::size_t kMaxReason = 1000;
    text.resize(std::min({text.size(), text.find('\n'), text.find('\0'), kMaxReason}));
    return text;
}

Status check_target(Repository& repo, const RefUpdate& update) {
    if (update.target.is_zero()) return {};
    store::Kind kind = update.annotated ? store::Kind::kTag : store::Kind::kCommit;
    CORAL_TRY(bool there, repo.store().contains(kind, update.target));
    if (there) return {};
    return make_error(Errc::kNotFound, fmt::format("{}: there is no {} {} in the repository", update.name,
                                                   update.annotated ? "tag object" : "commit", update.target.hex()));
}

Result<AnyId> current_target(Database& db, const std::string& name) {
    Statement st = db.prepare("SELECT target FROM refs WHERE name = ?");
    CORAL_TRY(bool row, st.bind(name).step());
    return row ? st.id<AnyId>(0) : AnyId{};
}

// What every ref of `updates` is now, having compared it with what the caller expects.
Result<std::vector<AnyId>> compare(Database& db, const std::vector<RefUpdate>& updates) {
    std::vector<AnyId> old;
    for (const RefUpdate& update : updates) {
        CORAL_TRY(AnyId now, current_target(db, update.name));
        if (update.expected && *update.expected != now) {
            return make_error(Errc::kConflict,
                              fmt::format("{}: is at {}, expected {}: somebody else changed it; look and try again",
                                          update.name, at_text(now), at_text(*update.expected)));
        }
        if (now.is_zero() && update.target.is_zero()) {
            return make_error(Errc::kNotFound, fmt::format("{}: no such ref", update.name));
        }
        old.push_back(now);
    }
    return old;
}

Status move_ref(Database& db, const RefUpdate& update) {
    if (update.target.is_zero()) return db.prepare("DELETE FROM refs WHERE name = ?").bind(update.name).run();
    return db
        .prepare(
            "INSERT INTO refs(name, target, annotated) VALUES(?, ?, ?) ON CONFLICT(name) DO UPDATE SET "
            "target = excluded.target, annotated = excluded.annotated")
        .bind(update.name)
        .bind(update.target)
        .bind(update.annotated)
        .run();
}

}  // namespace

bool valid_ref_name(std::string_view name) {
    for (std::string_view folder : {kHeads, std::string_view("tags/")}) {
        if (name.starts_with(folder)) return valid_branch_name(name.substr(folder.size()));
    }
    return false;
}

Result<std::string> read_head(Database& db) {
    Statement st = db.prepare("SELECT value FROM meta WHERE key = 'head'");
    CORAL_TRY(bool row, st.step());
    std::string head = row ? st.text(0) : std::string();
    if (head.starts_with(kHeads) || CommitId::from_hex(head)) return head;
    return make_error(
        Errc::kCorrupt,
        fmt::format("{}: HEAD is neither a branch nor a commit; set it with `coral checkout BRANCH`", db.path()));
}

Status write_head(Database& db, const std::string& value) {
    return db
        .prepare("INSERT INTO meta(key, value) VALUES('head', ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value")
        .bind(value)
        .run();
}

Status log_ref(Database& db, const LogLine& line) {
    Statement st =
        db.prepare("INSERT INTO reflog(ref, old_target, new_target, actor, reason, time_ns) VALUES(?, ?, ?, ?, ?, ?)");
    st.bind(line.ref);
    bind_optional(st, line.old_target);
    bind_optional(st, line.new_target);
    return st.bind(line.actor).bind(line.reason).bind(line.time_ns).run();
}

Status check_folders(Database& db, const std::string& folder, const std::string& name,
                     const std::set<std::string>& gone) {
    auto refuse = [&](const std::string& other) {
        return make_error(
            Errc::kInvalid,
            fmt::format("'{}': cannot exist beside '{}', because one would be a folder of the other", name, other));
    };
    bool heads = folder == kHeads;
    // A prefix is a folder in the name: each is at most one look-up.
    for (std::size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1)) {
        std::string above = name.substr(0, slash);
        Statement st =
            db.prepare(heads ? "SELECT 1 FROM worktree WHERE branch = ?" : "SELECT 1 FROM refs WHERE name = ?");
        CORAL_TRY(bool row, st.bind(heads ? above : folder + above).step());
        if (row && !gone.contains(above)) return refuse(above);
    }
    // '0' follows '/': the range is what begins with "name/".
    std::string first = (heads ? name : folder + name) + "/", last = first;
    last.back() = '0';
    Statement st = db.prepare(heads ? "SELECT branch FROM worktree WHERE branch >= ? AND branch < ?"
                                    : "SELECT name FROM refs WHERE name >= ? AND name < ?");
    st.bind(first).bind(last);
    while (true) {
        CORAL_TRY(bool row, st.step());
        if (!row) return {};
        std::string below = heads ? st.text(0) : st.text(0).substr(folder.size());
        if (!gone.contains(below)) return refuse(below);
    }
}

// Reads what must be known before the packs are written to; all of it under the lock.
Status RefMove::prepare(Database& db) {
    CORAL_TRY(old_, compare(db, updates_));
    {
        Statement st = db.prepare("SELECT value FROM meta WHERE key = 'ref_seq'");
        CORAL_TRY(bool row, st.step());
        ref_seq_ = row ? st.unsigned_integer(0) : 0;
    }
    CORAL_TRY(head_, read_head(db));
    for (std::size_t i = 0; i < updates_.size(); ++i) {
        const RefUpdate& update = updates_[i];
        if (!old_[i].is_zero() || update.target.is_zero()) continue;
        std::size_t slash = update.name.find('/') + 1;
        CORAL_CHECK(check_folders(db, update.name.substr(0, slash), update.name.substr(slash), vanishing_));
    }
    return {};
}

// A branch exists if it has a worktree: one that appears by its ref alone gets one, unless `also` made it.
Status RefMove::find_new_branches() {
    for (std::size_t i = 0; i < updates_.size(); ++i) {
        const RefUpdate& update = updates_[i];
        if (!old_[i].is_zero() || update.target.is_zero() || !update.name.starts_with(kHeads)) continue;
        auto id = CommitId::from(update.target);
        CORAL_TRY(auto commit, repo_.commit(id));
        new_branches_.push_back({update.name.substr(kHeads.size()), Uuid::random(), id, commit->tree});
    }
    return {};
}

Status RefMove::hint() {
    for (std::size_t i = 0; i < updates_.size(); ++i) {
        store::RefHint hint;
        hint.ref_seq = ref_seq_ + i + 1;
        hint.name = updates_[i].name;
        hint.actor = actor_;
        hint.reason = one_line(updates_[i].reason);
        hint.old_target = old_[i];
        hint.new_target = updates_[i].target;
        hint.time_ns = time_ns_;
        CORAL_CHECK(repo_.store().put_ref_hint(hint));
    }
    return repo_.store().sync();
}

Status RefMove::apply(Database& db, const std::function<Status(Database&)>& also) {
    // Under the lock nothing can have moved; but a lock that a network filesystem does not honour must not lose a
    // commit.
    CORAL_TRY(std::vector<AnyId> now, compare(db, updates_));
    if (now != old_) return make_error(Errc::kConflict, "refs moved although they are locked; try again");
    for (std::size_t i = 0; i < updates_.size(); ++i) {
        const RefUpdate& update = updates_[i];
        CORAL_CHECK(move_ref(db, update));
        LogLine line{update.name, old_[i], update.target, actor_, one_line(update.reason), time_ns_};
        CORAL_CHECK(log_ref(db, line));
        // A rename deletes the old name: HEAD does not go with that, but with the new one.
        if (update.name == head_ && !update.target.is_zero()) {
            line.ref = "HEAD";
            CORAL_CHECK(log_ref(db, line));
        }
    }
    CORAL_CHECK(db.prepare("INSERT INTO meta(key, value) VALUES('ref_seq', ?) ON CONFLICT(key) DO UPDATE SET "
                           "value = excluded.value")
                    .bind(ref_seq_ + updates_.size())
                    .run());
    if (also) CORAL_CHECK(also(db));
    for (const NewBranch& branch : new_branches_) {
        bool there = false;
        {
            Statement st = db.prepare("SELECT 1 FROM worktree WHERE branch = ?");
            CORAL_TRY(there, st.bind(branch.name).step());
        }
        if (!there) CORAL_CHECK(insert_branch(db, branch, process_owner()));
    }
    return {};
}

Status RefMove::run(const std::function<Status(Database&)>& also) {
    CORAL_TRY(Person actor, repo_.identity());
    actor_ = fmt::format("{} <{}>", actor.name, actor.mail);
    time_ns_ = actor.time_ns;
    CORAL_CHECK(repo_.state().read([&](Database& db) { return prepare(db); }));
    for (const RefUpdate& update : updates_) CORAL_CHECK(check_target(repo_, update));
    CORAL_CHECK(find_new_branches());
    CORAL_CHECK(hint());
    return repo_.state().write_durably([&](Database& db) { return apply(db, also); });
}

Status Repository::check_whole(const std::vector<RefUpdate>& updates) {
    for (const RefUpdate& update : updates) {
        if (update.fresh || update.target.is_zero()) continue;
        auto commit = CommitId::from(update.target);
        if (update.annotated) {
            auto object = tag(TagId::from(update.target));
            if (!object) continue;  // told by check_target
            commit = (*object)->target;
        }
        CORAL_TRY(bool there, store_->contains(store::Kind::kCommit, AnyId::from(commit)));
        if (there) CORAL_CHECK(require_whole(*this, commit));
    }
    return {};
}

Status Repository::update_refs(const std::vector<RefUpdate>& updates, const std::function<Status(Database&)>& also) {
    if (read_only_) return make_error(Errc::kReadOnly, fmt::format("{}: the repository is open read-only", dir_));
    CORAL_CHECK(check_updates(updates));
    if (updates.empty() && !also) return {};
    // What is found now is there until its name is.
    CORAL_TRY(store::Session session, store_->session());
    CORAL_CHECK(check_whole(updates));
    CORAL_TRY(NamesLock lock, NamesLock::take(os_, dir_));
    return RefMove(*this, updates, {}).run(also);
}

Result<Head> Repository::head() {
    Head head;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        CORAL_TRY(std::string value, read_head(db));
        if (!value.starts_with(kHeads)) {
            head.commit = CommitId::from_hex(value);
            return {};
        }
        head.branch = value.substr(kHeads.size());
        CORAL_TRY(AnyId target, current_target(db, value));
        if (!target.is_zero()) head.commit = CommitId::from(target);
        return {};
    }));
    return head;
}

Result<std::vector<Ref>> Repository::refs(std::string_view prefix) {
    std::vector<Ref> found;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT name, target, annotated FROM refs WHERE name >= ? ORDER BY name");
        st.bind(prefix);
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            Ref ref{st.text(0), st.id<AnyId>(1), st.integer(2) != 0};
            if (!ref.name.starts_with(prefix)) return {};
            found.push_back(std::move(ref));
        }
    }));
    return found;
}

Result<std::optional<Ref>> Repository::ref(const std::string& name) {
    std::optional<Ref> found;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT target, annotated FROM refs WHERE name = ?");
        CORAL_TRY(bool row, st.bind(name).step());
        if (row) found = Ref{name, st.id<AnyId>(0), st.integer(1) != 0};
        return {};
    }));
    return found;
}

Result<std::vector<ReflogEntry>> Repository::reflog(const std::string& ref, std::size_t limit) {
    std::vector<ReflogEntry> entries;
    CORAL_CHECK(state_->read([&](Database& db) -> Status {
        Statement st =
            db.prepare(ref.empty() ? "SELECT seq, ref, old_target, new_target, actor, reason, time_ns FROM reflog "
                                     "WHERE ?1 = '' ORDER BY seq DESC LIMIT ?2"
                                   : "SELECT seq, ref, old_target, new_target, actor, reason, time_ns FROM reflog "
                                     "WHERE ref = ?1 ORDER BY seq DESC LIMIT ?2");
        st.bind(ref).bind(static_cast<std::int64_t>(std::min<std::size_t>(limit, INT64_MAX)));
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) return {};
            entries.push_back(
                {st.integer(0), st.text(1), st.id<AnyId>(2), st.id<AnyId>(3), st.text(4), st.text(5), st.integer(6)});
        }
    }));
    return entries;
}

}  // namespace coral::repo
