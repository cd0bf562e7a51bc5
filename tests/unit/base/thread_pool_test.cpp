// SPDX-License-Identifier: Apache-2.0
#include "coral/base/thread_pool.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>

namespace coral {
namespace {

TEST(ThreadPool, RunsEverything) {
    std::atomic<int> sum{0};
    {
        ThreadPool pool("t", 4, 8);
        EXPECT_EQ(pool.size(), 4u);
        for (int i = 1; i <= 10'000; ++i) pool.submit([&sum, i] { sum += i; });
        pool.wait_idle();
        EXPECT_EQ(sum, 50'005'000);
        for (int i = 0; i < 100; ++i) pool.submit([&sum] { ++sum; });
    }  // the destructor runs what is queued
    EXPECT_EQ(sum, 50'005'100);
}

TEST(ThreadPool, NeverFewerThanOneThread) {
    ThreadPool pool("t", 0);
    std::atomic<bool> ran{false};
    pool.submit([&] { ran = true; });
    pool.wait_idle();
    EXPECT_TRUE(ran);
    EXPECT_GE(hardware_threads(), 1u);
}

TEST(ThreadPool, SubmitWaitsWhileTheQueueIsFull) {
    ThreadPool pool("t", 1, 1);
    std::atomic<bool> go{false};
    std::atomic<int> accepted{0};
    auto block = [&] {
        while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    std::thread submitter([&] {
        for (int i = 0; i < 4; ++i) {
            pool.submit(block);
            ++accepted;
        }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_LE(accepted, 2);  // one running, one queued
    go = true;
    submitter.join();
    EXPECT_EQ(accepted, 4);
    pool.wait_idle();
}

TEST(ThreadPool, FreesWhatATaskHeldBeforeIdle) {
    ThreadPool pool("t", 2);
    auto held = std::make_shared<int>(1);
    pool.submit([held] {});
    pool.wait_idle();
    EXPECT_EQ(held.use_count(), 1);
}

TEST(ThreadPool, ManySubmittersAtOnce) {
    ThreadPool pool("t", 3, 4);
    std::atomic<int> done{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 1000; ++i) pool.submit([&] { ++done; });
        });
    }
    for (auto& thread : threads) thread.join();
    pool.wait_idle();
    EXPECT_EQ(done, 4000);
}

TEST(TaskGroup, BoundsWhatIsInFlightAndWaits) {
    ThreadPool pool("t", 4);
    std::atomic<int> running{0}, most{0}, done{0};
    TaskGroup group(pool, 2);
    for (int i = 0; i < 500; ++i) {
        group.run([&] {
            int now = ++running;
            int seen = most;
            while (now > seen && !most.compare_exchange_weak(seen, now)) {
            }
            --running;
            ++done;
        });
    }
    group.wait();
    EXPECT_EQ(done, 500);
    EXPECT_LE(most, 2);
    group.wait();  // nothing left: at once
}

TEST(TaskGroup, GroupsShareAPoolAndComeAndGo) {
    ThreadPool pool("t", 2);
    std::atomic<int> done{0};
    std::vector<std::thread> callers;
    for (int t = 0; t < 4; ++t) {
        callers.emplace_back([&] {
            for (int round = 0; round < 200; ++round) {
                TaskGroup group(pool, 3);
                for (int i = 0; i < 5; ++i) group.run([&] { ++done; });
            }  // the destructor waits; the group's memory is used again at once
        });
    }
    for (auto& caller : callers) caller.join();
    EXPECT_EQ(done, 4 * 200 * 5);
}

}  // namespace
}  // namespace coral
