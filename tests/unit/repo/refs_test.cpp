// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "repo/names.hpp"
#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::RepositoryTest;

TEST(BranchNames, AsInGit) {
    for (std::string good : {std::string("main"), std::string("a/b/c"), std::string("lr-0.001"), std::string("x@y"),
                             std::string("é"), std::string("a.b"), std::string("{x}"), std::string(255, 'x'),
                             std::string("a/-b"), std::string("lock"), std::string("HEAD/x")}) {
        EXPECT_TRUE(valid_branch_name(good)) << good;
    }
    for (std::string bad : {std::string(),           std::string("/a"),     std::string("a/"),   std::string("a//b"),
                            std::string(".a"),       std::string("a/.b"),   std::string("a..b"), std::string("a.lock"),
                            std::string("a.lock/b"), std::string("a."),     std::string("a b"),  std::string("a~"),
                            std::string("a^"),       std::string("a:b"),    std::string("a?"),   std::string("a*"),
                            std::string("a["),       std::string("a\\b"),   std::string("@"),    std::string("a@{b"),
                            std::string("-a"),       std::string("HEAD"),   std::string("a\nb"), std::string("a\x7f"),
                            std::string("a\0b", 3),  std::string(256, 'x'), std::string("..")}) {
        EXPECT_FALSE(valid_branch_name(bad)) << bad;
    }
    std::string deep = "a";
    while (deep.size() < 999) deep += "/a";
    EXPECT_TRUE(valid_branch_name(deep));
    EXPECT_FALSE(valid_branch_name(deep + "/a"));
}

TEST_F(RepositoryTest, CompareAndSwap) {
    CommitId a = commit(1, {}), b = commit(2, {a});
    AnyId none;
    ASSERT_OK(repo_->update_refs({{"heads/main", none, AnyId::from(a), false, "first"}}));
    EXPECT_ERROR(repo_->update_refs({{"heads/main", none, AnyId::from(b), false, ""}}), Errc::kConflict, "heads/main");
    EXPECT_ERROR(repo_->update_refs({{"heads/main", AnyId::from(b), AnyId::from(b), false, ""}}), Errc::kConflict,
                 "expected");
    ASSERT_OK(repo_->update_refs({{"heads/main", AnyId::from(a), AnyId::from(b), false, "second\nmore"}}));
    EXPECT_EQ(repo_->head().value().commit, b);

    auto log = repo_->reflog("heads/main", 10);
    ASSERT_OK(log);
    ASSERT_EQ(log->size(), 2u);
    EXPECT_EQ(log->at(0).old_target, AnyId::from(a));
    EXPECT_EQ(log->at(0).new_target, AnyId::from(b));
    EXPECT_EQ(log->at(0).reason, "second");
    EXPECT_TRUE(log->at(1).old_target.is_zero());
    EXPECT_FALSE(log->at(0).actor.empty());
    EXPECT_GT(log->at(0).time_ns, log->at(1).time_ns);
    EXPECT_EQ(repo_->reflog("HEAD", 10).value().size(), 2u);  // HEAD is on main
    EXPECT_EQ(repo_->reflog("heads/main", 1).value().size(), 1u);
    EXPECT_EQ(repo_->reflog("", 10).value().size(), 4u);
    EXPECT_EQ(count("SELECT value FROM meta WHERE key = 'ref_seq'"), 2);
}

TEST_F(RepositoryTest, SeveralRefsMoveTogetherOrNotAtAll) {
    CommitId a = commit(1, {}), b = commit(2, {a});
    ASSERT_OK(move("heads/main", a));
    EXPECT_ERROR(repo_->update_refs({{"tags/one", AnyId{}, AnyId::from(a), false, ""},
                                     {"heads/main", AnyId::from(b), AnyId::from(b), false, ""}}),
                 Errc::kConflict, "heads/main");
    EXPECT_FALSE(repo_->ref("tags/one").value());
    auto refuse = [](Database&) -> Status { return make_error(Errc::kBusy, "the worktree says no"); };
    EXPECT_ERROR(repo_->update_refs({{"heads/main", {}, AnyId::from(b), false, ""}}, refuse), Errc::kBusy, "says no");
    EXPECT_EQ(repo_->head().value().commit, a);
    ASSERT_OK(
        repo_->update_refs({{"heads/main", {}, AnyId::from(b), false, ""}, {"tags/one", {}, AnyId::from(a), false, ""}},
                           [](Database& db) { return db.execute("UPDATE worktree SET base_commit = x'00'"); }));
    EXPECT_EQ(count("SELECT count(*) FROM worktree WHERE base_commit = x'00'"), 1);
}

TEST_F(RepositoryTest, RefsThatMakeNoSense) {
    CommitId a = commit(1, {});
    AnyId id = AnyId::from(a);
    EXPECT_ERROR(repo_->update_refs({{"main", {}, id, false, ""}}), Errc::kInvalid, "main");
    EXPECT_ERROR(repo_->update_refs({{"heads/..", {}, id, false, ""}}), Errc::kInvalid, "heads/..");
    EXPECT_ERROR(repo_->update_refs({{"heads/x", {}, id, true, ""}}), Errc::kInvalid, "tag object");
    EXPECT_ERROR(repo_->update_refs({{"tags/x", {}, id, true, ""}}), Errc::kNotFound, "tags/x");
    EXPECT_ERROR(repo_->update_refs({{"tags/x", {}, Sha256::of({}), false, ""}}), Errc::kNotFound, "tags/x");
    EXPECT_ERROR(repo_->update_refs({{"tags/x", {}, id, false, ""}, {"tags/x", {}, id, false, ""}}), Errc::kInvalid,
                 "twice");
    EXPECT_ERROR(repo_->update_refs({{"tags/x", {}, id, false, ""}, {"tags/x/y", {}, id, false, ""}}), Errc::kInvalid,
                 "beside");
    EXPECT_ERROR(repo_->update_refs({{"tags/x", {}, AnyId{}, false, ""}}), Errc::kNotFound, "no such ref");
    ASSERT_OK(move("tags/x", a));
    EXPECT_ERROR(move("tags/x/y", a), Errc::kInvalid, "'x'");
    ASSERT_OK(move("tags/p/q/r", a));
    EXPECT_ERROR(move("tags/p/q", a), Errc::kInvalid, "'p/q/r'");
    ASSERT_OK(move("tags/p-q", a));
    ASSERT_OK(move("tags/p0", a));
    EXPECT_EQ(repo_->refs("tags/").value().size(), 4u);
    EXPECT_EQ(repo_->refs("tags/p/").value().size(), 1u);
    EXPECT_EQ(repo_->refs("").value().size(), 4u);
}

TEST_F(RepositoryTest, Branches) {
    CommitId a = commit(1, {}, "m", tree({fake_file("f", "1")}));
    ASSERT_OK(repo_->create_branch("exp/lr-1", a, "branch: from main"));
    ASSERT_OK(repo_->create_branch("empty", std::nullopt, ""));
    EXPECT_ERROR(repo_->create_branch("empty", a, ""), Errc::kExists, "empty");
    EXPECT_ERROR(repo_->create_branch("exp/lr-1", a, ""), Errc::kExists, "exp/lr-1");
    EXPECT_ERROR(repo_->create_branch("exp", a, ""), Errc::kInvalid, "'exp/lr-1'");
    EXPECT_ERROR(repo_->create_branch("empty/x", a, ""), Errc::kInvalid, "'empty'");
    EXPECT_ERROR(repo_->create_branch("empty/x", std::nullopt, ""), Errc::kInvalid, "'empty'");
    EXPECT_ERROR(repo_->create_branch("a b", a, ""), Errc::kInvalid, "a b");
    EXPECT_ERROR(repo_->create_branch("x", CommitId::from(Sha256::of({})), ""), Errc::kNotFound, "");
    EXPECT_ERROR(repo_->branch("x"), Errc::kNotFound, "x");
    auto all = repo_->branches();
    ASSERT_OK(all);
    ASSERT_EQ(all->size(), 3u);
    EXPECT_EQ(all->at(0).name, "empty");
    EXPECT_EQ(all->at(1).name, "exp/lr-1");
    EXPECT_EQ(all->at(1).commit, a);
    // A branch with a commit is filled later, from its tree.
    EXPECT_EQ(count("SELECT count(*) FROM worktree w JOIN inode i ON i.ino = w.root WHERE w.branch = 'exp/lr-1' AND "
                    "i.filled = 0 AND length(i.content) = 32 AND length(w.base_commit) = 32"),
              1);
    EXPECT_EQ(count("SELECT count(*) FROM worktree w JOIN inode i ON i.ino = w.root WHERE w.branch = 'empty' AND "
                    "i.filled = 1 AND i.content IS NULL AND w.base_commit IS NULL"),
              1);
}

TEST_F(RepositoryTest, ARefAloneMakesTheBranch) {
    CommitId a = commit(1, {});
    ASSERT_OK(move("heads/new", a));
    EXPECT_EQ(repo_->branch("new").value().commit, a);
    ASSERT_OK(move("heads/main", a));  // unborn until now: its worktree stays
    EXPECT_EQ(count("SELECT count(*) FROM worktree"), 2);
}

TEST_F(RepositoryTest, DeletingABranchTakesItsRowsAndStaging) {
    CommitId a = commit(1, {});
    ASSERT_OK(repo_->create_branch("x", a, "b"));
    Uuid staging = Uuid::random();
    auto made = repo_->branch("x");
    ASSERT_OK(made);
    std::string folder = dir() + "/staging/" + made->worktree.text();
    ASSERT_OK(real_os().make_dir(folder));
    std::string path = folder + "/" + staging.text();
    ASSERT_OK(real_os().open(path, OpenMode::kCreateNew));
    ASSERT_OK(repo_->state().write([&](Database& db) -> Status {
        CORAL_CHECK(
            db.prepare(
                  "INSERT INTO inode(worktree, parent, name, type, mode, uid, gid, size, mtime_ns, ctime_ns, staging) "
                  "SELECT id, root, x'61', 1, 420, 0, 0, 1, 0, 0, ? FROM worktree WHERE branch = 'x'")
                .bind(staging)
                .run());
        return db.prepare("INSERT INTO overlay_unit(staging, unit) VALUES(?, 3)").bind(staging).run();
    }));
    EXPECT_ERROR(repo_->delete_branch("main", ""), Errc::kBusy, "HEAD");
    EXPECT_ERROR(repo_->delete_branch("y", ""), Errc::kNotFound, "y");
    ASSERT_OK(repo_->delete_branch("x", "branch: deleted"));
    EXPECT_FALSE(real_os().exists(path));
    EXPECT_EQ(count("SELECT count(*) FROM inode"), 1);
    EXPECT_EQ(count("SELECT count(*) FROM worktree"), 1);
    EXPECT_EQ(count("SELECT count(*) FROM overlay_unit"), 0);
    EXPECT_FALSE(repo_->ref("heads/x").value());
    EXPECT_TRUE(repo_->reflog("heads/x", 9).value().at(0).new_target.is_zero());
    ASSERT_OK(repo_->create_branch("y", std::nullopt, ""));
    ASSERT_OK(repo_->delete_branch("y", ""));
    EXPECT_EQ(count("SELECT count(*) FROM inode"), 1);
}

TEST_F(RepositoryTest, RenamingABranch) {
    CommitId a = commit(1, {});
    ASSERT_OK(move("heads/main", a));
    Uuid worktree = repo_->branch("main").value().worktree;
    ASSERT_OK(repo_->create_branch("other", a, ""));
    EXPECT_ERROR(repo_->rename_branch("main", "other"), Errc::kExists, "other");
    EXPECT_ERROR(repo_->rename_branch("main", "other/x"), Errc::kInvalid, "'other'");
    EXPECT_ERROR(repo_->rename_branch("none", "x"), Errc::kNotFound, "none");
    EXPECT_ERROR(repo_->rename_branch("main", "x.lock"), Errc::kInvalid, "x.lock");
    ASSERT_OK(repo_->rename_branch("main", "main/sub"));  // takes its own place
    EXPECT_EQ(repo_->head().value().branch, "main/sub");
    EXPECT_EQ(repo_->head().value().commit, a);
    EXPECT_EQ(repo_->branch("main/sub").value().worktree, worktree);
    EXPECT_EQ(repo_->branches().value().size(), 2u);
    EXPECT_TRUE(repo_->reflog("heads/main", 9).value().empty());
    auto log = repo_->reflog("heads/main/sub", 9).value();
    ASSERT_EQ(log.size(), 2u);
    EXPECT_EQ(log[0].reason, "branch: renamed main to main/sub");
    EXPECT_EQ(log[0].new_target, AnyId::from(a));
    ASSERT_OK(repo_->create_branch("unborn", std::nullopt, ""));
    ASSERT_OK(repo_->set_head_branch("unborn"));
    ASSERT_OK(repo_->rename_branch("unborn", "u2"));
    EXPECT_EQ(repo_->head().value().branch, "u2");
    EXPECT_ERROR(repo_->rename_branch("u2", "u2"), Errc::kExists, "u2");
}

TEST_F(RepositoryTest, Head) {
    CommitId a = commit(1, {}), b = commit(2, {a});
    ASSERT_OK(move("heads/main", b));
    EXPECT_ERROR(repo_->set_head_branch("nope"), Errc::kNotFound, "nope");
    EXPECT_ERROR(repo_->set_head_detached(CommitId::from(Sha256::of({}))), Errc::kNotFound, "no such commit");
    ASSERT_OK(repo_->set_head_detached(a));
    EXPECT_TRUE(repo_->head().value().branch.empty());
    EXPECT_EQ(repo_->head().value().commit, a);
    EXPECT_EQ(repo_->reflog("HEAD", 1).value().at(0).reason, "checkout: moving from main to " + a.hex());
    ASSERT_OK(repo_->delete_branch("main", ""));  // HEAD is no longer on it
    ASSERT_OK(repo_->create_branch("z", b, ""));
    ASSERT_OK(repo_->set_head_branch("z"));
    EXPECT_EQ(repo_->head().value().commit, b);
}

// Two processes (two Repository objects) with several threads count by compare-and-swap: no step is lost or done twice.
TEST_F(RepositoryTest, RacingUpdatesLoseNothing) {
    auto other = reopen();
    ASSERT_TRUE(other);
    ASSERT_OK(move("heads/main", commit(0, {})));
    constexpr int kThreads = 4, kSteps = 6;
    std::atomic<int> conflicts{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            Repository& repo = t % 2 ? *repo_ : *other;
            for (int step = 0, tries = 0; step < kSteps && tries < 1000; ++tries) {
                auto old = repo.head();
                ASSERT_OK(old);
                auto before = repo.commit(*old->commit);
                ASSERT_OK(before);
                Commit c = **before;
                c.parents = {*old->commit};
                c.message = fmt::format("{} {}", t, step);
                auto id = repo.put_commit(c);
                ASSERT_OK(id);
                auto moved =
                    repo.update_refs({{"heads/main", AnyId::from(*old->commit), AnyId::from(*id), false, "race"}});
                if (moved) {
                    ++step;
                } else {
                    ASSERT_EQ(moved.error().code, Errc::kConflict) << moved.error().message;
                    ++conflicts;
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    int length = 0;
    ASSERT_OK(repo_->walk({*repo_->head().value().commit}, [&](const CommitId&, const Commit&) -> Result<bool> {
        ++length;
        return true;
    }));
    EXPECT_EQ(length, 1 + kThreads * kSteps) << conflicts << " conflicts";
    EXPECT_EQ(repo_->reflog("heads/main", 1000).value().size(), 1u + kThreads * kSteps);
}

TEST_F(RepositoryTest, OthersSeeChangesAtOnce) {
    auto other = reopen();
    CommitId a = commit(1, {});
    ASSERT_OK(repo_->create_branch("new", a, ""));
    EXPECT_EQ(other->branch("new").value().commit, a);
    EXPECT_EQ(other->resolve("new").value_or({}), a);
    EXPECT_OK(other->commit(a));
    ASSERT_OK(other->delete_branch("new", ""));
    EXPECT_ERROR(repo_->branch("new"), Errc::kNotFound, "new");
}

// REF hints are what `recover` reads: each move leaves one, in order.
TEST_F(RepositoryTest, EveryMoveLeavesAHint) {
    CommitId a = commit(1, {}), b = commit(2, {a});
    ASSERT_OK(repo_->update_refs({{"heads/main", {}, AnyId::from(a), false, "one"}}));
    ASSERT_OK(repo_->update_refs(
        {{"heads/main", {}, AnyId::from(b), false, "two"}, {"tags/t", {}, AnyId::from(a), false, "tag"}}));
    ASSERT_OK(repo_->update_refs({{"tags/t", {}, AnyId{}, false, "gone"}}));
    std::vector<store::RefHint> hints;
    ASSERT_OK(repo_->store().scan([&](const Uuid&, const store::RecordView& record) -> Status {
        if (record.kind != store::Kind::kRef) return {};
        CORAL_TRY(store::RefHint hint, store::decode_ref_hint(record.payload));
        hints.push_back(hint);
        return {};
    }));
    ASSERT_EQ(hints.size(), 4u);
    for (std::size_t i = 0; i < hints.size(); ++i) EXPECT_EQ(hints[i].ref_seq, i + 1);
    EXPECT_EQ(hints[0].name, "heads/main");
    EXPECT_TRUE(hints[0].old_target.is_zero());
    EXPECT_EQ(hints[1].old_target, AnyId::from(a));
    EXPECT_EQ(hints[1].new_target, AnyId::from(b));
    EXPECT_EQ(hints[1].reason, "two");
    EXPECT_TRUE(hints[3].new_target.is_zero());
}

}  // namespace
}  // namespace coral::repo
