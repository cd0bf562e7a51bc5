// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/backlog.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/failing_os.hpp"

namespace coral::repo {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
constexpr milliseconds kLong{20'000};

TEST(Backlog, IsBehindAboveItsLimitOnly) {
    Backlog backlog(real_os(), "/tmp", 100, 4);
    EXPECT_FALSE(backlog.behind());
    backlog.add(100);
    EXPECT_FALSE(backlog.behind());
    backlog.add(1);
    EXPECT_TRUE(backlog.behind());
    backlog.remove(60);
    EXPECT_FALSE(backlog.behind());
    EXPECT_EQ(backlog.bytes(), 41u);
    backlog.wait(kLong);  // returns at once
}

TEST(Backlog, AWriterGoesOnAsSoonAsThereIsLess) {
    Backlog backlog(real_os(), "/tmp", 100, 4);
    backlog.add(80);
    backlog.add(80);
    std::atomic<bool> through{false};
    std::thread writer([&] {
        backlog.wait(kLong);
        through = true;
    });
    std::this_thread::sleep_for(milliseconds(50));
    EXPECT_FALSE(through);
    const auto begin = Clock::now();
    backlog.remove(80);
    writer.join();
    EXPECT_LT(Clock::now() - begin, kLong / 2);
}

TEST(Backlog, NobodyWaitsLongerThanHeSaid) {
    Backlog backlog(real_os(), "/tmp", 0, 4);
    backlog.add(1);
    const auto begin = Clock::now();
    backlog.wait(milliseconds(30));
    EXPECT_GE(Clock::now() - begin, milliseconds(30));
    EXPECT_LT(Clock::now() - begin, kLong);
}

// The threads that wait are those that serve readers.
TEST(Backlog, OnlySomeWaitAtATime) {
    Backlog backlog(real_os(), "/tmp", 0, 2);
    backlog.add(1);
    std::vector<std::thread> writers;
    for (int i = 0; i < 2; ++i) writers.emplace_back([&] { backlog.wait(kLong); });
    std::this_thread::sleep_for(milliseconds(100));
    const auto begin = Clock::now();
    backlog.wait(kLong);
    EXPECT_LT(Clock::now() - begin, kLong / 2);
    backlog.remove(1);
    for (std::thread& writer : writers) writer.join();
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
    Backlog backlog(os, "/tmp", std::uint64_t{100} << 30, 4);
    EXPECT_FALSE(backlog.behind()) << "nothing waits: nothing would make room";
    backlog.add(std::uint64_t{3} << 30);
    EXPECT_FALSE(backlog.behind());
    backlog.add(std::uint64_t{2} << 30);
    EXPECT_TRUE(backlog.behind());
}

}  // namespace
}  // namespace coral::repo
