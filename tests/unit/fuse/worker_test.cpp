// SPDX-License-Identifier: Apache-2.0
// What a supervisor tells its worker on the command line.
#include "fuse/worker.hpp"

#include <gtest/gtest.h>

namespace coral::fuse {
namespace {

TEST(WorkerArguments, ComeBackWithAnyNumberOfBranches) {
    for (std::size_t branches : {0u, 1u, 1000u, 1001u, 5000u}) {
        WorkerArguments given;
        given.device = 6;
        given.handover = {7, 8, 9};
        given.supervisor = 11;
        given.background = true;
        given.supervisor_pid = 4711;
        for (std::size_t i = 0; i < branches; ++i) given.locks.emplace_back(Uuid::random(), static_cast<int>(20 + i));
        auto words = to_words(given);
        for (const std::string& word : words) EXPECT_LT(word.size(), 100'000u) << "execve takes 128 KiB";
        auto back = worker_arguments_from(words);
        ASSERT_TRUE(back.ok()) << branches;
        EXPECT_EQ(back->device, 6);
        EXPECT_EQ(back->handover, given.handover);
        EXPECT_EQ(back->starter, -1);
        EXPECT_EQ(back->supervisor_pid, 4711);
        EXPECT_TRUE(back->background);
        EXPECT_EQ(back->locks, given.locks);
    }
}

TEST(WorkerArguments, OfNoSupervisorAreRefused) {
    for (const char* text : {"", "1", "1,2,3,4,5,6,7,x", "1,2,3,4,5,6,7,8,nonsense", "1,2,3,4,5,6,7,8,=5"}) {
        auto got = worker_arguments_from({text});
        ASSERT_FALSE(got.ok()) << text;
        EXPECT_EQ(got.error().code, Errc::kInvalid);
    }
}

}  // namespace
}  // namespace coral::fuse
