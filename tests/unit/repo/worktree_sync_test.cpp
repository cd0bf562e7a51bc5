// SPDX-License-Identifier: Apache-2.0
// fsync of a worktree's files beside everything else.
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

// What fsync knew when it began must not stand behind what was written meanwhile: the row's size goes into trees.
TEST(WorktreeSync, AFileThatIsWrittenWhileItIsSyncedKeepsItsSize) {
    test::TempDir dir;
    test::FailingOs os;
    ThreadPool pool("test", 2);
    auto repo = Repository::init(os, dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    auto opened = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(opened) << opened.error().message;
    const auto worktree = *opened;
    auto root = worktree->lookup_path("");
    ASSERT_TRUE(root);
    auto inode = worktree->create_file(*root, "f", 0644, 0, 0);
    ASSERT_TRUE(inode);
    const Buffer data(300'000, std::byte{7});
    ASSERT_TRUE(worktree->open_file(*inode, true, false));
    ASSERT_TRUE(worktree->write(*inode, 0, Bytes(data).first(1)));
    bool written = false;
    os.on_sync = [&](const std::string& path) {
        if (written || path.find("/staging/") == std::string::npos) return;
        written = true;
        EXPECT_TRUE(worktree->write(*inode, 0, data));
        EXPECT_TRUE(worktree->flush(*inode, true));
    };
    ASSERT_TRUE(worktree->sync_file(*inode));
    EXPECT_TRUE(written);
    worktree->close_file(*inode, true);
    ASSERT_TRUE(worktree->wait_ingested());
    os.on_sync = nullptr;
    CommitOptions options;
    options.message = "m";
    auto done = worktree->commit(options);
    ASSERT_TRUE(done) << done.error().message;
    auto commit = (*repo)->commit(done->id);
    ASSERT_TRUE(commit);
    auto tree = (*repo)->tree((*commit)->tree);
    ASSERT_TRUE(tree);
    ASSERT_EQ((*tree)->entries.size(), 1u);
    EXPECT_EQ((*tree)->entries[0].size, data.size());
}

// A write that is under way when fsync begins is not among what fsync vouches for.
TEST(WorktreeSync, AFileThatIsSyncedWhileItIsWrittenIsNotTakenForComplete) {
    test::TempDir dir;
    test::FailingOs os;
    ThreadPool pool("test", 2);
    {
        auto repo = Repository::init(os, dir.path() + "/r", {});
        ASSERT_TRUE(repo) << repo.error().message;
        auto opened = Worktree::open(**repo, "main", pool);
        ASSERT_TRUE(opened) << opened.error().message;
        const auto worktree = *opened;
        auto root = worktree->lookup_path("");
        ASSERT_TRUE(root);
        auto inode = worktree->create_file(*root, "f", 0644, 0, 0);
        ASSERT_TRUE(inode);
        const Buffer data(300'000, std::byte{7});
        ASSERT_TRUE(worktree->open_file(*inode, true, false));
        ASSERT_TRUE(worktree->write(*inode, 0, Bytes(data).first(1)));
        bool synced = false;
        os.on_write = [&](const std::string& path) {
            if (synced || path.find("/staging/") == std::string::npos) return;
            synced = true;
            os.unreadable = path;  // it stays where it is: its ingest fails
            EXPECT_TRUE(worktree->sync_file(*inode));
        };
        ASSERT_TRUE(worktree->write(*inode, 0, data));
        EXPECT_TRUE(synced);
        os.on_write = nullptr;
        ASSERT_TRUE(worktree->flush(*inode, true));
        worktree->close_file(*inode, true);
        ASSERT_TRUE(worktree->sync_names());
        EXPECT_FALSE(worktree->wait_ingested());
    }
    os.boots = "-power was cut";
    auto repo = Repository::open(os, dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    auto worktree = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(worktree) << worktree.error().message;
    auto inode = (*worktree)->lookup_path("f");
    ASSERT_TRUE(inode);
    EXPECT_TRUE((*worktree)->attributes(*inode).incomplete);
}

// The row of a unit that such a write fills may reach the disk with what fsync writes to state.db: so fsync waits for
// the unit's bytes, and syncs them.
TEST(WorktreeSync, UnitsThatAreBeingFilledAreWaitedFor) {
    test::TempDir dir;
    test::FailingOs os;
    ThreadPool pool("test", 2);
    auto repo = Repository::init(os, dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    auto opened = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(opened) << opened.error().message;
    auto worktree = *opened;
    auto root = worktree->lookup_path("");
    ASSERT_TRUE(root);
    auto inode = worktree->create_file(*root, "f", 0644, 0, 0);
    ASSERT_TRUE(inode);
    const Buffer data(3 * Worktree::kLinkUnit, std::byte{7});
    ASSERT_TRUE(worktree->open_file(*inode, true, false));
    ASSERT_TRUE(worktree->write(*inode, 0, data));
    worktree->close_file(*inode, true);
    ASSERT_TRUE(worktree->wait_ingested());
    // The next owner lets the staging file go: what is written then lies over the stored one.
    inode = InodePtr();
    root = InodePtr();
    worktree.reset();
    opened = std::shared_ptr<Worktree>();
    opened = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(opened) << opened.error().message;
    worktree = *opened;
    inode = worktree->lookup_path("f");
    ASSERT_TRUE(inode);
    ASSERT_TRUE(worktree->open_file(*inode, true, false));
    ASSERT_TRUE(worktree->write(*inode, 0, Bytes(data).first(1)));
    std::atomic<bool> begun{false}, done{false};
    std::thread sync;
    os.on_write = [&](const std::string& path) {
        if (path.find("/staging/") == std::string::npos || begun.exchange(true)) return;
        sync = std::thread([&] {
            EXPECT_TRUE(worktree->sync_file(*inode));
            done = true;
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        EXPECT_FALSE(done);
    };
    ASSERT_TRUE(worktree->write(*inode, Worktree::kLinkUnit + 5, Bytes(data).first(1)));
    ASSERT_TRUE(begun);
    sync.join();
    EXPECT_TRUE(done);
    worktree->close_file(*inode, true);
    ASSERT_TRUE(worktree->wait_ingested());
}

// What an earlier process left to be ingested counts from the beginning.
TEST(WorktreeSync, WhatWaitsAtARestartIsPartOfTheBacklog) {
    test::TempDir dir;
    test::FailingOs os;
    ThreadPool pool("test", 2);
    std::mutex held;
    constexpr std::size_t kFiles = 5, kSize = 300'000;
    {
        auto repo = Repository::init(os, dir.path() + "/r", {});
        ASSERT_TRUE(repo) << repo.error().message;
        auto opened = Worktree::open(**repo, "main", pool);
        ASSERT_TRUE(opened) << opened.error().message;
        auto root = (*opened)->lookup_path("");
        ASSERT_TRUE(root);
        const Buffer data(kSize, std::byte{7});
        std::vector<InodePtr> files;
        os.on_read = [](std::size_t) { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
        for (std::size_t i = 0; i < kFiles; ++i) {
            auto inode = (*opened)->create_file(*root, std::to_string(i), 0644, 0, 0);
            ASSERT_TRUE(inode);
            ASSERT_TRUE((*opened)->open_file(*inode, true, false));
            ASSERT_TRUE((*opened)->write(*inode, 0, data));
            files.push_back(*inode);
        }
        for (const InodePtr& inode : files) (*opened)->close_file(inode, true);
    }
    auto repo = Repository::open(os, dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    std::unique_lock hold(held);
    os.on_read = [&](std::size_t) { std::lock_guard wait(held); };
    auto worktree = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(worktree) << worktree.error().message;
    auto backlog = std::make_shared<Backlog>(os, dir.path(), 0);
    (*worktree)->count_in(backlog);
    EXPECT_GE(backlog->bytes(), (kFiles - 1) * kSize) << "the first one may be at work already";
    EXPECT_TRUE(backlog->behind());
    hold.unlock();
    ASSERT_TRUE((*worktree)->wait_ingested());
    EXPECT_EQ(backlog->bytes(), 0u);
    EXPECT_FALSE(backlog->behind());
}

}  // namespace
}  // namespace coral::repo
