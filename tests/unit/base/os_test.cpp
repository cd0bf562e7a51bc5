// SPDX-License-Identifier: Apache-2.0
#include "coral/base/os.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>
#include <set>

#include "coral/base/bytes.hpp"
#include "support/recording_os.hpp"
#include "support/scratch_dir.hpp"

namespace coral {
namespace {

using test::ScratchDir;

void write_text(const std::string& path, std::string_view text) {
    auto file = real_os().open(path, OpenMode::kOpenOrCreate);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_TRUE((*file)->truncate(0).ok());
    ASSERT_TRUE((*file)->write_at(0, as_bytes(text)).ok());
}

TEST(Os, OpenModes) {
    ScratchDir dir;
    Os& os = real_os();
    std::string path = dir / "f";
    EXPECT_EQ(os.open(path, OpenMode::kRead).error().code, Errc::kNotFound);
    EXPECT_EQ(os.open(path, OpenMode::kReadWrite).error().code, Errc::kNotFound);
    ASSERT_TRUE(os.open(path, OpenMode::kCreateNew));
    EXPECT_EQ(os.open(path, OpenMode::kCreateNew).error().code, Errc::kExists);
    ASSERT_TRUE(os.open(path, OpenMode::kOpenOrCreate));
    EXPECT_EQ(os.stat(path)->mode & 0777, 0600u);
    auto reader = os.open(path, OpenMode::kRead);
    EXPECT_FALSE((*reader)->write_at(0, as_bytes("x")).ok());
}

TEST(Os, PositionalReadAndWrite) {
    ScratchDir dir;
    auto file = *real_os().open(dir / "f", OpenMode::kCreateNew);
    ASSERT_TRUE(file->write_at(5, as_bytes("world")).ok());
    ASSERT_TRUE(file->write_at(0, as_bytes("hello")).ok());
    Buffer out(20);
    EXPECT_EQ(*file->read_at(0, out), 10u);
    EXPECT_EQ(as_text(Bytes(out).first(10)), "helloworld");
    EXPECT_EQ(*file->read_at(8, out), 2u);
    EXPECT_EQ(*file->read_at(100, out), 0u);
    ASSERT_TRUE(file->truncate(3).ok());
    ASSERT_TRUE(file->truncate(6).ok());
    EXPECT_EQ(*file->read_at(0, out), 6u);
    EXPECT_EQ(as_text(Bytes(out).first(6)), std::string_view("hel\0\0\0", 6));
    EXPECT_TRUE(file->sync_data().ok());
    EXPECT_EQ(file->stat()->size, 6u);
    ASSERT_TRUE(file->change_mode(0400).ok());
    EXPECT_EQ(file->stat()->mode, 0400u);
    EXPECT_GE(file->native_handle(), 0);
}

TEST(Os, NamesAndDirectories) {
    ScratchDir dir;
    Os& os = real_os();
    write_text(dir / "a", "1");
    write_text(dir / "b", "22");
    ASSERT_TRUE(os.rename(dir / "a", dir / "b").ok());
    EXPECT_EQ(os.stat(dir / "b")->size, 1u);
    EXPECT_EQ(os.rename(dir / "a", dir / "c").error().code, Errc::kNotFound);
    ASSERT_TRUE(os.make_dir(dir / "d").ok());
    EXPECT_EQ(os.make_dir(dir / "d").error().code, Errc::kExists);
    EXPECT_EQ(os.stat(dir / "d")->mode & 0777, 0700u);
    write_text(dir / "d/x", "");
    EXPECT_EQ(os.remove_dir(dir / "d").error().code, Errc::kNotEmpty);
    EXPECT_EQ(*os.list_dir(dir.path()), (std::vector<std::string>{"b", "d"}));
    EXPECT_EQ(os.list_dir(dir / "none").error().code, Errc::kNotFound);
    EXPECT_EQ(os.list_dir(dir / "b").error().code, Errc::kNotDirectory);
    ASSERT_TRUE(os.remove(dir / "d/x").ok());
    EXPECT_EQ(os.remove(dir / "d/x").error().code, Errc::kNotFound);
    ASSERT_TRUE(os.remove_dir(dir / "d").ok());
    EXPECT_TRUE(os.sync_dir(dir.path()).ok());
    EXPECT_EQ(os.sync_dir(dir / "d").error().code, Errc::kNotFound);
    EXPECT_FALSE(os.exists(dir / "d"));
    EXPECT_GT(os.space(dir.path())->blocks, 0u);
    EXPECT_FALSE(os.space(dir / "none"));
}

TEST(Os, SymlinksAreSeenByLstatOnly) {
    ScratchDir dir;
    Os& os = real_os();
    write_text(dir / "target", "abc");
    ASSERT_EQ(::symlink("target", (dir / "link").c_str()), 0);
    EXPECT_EQ(os.stat(dir / "link")->type, FileType::kRegular);
    EXPECT_EQ(os.lstat(dir / "link")->type, FileType::kSymlink);
    EXPECT_EQ(*os.read_link(dir / "link"), "target");
    EXPECT_FALSE(os.read_link(dir / "target"));
    ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
    EXPECT_EQ(os.stat(dir / "pipe")->type, FileType::kOther);
    EXPECT_EQ(os.stat(dir.path())->type, FileType::kDirectory);
}

TEST(Os, LocksBelongToTheOpenFile) {
    ScratchDir dir;
    auto a = *real_os().open(dir / "lock", OpenMode::kCreateNew);
    auto b = *real_os().open(dir / "lock", OpenMode::kReadWrite);
    EXPECT_TRUE(*a->try_lock(true));
    EXPECT_TRUE(*a->try_lock(true));   // again: it has it
    EXPECT_FALSE(*b->try_lock(true));  // the same process, another open file
    EXPECT_FALSE(*b->try_lock(false));
    ASSERT_TRUE(a->unlock().ok());
    EXPECT_TRUE(*b->try_lock(false));
    EXPECT_TRUE(*a->try_lock(false));  // shared
    EXPECT_FALSE(*a->try_lock(true));
    b.reset();  // closing releases
    EXPECT_TRUE(*a->try_lock(true));
    // Closing another open file of the same path must not drop it (it would with POSIX locks).
    real_os().open(dir / "lock", OpenMode::kReadWrite).value().reset();
    auto c = *real_os().open(dir / "lock", OpenMode::kReadWrite);
    EXPECT_FALSE(*c->try_lock(true));
}

TEST(Os, ReadFileHonoursItsLimit) {
    ScratchDir dir;
    std::string text(10'000, 'q');
    write_text(dir / "f", text);
    EXPECT_EQ(*read_file(real_os(), dir / "f"), text);
    EXPECT_EQ(*read_file(real_os(), dir / "f", 10'000), text);
    EXPECT_EQ(read_file(real_os(), dir / "f", 9'999).error().code, Errc::kTooLarge);
    EXPECT_EQ(read_file(real_os(), dir.path()).error().code, Errc::kIsDirectory);
    write_text(dir / "empty", "");
    EXPECT_EQ(*read_file(real_os(), dir / "empty"), "");
    EXPECT_GT(read_file(real_os(), "/proc/self/status")->size(), 100u);  // stat says 0 bytes
}

TEST(Os, AtomicWriteReplacesAndLeavesNothingBehind) {
    ScratchDir dir;
    for (std::string text : {"first", "second, longer", ""}) {
        ASSERT_TRUE(write_file_atomic(real_os(), dir / "f", as_bytes(text)).ok());
        EXPECT_EQ(*read_file(real_os(), dir / "f"), text);
    }
    EXPECT_EQ(real_os().list_dir(dir.path())->size(), 1u);
    EXPECT_EQ(write_file_atomic(real_os(), dir / "no/f", as_bytes("x")).error().code, Errc::kNotFound);
}

TEST(Os, AtomicWriteKeepsTheOldFileWhateverFails) {
    for (std::uint64_t n = 0; n < 10; ++n) {
        ScratchDir dir;
        test::RecordingOs os(dir.path());
        ASSERT_TRUE(write_file_atomic(os, dir / "f", as_bytes("old")).ok());
        os.set_fault(test::Fault{n});
        Status done = write_file_atomic(os, dir / "f", as_bytes("new"));
        std::string now = *read_file(os, dir / "f");
        if (os.faults() == 0) {
            EXPECT_TRUE(done.ok());
            EXPECT_EQ(now, "new");
            EXPECT_EQ(n, 5u) << "create, write, sync, rename, sync of the directory";
            return;
        }
        EXPECT_FALSE(done.ok()) << n;
        EXPECT_EQ(now, n < 4 ? "old" : "new") << n;
        EXPECT_EQ(real_os().list_dir(dir.path())->size(), 1u) << n;
    }
    FAIL() << "never without a fault";
}

TEST(Os, PathHelpers) {
    EXPECT_EQ(path_join("a", "b"), "a/b");
    EXPECT_EQ(path_join("a/", "b"), "a/b");
    EXPECT_EQ(path_join("", "b"), "b");
    EXPECT_EQ(path_join("a", ""), "a");
    EXPECT_EQ(path_join("/", "b"), "/b");
    EXPECT_EQ(path_parent("/a/b"), "/a");
    EXPECT_EQ(path_parent("/a"), "/");
    EXPECT_EQ(path_parent("a"), ".");
    EXPECT_EQ(path_name("/a/b"), "b");
    EXPECT_EQ(path_name("b"), "b");
    EXPECT_EQ(path_name("/a/"), "");
}

TEST(Os, AbsolutePathResolvesWhatIsThere) {
    ScratchDir dir;
    ASSERT_TRUE(real_os().make_dir(dir / "real").ok());
    ASSERT_EQ(::symlink("real", (dir / "link").c_str()), 0);
    EXPECT_EQ(*absolute_path(dir / "link/new/../x"), dir / "real/x");
    EXPECT_EQ(*absolute_path(dir.path() + "//real/./"), dir / "real");
    EXPECT_EQ(*absolute_path("/"), "/");
    EXPECT_EQ((*absolute_path("relative")).front(), '/');
}

TEST(Os, ClocksAndBoot) {
    std::int64_t a = monotonic_ns(), b = monotonic_ns();
    EXPECT_LE(a, b);
    EXPECT_GT(now_ns(), 1'600'000'000'000'000'000);
    EXPECT_FALSE(boot_id().empty());
    EXPECT_EQ(boot_id(), boot_id());
    EXPECT_EQ(real_os().boot_id(), boot_id());
    EXPECT_EQ(boot_id().find('\n'), std::string::npos);
    EXPECT_FALSE(home_dir().empty());
}

TEST(Time, OutOfRangeIsTheNearestThatFits) {
    EXPECT_EQ(time_ns(1, 5), 1'000'000'005);
    EXPECT_EQ(time_ns(-2, 999'999'999), -1'000'000'001);
    constexpr std::int64_t kSecond = 1'000'000'000, kMost = std::numeric_limits<std::int64_t>::max() / kSecond - 1;
    EXPECT_EQ(time_ns(kMost, 999'999'999), kMost * kSecond + 999'999'999);
    for (std::int64_t seconds : {kMost + 1, kMost + 2, std::numeric_limits<std::int64_t>::max()}) {
        EXPECT_EQ(time_ns(seconds, 999'999'999), kMost * kSecond) << seconds;
        EXPECT_EQ(time_ns(-seconds, 0), -kMost * kSecond) << seconds;
    }
}

}  // namespace
}  // namespace coral
