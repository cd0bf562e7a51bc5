// SPDX-License-Identifier: Apache-2.0
// fsync(2) of files and directories asks the disk, and tells what it says; what a power cut leaves then is
// tests/crash's affair.
#include "support/failing_os.hpp"
#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

class SyncTest : public VfsTest {
  protected:
    Os& os() override { return os_; }
    void TearDown() override {
        VfsTest::TearDown();
        repo_.reset();  // before what it works on
    }
    FailingOs os_;
};

TEST_F(SyncTest, OfAFileAsksTheDiskAndWaitsForNoEncoding) {
    auto open = c().create("branches/main/f", O_RDWR);
    ASSERT_OK(open);
    ASSERT_OK(c().write(open->handle, 0, "bytes"));
    const int before = os_.syncs;
    EXPECT_OK(fs_->sync(open->handle));
    EXPECT_GT(os_.syncs, before);
    EXPECT_ERRC(c().xattr("branches/main/f", "user.coral.sha256"), Errc::kNoData) << "not stored yet";
    ASSERT_OK(c().write(open->handle, 5, " more"));
    os_.fail_sync = true;
    EXPECT_FALSE(fs_->sync(open->handle).ok());
    os_.fail_sync = false;
    ASSERT_OK(c().close(open->handle));
}

TEST_F(SyncTest, OfADirectoryAsksTheDisk) {
    ASSERT_OK(c().put("branches/main/f", noise(100'000, 1)));
    settle();  // what is in packs now is not on the disk
    auto main = c().walk("branches/main");
    ASSERT_OK(main);
    const int before = os_.syncs;
    EXPECT_OK(fs_->sync_directory(main->id()));
    EXPECT_GT(os_.syncs, before);
}

}  // namespace
}  // namespace coral::test
