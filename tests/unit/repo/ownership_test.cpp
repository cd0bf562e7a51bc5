// SPDX-License-Identifier: Apache-2.0
// Who owns a worktree when its branch is deleted or renamed.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "coral/base/thread_pool.hpp"
#include "coral/repo/worktree.hpp"
#include "repo/worktree_lock.hpp"
#include "support/forwarding_os.hpp"
#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

// Another process does something right after a lock file was opened.
class BetweenOpenAndLock final : public test::ForwardingOs {
  public:
    BetweenOpenAndLock() : ForwardingOs(coral::boot_id()) {}
    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        auto file = ForwardingOs::open(path, mode);
        if (path.ends_with(".lock") && happens) std::exchange(happens, nullptr)();
        return file;
    }
    std::function<void()> happens;
};

class OwnershipTest : public testing::RepositoryTest {
  protected:
    void SetUp() override {
        RepositoryTest::SetUp();
        ASSERT_OK(repo_->create_branch("x", std::nullopt, ""));
        uuid_ = repo_->branch("x")->worktree;
    }
    // Files and folders that are left of the worktree.
    std::string left_over() {
        std::string found;
        for (const char* folder : {"run", "staging"}) {
            auto names = real_os().list_dir(path_join(dir(), folder));
            for (const std::string& name : names.value_or({})) {
                if (name.starts_with(uuid_.text())) found += name + " ";
            }
        }
        return found;
    }
    std::unique_ptr<Repository> through(Os& os) {
        auto opened = Repository::open(os, dir(), options());
        EXPECT_OK(opened);
        return opened ? std::move(*opened) : nullptr;
    }

    ThreadPool pool_{"test", 2};
    Uuid uuid_;
};

TEST_F(OwnershipTest, ADeletedBranchLeavesNothing) {
    ASSERT_OK(Worktree::open(*repo_, "x", pool_));
    ASSERT_OK(
        write_file_atomic(real_os(), Worktree::owner_path(*repo_, uuid_), as_bytes("/of/a/killed/daemon.sock\n")));
    EXPECT_NE(left_over(), "");
    ASSERT_OK(repo_->delete_branch("x", ""));
    EXPECT_EQ(left_over(), "");
}

TEST_F(OwnershipTest, AnOwnedBranchIsNeitherDeletedNorRenamed) {
    auto owner = Worktree::open(*repo_, "x", pool_);
    ASSERT_OK(owner);
    auto other = reopen();
    EXPECT_ERROR(other->delete_branch("x", ""), Errc::kBusy, "owns");
    EXPECT_ERROR(other->rename_branch("x", "y"), Errc::kBusy, "owns");
    EXPECT_EQ((*owner)->branch(), repo_->branch("x")->name);
    owner = make_error(Errc::kStale, "left");
    ASSERT_OK(other->rename_branch("x", "y"));
    ASSERT_OK(Worktree::open(*repo_, "y", pool_));
    ASSERT_OK(other->delete_branch("y", ""));
    EXPECT_EQ(left_over(), "");
}

// `coral status` looks whether the lock is free, and a daemon that gives a branch back takes a moment for it.
TEST_F(OwnershipTest, AnOwnerThatIsLeavingIsWaitedFor) {
    auto owner = Worktree::open(*repo_, "x", pool_);
    ASSERT_OK(owner);
    std::thread leaver([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        owner = make_error(Errc::kStale, "left");
    });
    auto other = reopen();
    EXPECT_OK(other->delete_branch("x", ""));
    leaver.join();
}

TEST_F(OwnershipTest, ALockFileThatHasGoneMeanwhileOwnsNothing) {
    BetweenOpenAndLock os;
    auto other = through(os);
    os.happens = [&] { ASSERT_OK(real_os().remove(Worktree::lock_path(*repo_, uuid_))); };
    auto lock = lock_worktree(*other, uuid_);
    ASSERT_OK(lock);
    ASSERT_TRUE(*lock);
    EXPECT_EQ((*lock)->stat()->inode, real_os().stat(Worktree::lock_path(*repo_, uuid_))->inode);
    auto second = lock_worktree(*repo_, uuid_);
    ASSERT_OK(second);
    EXPECT_FALSE(*second) << "two owners of one worktree";
}

TEST_F(OwnershipTest, OpeningABranchThatIsDeletedMeanwhile) {
    BetweenOpenAndLock os;
    auto other = through(os);
    os.happens = [&] { ASSERT_OK(repo_->delete_branch("x", "")); };
    EXPECT_ERROR(Worktree::open(*other, "x", pool_), Errc::kNotFound, "deleted");
    EXPECT_EQ(left_over(), "");
}

TEST_F(OwnershipTest, OpeningABranchThatIsRenamedMeanwhile) {
    BetweenOpenAndLock os;
    auto other = through(os);
    os.happens = [&] { ASSERT_OK(repo_->rename_branch("x", "y")); };
    EXPECT_ERROR(Worktree::open(*other, "x", pool_), Errc::kNotFound, "renamed to y");
    EXPECT_OK(Worktree::open(*other, "y", pool_));
}

TEST_F(OwnershipTest, ABackupWithoutRunIsARepository) {
    std::filesystem::remove_all(dir() + "/run");
    EXPECT_OK(Worktree::open(*repo_, "x", pool_));
    std::filesystem::remove_all(dir() + "/run");
    EXPECT_OK(repo_->delete_branch("x", ""));
}

}  // namespace
}  // namespace coral::repo
