// SPDX-License-Identifier: Apache-2.0
#include "fuse/features.hpp"

#include <gtest/gtest.h>

namespace coral::fuse {
namespace {

// Requests that the kernel counts as background are those that may wait for a disk; it keeps back what is above.
TEST(Features, ReadersLeaveThreadsToOthers) {
    fuse_conn_info conn{};
    conn.max_background = 12;
    Features got = negotiate(conn);
    EXPECT_GT(conn.max_background, 0u);
    EXPECT_EQ(conn.max_background + kThreadsForOthers, serving_threads());
    EXPECT_EQ(got.max_background, conn.max_background);
    EXPECT_EQ(conn.congestion_threshold, conn.max_background) << "above it the kernel would read ahead no more";
}

}  // namespace
}  // namespace coral::fuse
