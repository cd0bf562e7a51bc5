// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fuse/invalidator.hpp"
#include "fuse/io_mode.hpp"
#include "fuse/reply.hpp"

namespace coral::fuse {
namespace {

TEST(Translate, Attributes) {
    vfs::Attr attr;
    attr.node = 77;
    attr.type = FileType::kSymlink;
    attr.mode = 0777;
    attr.size = 5;
    attr.blocks = 1;
    attr.mtime_ns = 1'500'000'000'123'456'789;
    attr.atime_ns = -1;  // before 1970
    struct stat st;
    fill_stat(attr, st);
    EXPECT_EQ(st.st_ino, 77u);
    EXPECT_TRUE(S_ISLNK(st.st_mode));
    EXPECT_EQ(st.st_blksize, 1 << 20);
    attr.preferred_io = 128u << 10;
    fill_stat(attr, st);
    EXPECT_EQ(st.st_blksize, 128 << 10);
    EXPECT_EQ(st.st_mtim.tv_sec, 1'500'000'000);
    EXPECT_EQ(st.st_mtim.tv_nsec, 123'456'789);
    EXPECT_EQ(st.st_atim.tv_sec, -1);
    EXPECT_EQ(st.st_atim.tv_nsec, 999'999'999);
}

TEST(Translate, IoMode) {
    fuse_file_info info{};
    info.flags = O_WRONLY;
    apply_io_mode({9, vfs::IoMode::kDirect, false}, info);
    EXPECT_TRUE(info.fh == 9 && info.direct_io && !info.keep_cache && !info.noflush);
    info.flags = O_RDONLY;
    apply_io_mode({10, vfs::IoMode::kCached, true}, info);
    EXPECT_TRUE(info.fh == 10 && !info.direct_io && info.keep_cache && info.noflush);
    info.flags = O_RDWR;
    apply_io_mode({11, vfs::IoMode::kCached, false}, info);
    EXPECT_FALSE(info.noflush);
}

TEST(Translate, TheFenceOfAnInvalidatorThatIsOffDoesNotWait) {
    Invalidator invalidator;  // never started: before the mount
    invalidator.entry_changed(1, "x");
    EXPECT_TRUE(invalidator.wait_drained(std::chrono::seconds(30)));
    invalidator.disarm();
    invalidator.attributes_changed(1);
    EXPECT_TRUE(invalidator.wait_drained(std::chrono::seconds(30)));
}

}  // namespace
}  // namespace coral::fuse
