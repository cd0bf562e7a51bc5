// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/backlog.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "support/failing_os.hpp"

namespace coral::repo {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

TEST(Backlog, IsBehindAboveItsLimitOnly) {
    Backlog backlog(real_os(), "/tmp", 100);
    EXPECT_FALSE(backlog.behind());
    backlog.add(100);
    EXPECT_FALSE(backlog.behind());
    backlog.add(1);
    EXPECT_TRUE(backlog.behind());
    backlog.remove(60);
    EXPECT_FALSE(backlog.behind());
    EXPECT_EQ(backlog.bytes(), 41u);
}

TEST(Backlog, NobodyIsSlowedDownWhoNeedNotBe) {
    Backlog backlog(real_os(), "/tmp", 100);
    backlog.add(100);
    EXPECT_LE(backlog.turn(std::uint64_t{1} << 40), Clock::now());
    EXPECT_LE(backlog.turn(1), Clock::now());
}

TEST(Backlog, WritersShareOnePaceWhileItIsBehind) {
    Backlog backlog(real_os(), "/tmp", 0);
    backlog.add(1);
    const auto begin = Clock::now();
    // However many they are, and whatever they bring at once.
    Clock::time_point last;
    for (int writer = 0; writer < 32; ++writer) {
        const auto turn = backlog.turn(Backlog::kPace / 16);
        EXPECT_GT(turn, last);
        last = turn;
    }
    EXPECT_GE(last - begin, std::chrono::seconds(2));
    EXPECT_LT(last - Clock::now(), milliseconds(2001));
    EXPECT_LT(backlog.turn(4096) - last, milliseconds(1)) << "little waits for what is before it, and a little";
    backlog.remove(1);
    EXPECT_LE(backlog.turn(1), Clock::now());
}

// Turns that nobody waits for any more are nobody's.
TEST(Backlog, WhenItWasNotBehindTurnsBeginAnew) {
    Backlog backlog(real_os(), "/tmp", 0);
    backlog.add(1);
    EXPECT_GT(backlog.turn(Backlog::kPace * 100) - Clock::now(), std::chrono::seconds(90));
    backlog.remove(1);
    (void)backlog.turn(1);
    backlog.add(1);
    EXPECT_LT(backlog.turn(Backlog::kPace) - Clock::now(), std::chrono::seconds(2));
}

// Nothing is saved up by those who bring nothing for a while.
TEST(Backlog, APauseIsNoCredit) {
    Backlog backlog(real_os(), "/tmp", 0);
    backlog.add(1);
    (void)backlog.turn(1);
    std::this_thread::sleep_for(milliseconds(100));
    EXPECT_GE(backlog.turn(Backlog::kPace) - Clock::now(), milliseconds(900));
}

// The disk has room, but what waits may need it.
class SmallDisk : public test::FailingOs {
  public:
    Result<SpaceStat> space(const std::string&) override {
        SpaceStat space{};
        space.block_size = 4096;
        space.blocks = (std::uint64_t{100} << 30) / space.block_size;
        space.blocks_available = (std::uint64_t{5} << 30) / space.block_size;
        return space;
    }
};

TEST(Backlog, WhereTheDiskIsNearlyFullWhatWaitsMustFit) {
    SmallDisk os;
    Backlog backlog(os, "/tmp", std::uint64_t{100} << 30);
    EXPECT_FALSE(backlog.behind()) << "nothing waits: nothing would make room";
    backlog.add(std::uint64_t{3} << 30);
    EXPECT_FALSE(backlog.behind());
    backlog.add(std::uint64_t{2} << 30);
    EXPECT_TRUE(backlog.behind());
}

}  // namespace
}  // namespace coral::repo
