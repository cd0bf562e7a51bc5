// SPDX-License-Identifier: Apache-2.0
// copy_file_range(2) where the disk has no room left.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <mutex>

#include "support/failing_os.hpp"
#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

class CopyOnAFullDisk : public VfsTest {
  protected:
    Os& os() override { return os_; }
    void TearDown() override {
        VfsTest::TearDown();
        repo_.reset();  // before what it works on
    }
    FailingOs os_;
    std::mutex held_;  // as long as what waits for it
};

// The kernel takes an error for "nothing was changed": so must it be, or the next append would be in the wrong place.
TEST_F(CopyOnAFullDisk, AnErrorLeavesTheTargetAsItWas) {
    const std::string data = noise(4u << 20, 12);
    ASSERT_OK(c().put("branches/main/f", data));
    const std::string root = "commits/" + commit().hex();
    remount();
    auto in = c().open(root + "/f", O_RDONLY);
    auto out = c().create("branches/main/g", O_RDWR);
    ASSERT_OK(in);
    ASSERT_OK(out);
    ASSERT_OK(c().write(out->handle, 0, "begun"));
    os_.bytes_left = 0;
    EXPECT_ERRC(fs_->copy_range(in->handle, 0, out->handle, 5, data.size()), Errc::kNoSpace);
    EXPECT_VALUE(c().read_all(out->handle), "begun");
    os_.bytes_left = -1;
    std::uint64_t done = 0;
    for (int i = 0; i < 10 && done < data.size(); ++i) {
        auto part = fs_->copy_range(in->handle, done, out->handle, 5 + done, data.size() - done);
        ASSERT_OK(part);
        done += *part;
    }
    EXPECT_TRUE(*c().read_all(out->handle) == "begun" + data);
    ASSERT_OK(c().close(in->handle));
    ASSERT_OK(c().close(out->handle));
}

// An append that found no room leaves a file that is shorter than it was going to be: what is linked there afterwards
// stays when the next process asks the file below for its size.
TEST_F(CopyOnAFullDisk, WhatIsLinkedAfterAFailedAppendStays) {
    const std::uint64_t unit = repo::Worktree::kLinkUnit;
    const std::string data = noise(2 * unit, 13);
    ASSERT_OK(c().put("branches/main/f", data));
    const std::string root = "commits/" + commit().hex();
    remount();
    auto in = c().open(root + "/f", O_RDONLY);
    auto out = c().create("branches/main/g", O_WRONLY | O_APPEND);
    auto linked = c().open("branches/main/g", O_RDWR);
    ASSERT_OK(in);
    ASSERT_OK(out);
    ASSERT_OK(linked);
    os_.bytes_left = 0;
    const std::string much = noise(unit * 8, 14);
    EXPECT_ERRC(fs_->write(out->handle, 0, as_bytes(much), vfs::WriteFrom::kAppender), Errc::kNoSpace);
    os_.bytes_left = -1;
    EXPECT_VALUE(fs_->copy_range(in->handle, 0, linked->handle, unit, data.size()), data.size());
    std::uint64_t longest = 0;
    for (const auto& at : std::filesystem::recursive_directory_iterator(dir() + "/staging")) {
        if (at.is_regular_file()) longest = std::max<std::uint64_t>(longest, at.file_size());
    }
    EXPECT_GE(longest, unit + data.size());
    EXPECT_VALUE(c().read(linked->handle, unit, data.size()), data);
    for (auto* each : {&in->handle, &out->handle, &linked->handle}) ASSERT_OK(c().close(*each));
}

// While ingest is behind a copy is a writer like any other: one call brings no more than a few writes would, and
// whoever comes next does not wait for what it has not brought yet.
TEST_F(CopyOnAFullDisk, IsSlowedDownWhileIngestIsBehind) {
    vfs::Options options;
    options.backlog = 0;
    remount(options);
    std::unique_lock hold(held_);
    os_.on_write = [&](const std::string& path) {
        if (path.ends_with(".pack")) std::lock_guard wait(held_);
    };
    const std::string data = noise(16u << 20, 15);
    ASSERT_OK(c().put("branches/main/f", data));
    auto in = c().open("branches/main/f", O_RDONLY);
    auto out = c().create("branches/main/g", O_WRONLY);
    ASSERT_OK(in);
    ASSERT_OK(out);
    ASSERT_TRUE(fs_->behind());
    std::uint64_t done = 0;
    int calls = 0;
    for (; calls < 100 && done < data.size(); ++calls) {
        auto part = fs_->copy_range(in->handle, done, out->handle, done, data.size() - done);
        ASSERT_OK(part);
        done += *part;
    }
    EXPECT_GE(calls, 4);
    EXPECT_GT(fs_->turn(out->handle), std::chrono::steady_clock::time_point{});
    hold.unlock();
    ASSERT_OK(c().close(in->handle));
    ASSERT_OK(c().close(out->handle));
    EXPECT_TRUE(*c().cat("branches/main/g") == data);
}

}  // namespace
}  // namespace coral::test
