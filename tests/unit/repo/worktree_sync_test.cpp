// SPDX-License-Identifier: Apache-2.0
// fsync of a worktree's files beside everything else, and what the next process finds.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "coral/repo/worktree.hpp"
#include "support/failing_os.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {
namespace {

class WorktreeSync : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(Repository::init(os_, path(), {}));
        open();
    }
    void TearDown() override {
        os_.on_read = nullptr;
        close();
    }
    std::string path() const { return dir_.path() + "/r"; }
    static bool staging(const std::string& path) { return path.find("/staging/") != std::string::npos; }

    // The next process's.
    void open() {
        open_repository();
        open_tree();
    }
    void open_repository() {
        close();
        auto repo = Repository::open(os_, path(), {});
        ASSERT_TRUE(repo) << repo.error().message;
        repo_ = std::move(*repo);
    }
    void open_tree() {
        auto tree = Worktree::open(*repo_, "main", pool_);
        ASSERT_TRUE(tree) << tree.error().message;
        tree_ = *tree;
    }
    void close() {
        inode_.reset();
        tree_.reset();
        repo_.reset();
    }
    // Open for writing, as inode_.
    void create(const std::string& name) {
        auto root = tree_->lookup_path("");
        ASSERT_TRUE(root);
        auto made = tree_->create_file(*root, name, 0644, 0, 0);
        ASSERT_TRUE(made) << made.error().message;
        inode_ = *made;
        ASSERT_TRUE(tree_->open_file(inode_, true, false));
    }
    void find(const std::string& name) {
        auto found = tree_->lookup_path(name);
        ASSERT_TRUE(found) << found.error().message;
        inode_ = *found;
    }
    void write(std::uint64_t offset, Bytes bytes) { ASSERT_TRUE(tree_->write(inode_, offset, bytes)); }

    test::TempDir dir_;
    test::FailingOs os_;
    ThreadPool pool_{"test", 2};
    std::unique_ptr<Repository> repo_;
    std::shared_ptr<Worktree> tree_;
    InodePtr inode_;
    const Buffer data_ = Buffer(3 * Worktree::kLinkUnit, std::byte{7});
};

// What fsync knew when it began must not stand behind what was written meanwhile: the row's size goes into trees.
TEST_F(WorktreeSync, AFileThatIsWrittenWhileItIsSyncedKeepsItsSize) {
    create("f");
    write(0, Bytes(data_).first(1));
    bool written = false;
    os_.on_sync = [&](const std::string& path) {
        if (written || !staging(path)) return;
        written = true;
        write(0, data_);
        EXPECT_TRUE(tree_->flush(inode_, true));
    };
    ASSERT_TRUE(tree_->sync_file(inode_));
    EXPECT_TRUE(written);
    tree_->close_file(inode_, true);
    ASSERT_TRUE(tree_->wait_ingested());
    os_.on_sync = nullptr;
    CommitOptions options;
    options.message = "m";
    auto done = tree_->commit(options);
    ASSERT_TRUE(done) << done.error().message;
    auto commit = repo_->commit(done->id);
    ASSERT_TRUE(commit);
    auto tree = repo_->tree((*commit)->tree);
    ASSERT_TRUE(tree);
    ASSERT_EQ((*tree)->entries.size(), 1u);
    EXPECT_EQ((*tree)->entries[0].size, data_.size());
}

// A write that is under way when fsync begins is not among what fsync vouches for.
TEST_F(WorktreeSync, AFileThatIsSyncedWhileItIsWrittenIsNotTakenForComplete) {
    create("f");
    write(0, Bytes(data_).first(1));
    bool synced = false;
    os_.on_write = [&](const std::string& path) {
        if (synced || !staging(path)) return;
        synced = true;
        os_.unreadable = path;  // it stays where it is: its ingest fails
        EXPECT_TRUE(tree_->sync_file(inode_));
    };
    write(0, data_);
    EXPECT_TRUE(synced);
    os_.on_write = nullptr;
    ASSERT_TRUE(tree_->flush(inode_, true));
    tree_->close_file(inode_, true);
    ASSERT_TRUE(tree_->sync_names());
    EXPECT_FALSE(tree_->wait_ingested());
    close();
    os_.boots = "-power was cut";
    open();
    find("f");
    EXPECT_TRUE(tree_->attributes(inode_).incomplete);
}

// The row of a unit that such a write fills may reach the disk with what fsync writes to state.db: so fsync waits for
// the unit's bytes, and syncs them.
TEST_F(WorktreeSync, UnitsThatAreBeingFilledAreWaitedFor) {
    create("f");
    write(0, data_);
    tree_->close_file(inode_, true);
    ASSERT_TRUE(tree_->wait_ingested());
    open();  // lets the staging file go: what is written now lies over the stored one
    find("f");
    ASSERT_TRUE(tree_->open_file(inode_, true, false));
    write(0, Bytes(data_).first(1));
    std::atomic<bool> begun{false}, done{false};
    std::thread sync;
    os_.on_write = [&](const std::string& path) {
        if (!staging(path) || begun.exchange(true)) return;
        sync = std::thread([&] {
            EXPECT_TRUE(tree_->sync_file(inode_));
            done = true;
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        EXPECT_FALSE(done);
    };
    write(Worktree::kLinkUnit + 5, Bytes(data_).first(1));
    ASSERT_TRUE(begun);
    sync.join();
    EXPECT_TRUE(done);
    tree_->close_file(inode_, true);
    ASSERT_TRUE(tree_->wait_ingested());
}

// What an earlier process left to be ingested counts from the beginning.
TEST_F(WorktreeSync, WhatWaitsAtARestartIsPartOfTheBacklog) {
    constexpr std::size_t kFiles = 5;
    os_.on_read = [](std::size_t) { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
    std::vector<InodePtr> files;
    for (std::size_t i = 0; i < kFiles; ++i) {
        create(std::to_string(i));
        write(0, data_);
        files.push_back(inode_);
    }
    for (const InodePtr& inode : files) tree_->close_file(inode, true);
    files.clear();
    open_repository();
    std::mutex held;
    std::unique_lock hold(held);
    os_.on_read = [&](std::size_t) { std::lock_guard wait(held); };
    open_tree();
    auto backlog = std::make_shared<Backlog>(os_, dir_.path(), 0);
    tree_->count_in(backlog);
    EXPECT_GE(backlog->bytes(), (kFiles - 2) * data_.size()) << "one or two may be at work, or done, already";
    EXPECT_TRUE(backlog->behind());
    hold.unlock();
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_EQ(backlog->bytes(), 0u);
    EXPECT_FALSE(backlog->behind());
}

}  // namespace
}  // namespace coral::repo
