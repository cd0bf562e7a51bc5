// SPDX-License-Identifier: Apache-2.0
// Init and changes of names, cut at every point of the log of writes: a repository is whole or not one yet, a ref is
// where a finished update put it or at the next one's target, and what it points at is there.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>

#include "support/power_cut.hpp"
#include "support/recording_os.hpp"
#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using test::Cut;
using testing::TempDir;

constexpr Cut kCuts[] = {Cut::kKill, Cut::kSynced, Cut::kNames, Cut::kRandom};

Result<CommitId> make_commit(Repository& repo, const std::optional<CommitId>& parent, const std::string& message) {
    CORAL_TRY(TreeId tree, repo.put_tree({}));
    Commit c;
    c.tree = tree;
    if (parent) c.parents = {*parent};
    c.author = c.committer = testing::person(1);
    c.message = message;
    return repo.put_commit(c);
}

// Calls `check(directory as it is after the cut, position)` for points of the log from `first` on and every kind of
// cut: for each point with CORAL_TEST_ALL, else for every fourth, which ones by the seed.
void every_cut(const std::vector<test::Operation>& log, std::size_t first,
               const std::function<void(const std::string&, std::size_t)>& check) {
    std::uint64_t seed = testing::test_seed();
    std::size_t step = std::getenv("CORAL_TEST_ALL") ? 1 : 4;
    test::Disk disk(log);
    for (std::size_t position = first + (step > 1 ? seed % step : 0); position <= log.size(); position += step) {
        disk.advance(position);
        for (Cut cut : kCuts) {
            SCOPED_TRACE(::testing::Message() << "cut " << test::cut_name(cut) << " before operation " << position
                                              << " (" << (position < log.size() ? to_string(log[position]) : "end")
                                              << "), CORAL_TEST_SEED=" << seed);
            TempDir after;
            disk.materialise(after.path(), cut, seed + position);
            check(after.path(), position);
            if (::testing::Test::HasFailure()) return;
        }
    }
}

TEST(NamesCrash, InitIsWholeOrCanBeDoneAgain) {
    TempDir temp;
    std::size_t done = 0;
    test::RecordingOs os(temp.path());
    {
        auto repo = Repository::init(os, temp / "r", {});
        ASSERT_OK(repo);
        done = os.mark("init returned");
    }
    every_cut(os.log(), 0, [&](const std::string& dir, std::size_t position) {
        auto repo = Repository::open(real_os(), dir + "/r", {});
        if (!repo) {
            ASSERT_LT(position, done) << repo.error().message;
            ASSERT_EQ(repo.error().code, Errc::kNotFound) << repo.error().message;
            repo = Repository::init(real_os(), dir + "/r", {});
            ASSERT_OK(repo);
        }
        ASSERT_EQ((*repo)->head().value().branch, "main");
        ASSERT_EQ((*repo)->branches().value().size(), 1u);
        auto id = make_commit(**repo, std::nullopt, "after");
        ASSERT_OK(id);
        ASSERT_OK((*repo)->update_refs({{"heads/main", AnyId{}, AnyId::from(*id), false, "after"}}));
    });
}

TEST(NamesCrash, RefsMoveWholeAndStayMoved) {
    TempDir temp;
    std::vector<CommitId> commits;
    std::vector<std::size_t> moved;  // position in the log at which the n-th move had returned
    test::RecordingOs os(temp.path());
    std::size_t start = 0;
    {
        auto repo = Repository::init(os, temp / "r", {});
        ASSERT_OK(repo);
        start = os.mark("init returned");
        for (int i = 0; i < 3; ++i) {
            auto id = make_commit(**repo, i ? std::optional(commits.back()) : std::nullopt, fmt::format("{}", i));
            ASSERT_OK(id);
            commits.push_back(*id);
            // Branch and tag go together.
            ASSERT_OK((*repo)->update_refs({{"heads/main", {}, AnyId::from(*id), false, ""},
                                            {fmt::format("tags/t{}", i), AnyId{}, AnyId::from(*id), false, ""}}));
            moved.push_back(os.mark("moved"));
        }
    }
    every_cut(os.log(), start, [&](const std::string& dir, std::size_t position) {
        auto repo = Repository::open(real_os(), dir + "/r", {});
        ASSERT_OK(repo);
        std::size_t at_least = 0;
        while (at_least < moved.size() && moved[at_least] <= position) ++at_least;
        auto head = (*repo)->head();
        ASSERT_OK(head);
        std::size_t is = 0;
        while (is < commits.size() && head->commit && commits[is] != *head->commit) ++is;
        std::size_t count = head->commit ? is + 1 : 0;
        ASSERT_GE(count, at_least);
        ASSERT_LE(count, at_least + 1);
        ASSERT_EQ((*repo)->refs("tags/").value().size(), count);
        std::size_t length = 0;
        ASSERT_OK((*repo)->walk(head->commit ? std::vector{*head->commit} : std::vector<CommitId>{},
                                [&](const CommitId&, const Commit& c) -> Result<bool> {
                                    ++length;
                                    CORAL_CHECK((*repo)->tree(c.tree));
                                    return true;
                                }));
        ASSERT_EQ(length, count);
        auto problems = (*repo)->fsck(true, [](std::uint64_t, std::uint64_t) {});
        ASSERT_OK(problems);
        for (const auto& problem : *problems) {
            ASSERT_NE(problem.severity, store::Problem::Severity::kLost) << problem.what;
        }
    });
}

// Every write, sync and rename of an init fails once: it says so, and the next one succeeds.
TEST(NamesCrash, InitOnAFailingDisk) {
    const std::uint64_t step = std::getenv("CORAL_TEST_ALL") ? 1 : 3;
    for (std::uint64_t at = testing::test_seed() % step; at < 1000; at += step) {
        SCOPED_TRACE(::testing::Message() << "failing operation " << at);
        TempDir temp;
        test::RecordingOs os(temp.path());
        test::Fault fault;
        fault.at = at;
        fault.code = Errc::kNoSpace;
        os.set_fault(fault);
        auto repo = Repository::init(os, temp / "r", {});
        if (os.faults() == 0) {
            ASSERT_OK(repo);
            ASSERT_GT(at, 10u);
            return;
        }
        os.set_fault(std::nullopt);
        if (!repo) {
            repo = Repository::open(real_os(), temp / "r", {});
            if (!repo) repo = Repository::init(real_os(), temp / "r", {});
            ASSERT_OK(repo);
        }
        ASSERT_EQ((*repo)->head().value().branch, "main");
    }
    FAIL() << "init never ends";
}

}  // namespace
}  // namespace coral::repo
