// SPDX-License-Identifier: Apache-2.0
// Every point at which a machine or a process may stop, and every call that may fail, in one workload of repository and
// worktree. CORAL_CRASH_SECONDS (default 40 for the cuts, in all modes) bounds the time: points at syncs come first.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "crash/checker.hpp"
#include "crash/workload.hpp"
#include "support/power_cut.hpp"
#include "support/scratch_dir.hpp"

namespace coral::test {
namespace {

double budget() {
    const char* text = std::getenv("CORAL_CRASH_SECONDS");
    double seconds = text ? std::atof(text) : 0;
    return seconds > 0 ? seconds : 40;
}

double now() {
    return static_cast<double>(monotonic_ns()) * 1e-9;
}

struct Experiment {
    MemoryDir dir;
    RecordingOs os{dir.path()};
    Workload workload{os, dir / "repo"};
};

bool is_sync(Change change) {
    return change == Change::kSync || change == Change::kSyncDirectory || change == Change::kMark ||
           change == Change::kRename;
}

// All points; around syncs, renames and steps first, then the rest in an order that leaves no stretch bare.
std::vector<std::size_t> points(const std::vector<Operation>& log, std::size_t& important) {
    std::vector<std::size_t> first, rest;
    for (std::size_t at = 0; at <= log.size(); ++at) {
        bool near = (at < log.size() && is_sync(log[at].change)) || (at > 0 && is_sync(log[at - 1].change));
        (near ? first : rest).push_back(at);
    }
    std::shuffle(rest.begin(), rest.end(), std::mt19937_64(1));
    important = first.size();
    first.insert(first.end(), rest.begin(), rest.end());
    return first;
}

struct Outcome {
    std::size_t checked = 0, violations = 0;
};

// In rounds of rising positions, so that the disk never goes back within one.
Outcome check_points(const Experiment& run, const std::vector<std::size_t>& order, Cut cut, double seconds,
                     std::size_t at_least, std::size_t stop_at, std::uint64_t seed = 0) {
    constexpr std::size_t kRound = 64;
    Outcome outcome;
    double end = now() + seconds;
    for (std::size_t begin = 0; begin < order.size(); begin += kRound) {
        std::vector<std::size_t> round(
            order.begin() + static_cast<std::ptrdiff_t>(begin),
            order.begin() + static_cast<std::ptrdiff_t>(std::min(begin + kRound, order.size())));
        std::sort(round.begin(), round.end());
        Disk disk(run.os.log());
        for (std::size_t position : round) {
            if (outcome.checked >= at_least && now() > end) return outcome;
            disk.advance(position);
            MemoryDir there;
            disk.materialise(there.path(), cut, seed + position);
            // The directory that the repository lies in was there before.
            std::string dir = there / "repo";
            auto wrong = check_repository(dir, run.workload.facts(), position, cut);
            ++outcome.checked;
            if (wrong.empty()) continue;
            if (++outcome.violations <= 5 && stop_at > 3) {
                std::string what = position ? to_string(run.os.log()[position - 1]) : "nothing";
                for (const std::string& line : wrong) {
                    std::printf("  %s cut after %zu (%s): %s\n", std::string(cut_name(cut)).c_str(), position,
                                what.c_str(), line.c_str());
                }
            }
            if (outcome.violations >= stop_at) return outcome;
        }
    }
    return outcome;
}

// What the healing says about each of thousands of crashes is not for the test's log.
const int kQuiet = ::setenv("CORAL_LOG", "critical", 0);

class Crash : public ::testing::TestWithParam<Cut> {};

TEST_P(Crash, EveryPoint) {
    Experiment run;
    ASSERT_TRUE(run.workload.run()) << run.workload.facts().errors.back();
    run.workload.close();
    ASSERT_TRUE(run.workload.facts().errors.empty()) << run.workload.facts().errors.front();
    std::size_t important = 0;
    std::vector<std::size_t> order = points(run.os.log(), important);
    bool strict = GetParam() == Cut::kKill || GetParam() == Cut::kSynced;  // the others: as many as time allows
    double end = now() + budget() / 5;
    Outcome outcome = check_points(run, order, GetParam(), end - now(), strict ? important : 0, ~std::size_t{0});
    for (std::uint64_t seed = 1; GetParam() == Cut::kRandom && now() < end; ++seed) {
        Outcome more = check_points(run, order, GetParam(), end - now(), 0, ~std::size_t{0}, seed << 32);
        outcome.checked += more.checked;
        outcome.violations += more.violations;
    }
    std::printf(
        "%s: %zu cuts at %zu points (%zu of them at syncs, renames and steps, which come first), %zu violations\n",
        std::string(cut_name(GetParam())).c_str(), outcome.checked, order.size(), important, outcome.violations);
    EXPECT_EQ(outcome.violations, 0u);
}

INSTANTIATE_TEST_SUITE_P(Modes, Crash,
                         ::testing::Values(Cut::kKill, Cut::kAll, Cut::kSynced, Cut::kNames, Cut::kRandom),
                         [](const auto& it) { return std::string(cut_name(it.param)); });

// The same checks on a disk that lies: each kind of lie must be noticed, or the checks prove nothing.
void expect_noticed(const Lies& lies, const char* what) {
    Experiment run;
    ASSERT_TRUE(run.workload.start());  // truly: a repository that cannot be opened at all would be noticed too easily
    run.os.set_lies(lies);
    ASSERT_TRUE(run.workload.run());
    run.workload.close();
    std::size_t important = 0;
    std::vector<std::size_t> order = points(run.os.log(), important);
    std::reverse(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(important));
    Outcome outcome = check_points(run, order, Cut::kSynced, budget() / 6, 0, 3);
    std::printf("%s: violations noticed after %zu points\n", what, outcome.checked);
    EXPECT_GT(outcome.violations, 0u) << what;
}

TEST(CrashChecker, NoticesLostFileSyncs) {
    expect_noticed({true, false, false}, "fdatasync of files does nothing");
}
TEST(CrashChecker, NoticesLostDirectorySyncs) {
    expect_noticed({false, true, false}, "sync of directories does nothing");
}
TEST(CrashChecker, NoticesLostSqliteSyncs) {
    expect_noticed({false, false, true}, "SQLite's syncs do nothing");
}

// ---- calls that fail

struct FaultOutcome {
    std::size_t runs = 0, told = 0, violations = 0;
};

// Runs with mutation n failing, then checks twice: after a power cut at the end, and after the process has ended.
bool run_with_fault(std::uint64_t n, bool for_ever, FaultOutcome& outcome) {
    Experiment run;
    run.os.set_fault(Fault{n, for_ever, n % 3 == 0 ? Errc::kNoSpace : Errc::kIo});
    run.workload.run();
    // The power goes before the databases are closed: that would write all of them anew and hide what is missing.
    std::size_t before_close = run.os.position();
    run.workload.close();
    if (run.os.faults() == 0) return false;
    ++outcome.runs;
    outcome.told += run.workload.facts().errors.empty() ? 0 : 1;
    for (Cut cut : {Cut::kSynced, Cut::kKill}) {
        std::size_t end = cut == Cut::kSynced ? before_close : run.os.position();
        Disk disk(run.os.log());
        disk.advance(end);
        MemoryDir there;
        disk.materialise(there.path(), cut);
        auto wrong = check_repository(there / "repo", run.workload.facts(), end, cut);
        if (wrong.empty()) continue;
        if (++outcome.violations <= 5) {
            for (const std::string& line : wrong) {
                std::printf("  mutation %llu failed %s, %s: %s\n", static_cast<unsigned long long>(n),
                            for_ever ? "for ever" : "once", std::string(cut_name(cut)).c_str(), line.c_str());
            }
            for (const std::string& line : run.workload.facts().errors) std::printf("    told: %s\n", line.c_str());
        }
    }
    return true;
}

class CrashFault : public ::testing::TestWithParam<bool> {};

TEST_P(CrashFault, NothingAcknowledgedIsLost) {
    bool for_ever = GetParam();
    std::uint64_t total = 0;
    {
        Experiment run;
        ASSERT_TRUE(run.workload.run());
        run.workload.close();
        total = run.os.mutations();
    }
    FaultOutcome outcome;
    // A stride that is prime to everything visits all points if time allows, and an even sample if not.
    std::uint64_t stride = 1;
    while (stride * stride < total || total % stride == 0) ++stride;
    double end = now() + budget() / 4;
    for (std::uint64_t i = 0; i < total && now() < end; ++i) run_with_fault(i * stride % total, for_ever, outcome);
    std::printf("%s: %zu of %llu mutations failed, %zu of them told, %zu violations\n", for_ever ? "for ever" : "once",
                outcome.runs, static_cast<unsigned long long>(total), outcome.told, outcome.violations);
    EXPECT_EQ(outcome.violations, 0u);
    EXPECT_GT(outcome.runs, 10u);
    EXPECT_GT(outcome.told, outcome.runs / 2);
}

INSTANTIATE_TEST_SUITE_P(Modes, CrashFault, ::testing::Bool(),
                         [](const auto& it) { return it.param ? "for_ever" : "once"; });

}  // namespace
}  // namespace coral::test
