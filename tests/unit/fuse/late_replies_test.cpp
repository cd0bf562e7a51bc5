// SPDX-License-Identifier: Apache-2.0
// Who is told when that his bytes were taken. Requests are numbers here; libfuse's two functions are the test's own.
#include "fuse/late_replies.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <vector>

namespace coral::fuse {
namespace {

using std::chrono::milliseconds;
using Clock = LateReplies::Clock;
constexpr auto kLong = std::chrono::seconds(20);

struct Answers {
    std::mutex mutex;
    std::vector<std::pair<fuse_req_t, std::size_t>> given;
    std::set<fuse_req_t> interrupted;

    std::size_t count() {
        std::lock_guard lock(mutex);
        return given.size();
    }
    bool wait_for(std::size_t number, Clock::duration most = kLong) {
        const auto until = Clock::now() + most;
        while (count() < number && Clock::now() < until) std::this_thread::sleep_for(milliseconds(1));
        return count() >= number;
    }
};
Answers* answers;

fuse_req_t request(std::uintptr_t number) {
    return reinterpret_cast<fuse_req_t>(number);  // NOLINT(performance-no-int-to-ptr): nobody looks behind it
}

class LateRepliesTest : public ::testing::Test {
  protected:
    LateRepliesTest() { answers = &answers_; }
    ~LateRepliesTest() override { late_.stop(); }
    Answers answers_;
    std::atomic<bool> behind_{true};
    LateReplies late_{[this] { return behind_.load(); }};
};

TEST_F(LateRepliesTest, WhatIsDueIsAnsweredInTheCall) {
    EXPECT_TRUE(late_.written(request(1), 4096, {}));
    ASSERT_EQ(answers_.given.size(), 1u);
    EXPECT_EQ(answers_.given[0], std::pair(request(1), std::size_t{4096}));
}

TEST_F(LateRepliesTest, EachComesAtItsTurnWhileIngestIsBehind) {
    const auto begin = Clock::now();
    EXPECT_TRUE(late_.written(request(2), 20, begin + milliseconds(200)));
    EXPECT_TRUE(late_.written(request(1), 10, begin + milliseconds(100)));
    EXPECT_TRUE(late_.written(request(3), 30, begin + kLong * 10));
    EXPECT_LT(Clock::now() - begin, milliseconds(100)) << "no thread may wait";
    ASSERT_TRUE(answers_.wait_for(1));
    EXPECT_GE(Clock::now() - begin, milliseconds(100));
    ASSERT_TRUE(answers_.wait_for(2));
    EXPECT_GE(Clock::now() - begin, milliseconds(200));
    EXPECT_FALSE(answers_.wait_for(3, milliseconds(200)));
    EXPECT_EQ(answers_.given[0].first, request(1));
    EXPECT_EQ(answers_.given[1], std::pair(request(2), std::size_t{20}));
}

TEST_F(LateRepliesTest, AllGoOnWhenIngestHasCaughtUp) {
    for (std::uintptr_t i = 1; i <= 50; ++i) EXPECT_TRUE(late_.written(request(i), i, Clock::now() + kLong * 10));
    EXPECT_FALSE(answers_.wait_for(1, milliseconds(200)));
    behind_ = false;
    EXPECT_TRUE(answers_.wait_for(50));
}

TEST_F(LateRepliesTest, WhoIsInterruptedDoesNotWait) {
    for (std::uintptr_t i = 1; i <= 3; ++i) EXPECT_TRUE(late_.written(request(i), i, Clock::now() + kLong * 10));
    {
        std::lock_guard lock(answers_.mutex);
        answers_.interrupted.insert(request(2));
    }
    ASSERT_TRUE(answers_.wait_for(1));
    EXPECT_FALSE(answers_.wait_for(2, milliseconds(200)));
    EXPECT_EQ(answers_.given[0], std::pair(request(2), std::size_t{2}));
}

TEST_F(LateRepliesTest, NobodyIsForgottenAtTheEnd) {
    for (std::uintptr_t i = 1; i <= 3; ++i) EXPECT_TRUE(late_.written(request(i), i, Clock::now() + kLong * 10));
    late_.stop();
    EXPECT_EQ(answers_.count(), 3u);
    EXPECT_TRUE(late_.written(request(4), 4, Clock::now() + kLong * 10));
    EXPECT_EQ(answers_.count(), 4u);
}

}  // namespace
}  // namespace coral::fuse

// In place of libfuse's, in this program.
int fuse_reply_write(fuse_req_t request, size_t size) {
    std::lock_guard lock(coral::fuse::answers->mutex);
    coral::fuse::answers->given.emplace_back(request, size);
    return 0;
}
int fuse_req_interrupted(fuse_req_t request) {
    std::lock_guard lock(coral::fuse::answers->mutex);
    return coral::fuse::answers->interrupted.contains(request) ? 1 : 0;
}
