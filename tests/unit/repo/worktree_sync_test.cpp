// SPDX-License-Identifier: Apache-2.0
// fsync of a worktree's files beside everything else, and what the next process finds.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "repo/state.hpp"
#include "unit/repo/worktree_fixture.hpp"

namespace coral::repo {
namespace {

class WorktreeSync : public WorktreeFileTest {};

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
    close_stored();
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
    cut_the_power();
    find("f");
    EXPECT_TRUE(tree_->attributes(inode_).incomplete);
}

// The row of a unit that such a write fills may reach the disk with what fsync writes to state.db: so fsync waits for
// the unit's bytes, and syncs them.
TEST_F(WorktreeSync, UnitsThatAreBeingFilledAreWaitedFor) {
    create_overlaid("f");
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
    close_stored();
}

// A file that was synced, then became a copy of a stored one: what is written after the next fsync has never been
// synced, whatever was of the file's earlier bytes.
TEST_F(WorktreeSync, WhatIsWrittenOverACopyIsNotTakenForSynced) {
    create_stored("source");
    auto content = tree_->content_id(inode_);
    ASSERT_TRUE(content);
    create("f");
    write(0, Bytes(data_).first(1));
    ASSERT_TRUE(tree_->sync_file(inode_));
    ASSERT_TRUE(tree_->place_content(inode_, *content, data_.size()));
    ASSERT_TRUE(tree_->sync_file(inode_));
    const Buffer other(10, std::byte{1});
    write(Worktree::kLinkUnit, other);
    ASSERT_TRUE(tree_->sync_names());  // of all that is in state.db: the rows of that write, too
    cut_the_power();
    find("f");
    EXPECT_FALSE(tree_->attributes(inode_).incomplete);
    EXPECT_EQ(read_all(), data_);
}

// The kernel tells of bytes that the disk did not take once. Who asks again must not hear that all is well.
TEST_F(WorktreeSync, AfterAFailureFsyncFailsUntilTheFileIsWrittenAnew) {
    create("f");
    write(0, data_);
    os_.fail_sync = true;
    EXPECT_FALSE(tree_->sync_file(inode_));
    os_.fail_sync = false;
    EXPECT_FALSE(tree_->sync_file(inode_));
    write(0, data_);  // the first bytes again; the others may be lost
    EXPECT_FALSE(tree_->sync_file(inode_));
    SetAttributes empty;
    empty.size = 0;
    ASSERT_TRUE(tree_->set_attributes(inode_, empty));
    write(0, data_);
    EXPECT_TRUE(tree_->sync_file(inode_));
    close_stored();
}

// A write into a unit of a stored file syncs it on its own account once the file was synced: what that is told is kept.
TEST_F(WorktreeSync, AFailureThatAWriteWasToldIsToldToFsyncToo) {
    create_overlaid("f");
    write(0, Bytes(data_).first(1));
    ASSERT_TRUE(tree_->sync_file(inode_));
    write(1, Bytes(data_).first(1));
    os_.fail_sync = true;
    EXPECT_FALSE(tree_->write(inode_, Worktree::kLinkUnit, Bytes(data_).first(1)));
    os_.fail_sync = false;
    EXPECT_FALSE(tree_->sync_file(inode_));
    close_stored();
}

// One damaged record must not take the branch with it, and who finds the file must be able to remove it.
TEST_F(WorktreeSync, AFileOverADamagedOneCanBeRemoved) {
    create("other");
    write(0, data_);
    tree_->close_file(inode_, true);
    create("f");
    os_.on_write = [&](const std::string& path) {
        if (staging(path)) os_.unreadable = path;  // it waits for the next process: its ingest fails
    };
    write(0, data_);
    os_.on_write = nullptr;
    tree_->close_file(inode_, true);
    EXPECT_FALSE(tree_->wait_ingested());
    ASSERT_TRUE(repo_->state().write([](Database& db) {
        return db.execute("UPDATE inode SET overlay=zeroblob(32), overlay_limit=size WHERE name=CAST('f' AS BLOB)");
    }));
    open();
    find("f");
    EXPECT_FALSE(tree_->wait_ingested());  // it cannot be stored: said now, not to the commit below
    Buffer out(data_.size());
    EXPECT_FALSE(tree_->read(inode_, 0, out));
    find("other");
    EXPECT_EQ(read_all(), data_);
    ASSERT_TRUE(tree_->unlink(tree_->root(), "f"));
    EXPECT_FALSE(tree_->lookup_path("f"));
    CommitOptions options;
    options.message = "without it";
    EXPECT_TRUE(tree_->commit(options));
}

// A commit that comes right behind has no file to miss.
TEST_F(WorktreeSync, WhatFailsOfAFileThatIsRemovedMeanwhileIsForgotten) {
    std::atomic<bool> reading{false}, removed{false};
    os_.on_read = [&, removes = std::this_thread::get_id()](std::size_t) {
        reading = true;
        while (!removed && std::this_thread::get_id() != removes) std::this_thread::yield();
    };
    create("f");
    os_.on_write = [&](const std::string& path) {
        if (staging(path)) os_.unreadable = path;
    };
    write(0, data_);
    os_.on_write = nullptr;
    tree_->close_file(inode_, true);
    while (!reading) std::this_thread::yield();
    EXPECT_TRUE(tree_->unlink(tree_->root(), "f"));
    removed = true;
    auto stored = tree_->wait_ingested();
    EXPECT_TRUE(stored) << stored.error().message;
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
