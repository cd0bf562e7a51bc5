// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::RepositoryTest;
using testing::test_seed;

class WalkTest : public RepositoryTest {
  protected:
    std::vector<CommitId> all(const std::vector<CommitId>& from) {
        std::vector<CommitId> order;
        EXPECT_OK(repo_->walk(from, [&](const CommitId& id, const Commit&) -> Result<bool> {
            order.push_back(id);
            return true;
        }));
        return order;
    }
    // Each once, no parent before its child.
    void expect_topological(const std::vector<CommitId>& order) {
        std::set<CommitId> seen;
        for (const CommitId& id : order) {
            auto parents = repo_->commit(id).value()->parents;
            for (const CommitId& parent : parents) EXPECT_FALSE(seen.contains(parent)) << "a parent came first";
            EXPECT_TRUE(seen.insert(id).second) << "came twice";
        }
    }
};

TEST_F(WalkTest, NewestFirstEachOnce) {
    CommitId a = commit(1, {}), b = commit(2, {a}), c = commit(3, {a}), d = commit(4, {b, c}), e = commit(5, {b});
    EXPECT_EQ(all({d}), (std::vector{d, c, b, a}));
    EXPECT_EQ(all({d, e, a, d}), (std::vector{e, d, c, b, a}));
    EXPECT_TRUE(all({}).empty());
}

TEST_F(WalkTest, AParentFromTheFutureComesAfterItsChild) {
    CommitId a = commit(1000, {}), b = commit(1, {a}), x = commit(2, {b}), m = commit(5, {a, x});
    EXPECT_EQ(all({m}), (std::vector{m, x, b, a}));
    EXPECT_EQ(all({m, a}), (std::vector{m, x, b, a}));
    EXPECT_EQ(all({a, m}), (std::vector{m, x, b, a}));
}

TEST_F(WalkTest, EqualTimes) {
    CommitId a = commit(7, {}, "a"), b = commit(7, {a}, "b"), c = commit(7, {b}, "c"), d = commit(7, {a, c}, "d");
    EXPECT_EQ(all({d}), (std::vector{d, c, b, a}));
}

TEST_F(WalkTest, AParentNamedTwice) {
    CommitId a = commit(1, {}), b = commit(2, {a, a});
    EXPECT_EQ(all({b}), (std::vector{b, a}));
}

TEST_F(WalkTest, StopsWhenToldAndPassesErrorsOn) {
    CommitId a = commit(1, {}), b = commit(2, {a}), c = commit(3, {b});
    int n = 0;
    ASSERT_OK(repo_->walk({c}, [&](const CommitId&, const Commit&) -> Result<bool> { return ++n < 2; }));
    EXPECT_EQ(n, 2);
    auto fail = [](const CommitId&, const Commit&) -> Result<bool> { return make_error(Errc::kNoSpace, "enough"); };
    EXPECT_ERROR(repo_->walk({c}, fail), Errc::kNoSpace, "enough");
    EXPECT_ERROR(repo_->walk({CommitId::from(Sha256::of({}))}, fail), Errc::kNotFound, "e3b0c442");
    CommitId orphan = commit(9, {CommitId::from(Sha256::of({}))});
    EXPECT_ERROR(repo_->walk({orphan}, fail), Errc::kNotFound, "e3b0c442");
}

TEST_F(WalkTest, RandomHistoriesWithWrongClocks) {
    std::uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "CORAL_TEST_SEED=" << seed);
    std::mt19937_64 rng(seed);
    for (int round = 0; round < 15; ++round) {
        std::vector<CommitId> made;
        std::map<CommitId, std::vector<CommitId>> parents;
        std::size_t n = 2 + rng() % 60;  // below the look-ahead: exact
        for (std::size_t i = 0; i < n; ++i) {
            std::set<CommitId> chosen;
            for (std::size_t p = rng() % 3; p > 0 && i > 0; --p) chosen.insert(made[rng() % i]);
            std::vector<CommitId> list(chosen.begin(), chosen.end());
            std::int64_t time = round % 3 == 0 ? static_cast<std::int64_t>(i) : static_cast<std::int64_t>(rng() % 50);
            made.push_back(commit(time, list, fmt::format("{} {} {}", seed, round, i)));
            parents[made.back()] = list;
        }
        std::vector<CommitId> from{made.back()};
        for (std::size_t i = rng() % 4; i > 0; --i) from.push_back(made[rng() % n]);
        std::set<CommitId> reachable;
        for (std::vector<CommitId> stack = from; !stack.empty();) {
            CommitId id = stack.back();
            stack.pop_back();
            if (!reachable.insert(id).second) continue;
            for (const CommitId& parent : parents[id]) stack.push_back(parent);
        }
        auto order = all(from);
        EXPECT_EQ(std::set<CommitId>(order.begin(), order.end()), reachable);
        expect_topological(order);
        if (round % 3 == 0) {  // right clocks: strictly by time
            for (std::size_t i = 1; i < order.size(); ++i) {
                EXPECT_GT(repo_->commit(order[i - 1]).value()->committer.time_ns,
                          repo_->commit(order[i]).value()->committer.time_ns);
            }
        }
    }
}

TEST_F(WalkTest, ALongHistoryIsNotReadWhole) {
    CommitId tip = commit(0, {});
    for (int i = 1; i < 3000; ++i) tip = commit(i, {tip}, "");
    ASSERT_OK(move("heads/main", tip));
    auto recent = repo_->recent_commits(10);
    ASSERT_OK(recent);
    ASSERT_EQ(recent->size(), 10u);
    EXPECT_EQ(recent->front(), tip);
    EXPECT_EQ(repo_->recent_commits(100'000).value().size(), 3000u);
    EXPECT_TRUE(repo_->recent_commits(0).value().empty());
    EXPECT_EQ(all({tip}).size(), 3000u);
}

TEST_F(WalkTest, RecentCommitsOfAllRefs) {
    EXPECT_TRUE(repo_->recent_commits(10).value().empty());
    CommitId a = commit(1, {}), b = commit(2, {a}), c = commit(3, {}), d = commit(4, {});
    ASSERT_OK(move("heads/main", b));
    ASSERT_OK(move("tags/light", c));
    auto tag = repo_->put_tag({d, "t", testing::person(1), "", ""});
    ASSERT_OK(tag);
    ASSERT_OK(repo_->update_refs({{"tags/heavy", {}, AnyId::from(*tag), true, ""}}));
    EXPECT_EQ(repo_->recent_commits(10).value(), (std::vector{d, c, b, a}));
    // A ref that leads nowhere hides nothing.
    ASSERT_OK(repo_->state().write(
        [](Database& db) { return db.execute("INSERT INTO refs(name, target) VALUES('tags/broken', zeroblob(32))"); }));
    EXPECT_EQ(repo_->recent_commits(10).value(), (std::vector{d, c, b, a}));
}

}  // namespace
}  // namespace coral::repo
