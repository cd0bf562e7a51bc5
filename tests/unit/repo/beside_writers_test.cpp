// SPDX-License-Identifier: Apache-2.0
// Commits and questions beside writers: files that are not complete, and those that the kernel writes by itself.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <random>
#include <string>
#include <thread>

#include "coral/repo/worktree.hpp"
#include "support/forwarding_os.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {
namespace {

// An answer to stat() of a staging file can be held back.
class SlowAnswers : public test::ForwardingOs {
  public:
    SlowAnswers() : ForwardingOs("boot") {}

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        CORAL_TRY(auto file, ForwardingOs::open(path, mode));
        if (path.find("/staging/") == std::string::npos) return file;
        return std::unique_ptr<File>(std::make_unique<SlowFile>(*this, std::move(file)));
    }

    std::atomic<bool> hold_next{false};
    std::promise<void> held, go_on;

  private:
    class SlowFile final : public File {
      public:
        SlowFile(SlowAnswers& os, std::unique_ptr<File> file) : os_(os), file_(std::move(file)) {}
        Result<std::size_t> read_at(std::uint64_t at, MutableBytes out) override { return file_->read_at(at, out); }
        Status write_at(std::uint64_t at, Bytes data) override { return file_->write_at(at, data); }
        Status truncate(std::uint64_t size) override { return file_->truncate(size); }
        Status sync_data() override { return file_->sync_data(); }
        Result<FileStat> stat() override {
            auto answer = file_->stat();
            if (os_.hold_next.exchange(false)) {
                os_.held.set_value();
                os_.go_on.get_future().wait();
            }
            return answer;
        }
        Status change_mode(std::uint32_t mode) override { return file_->change_mode(mode); }
        Status set_mtime(std::int64_t ns) override { return file_->set_mtime(ns); }
        Result<bool> try_lock(bool exclusive) override { return file_->try_lock(exclusive); }
        Status unlock() override { return file_->unlock(); }
        int native_handle() const override { return file_->native_handle(); }

      private:
        SlowAnswers& os_;
        std::unique_ptr<File> file_;
    };
};

Buffer text(std::size_t size, char letter) {
    return Buffer(size, static_cast<std::byte>(letter));
}

Status save(Worktree& tree, const std::string& name, const Buffer& data, bool whole) {
    CORAL_TRY(auto inode, tree.create_file(tree.root(), name, 0644, 0, 0));
    CORAL_CHECK(tree.open_file(inode, true, true));
    CORAL_CHECK(tree.write(inode, 0, data));
    if (!whole) return {};
    CORAL_CHECK(tree.flush(inode, true));
    tree.close_file(inode, true);
    return {};
}

// What was asked before the last write must not win over what was asked after it: the row says how much of the staging
// file counts, and a close that came just then would cut the file.
TEST(BesideWriters, AnOldAnswerAboutTheSizeDoesNotUndoANewOne) {
    test::TempDir dir;
    SlowAnswers os;
    ThreadPool pool("test", 2);
    auto repo = Repository::init(os, dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    auto tree = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(tree) << tree.error().message;
    auto inode = (*tree)->create_file((*tree)->root(), "model", 0644, 0, 0);
    ASSERT_TRUE(inode) << inode.error().message;
    ASSERT_TRUE((*tree)->open_file(*inode, true, false));
    ASSERT_TRUE((*tree)->lend(*inode, {.writable = true}).value_or(false));
    std::string folder = dir.path() + "/r/staging/" + (*tree)->uuid().text();
    auto staged = real_os().list_dir(folder);
    ASSERT_TRUE(staged && staged->size() == 1);
    auto kernel = real_os().open(path_join(folder, staged->front()), OpenMode::kReadWrite);
    ASSERT_TRUE(kernel) << kernel.error().message;
    ASSERT_TRUE((*kernel)->write_at(0, text(1000, 'a')));

    os.hold_next = true;
    std::uint64_t late = 0;
    std::thread asks([&] { late = (*tree)->attributes(*inode).size; });
    os.held.get_future().wait();
    ASSERT_TRUE((*kernel)->write_at(1000, text(5000, 'b')));
    EXPECT_EQ((*tree)->attributes(*inode).size, 6000u);
    os.go_on.set_value();
    asks.join();
    EXPECT_EQ(late, 6000u);
    kernel->reset();
    (*tree)->close_lent(*inode, true);
    EXPECT_EQ((*tree)->attributes(*inode).size, 6000u);
}

// A file that was removed and is being made anew, or is not stored yet: a commit beside it is not without the name.
TEST(BesideWriters, WhatWasNeverCompleteDoesNotPushTheCommittedFileOut) {
    test::TempDir dir;
    ThreadPool pool("test", 2);
    auto repo = Repository::init(real_os(), dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    CommitOptions options;
    options.message = "beside";
    options.allow_open = true;
    {
        auto tree = Worktree::open(**repo, "main", pool);
        ASSERT_TRUE(tree) << tree.error().message;
        ASSERT_TRUE(save(**tree, "latest", text(5000, 'a'), true));
        ASSERT_TRUE((*tree)->commit(options));
        ASSERT_TRUE((*tree)->unlink((*tree)->root(), "latest"));
        ASSERT_TRUE(save(**tree, "latest", text(700, 'b'), false));
    }  // without a close: its writer was cut off
    auto tree = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(tree) << tree.error().message;
    ASSERT_TRUE(save(**tree, "other", text(10, 'c'), true));
    auto done = (*tree)->commit(options);
    ASSERT_TRUE(done) << done.error().message;
    auto commit = (*repo)->commit(done->id);
    ASSERT_TRUE(commit) << commit.error().message;
    auto committed = (*repo)->tree((*commit)->tree);
    ASSERT_TRUE(committed) << committed.error().message;
    const TreeEntry* entry = (*committed)->find("latest");
    ASSERT_TRUE(entry) << "the name is not in the commit";
    EXPECT_EQ(entry->size, 5000u);
}

// Waiting for ingest ends although somebody saves without a pause: the queue is never empty.
TEST(BesideWriters, WaitingForIngestIsForWhatIsThereNow) {
    test::TempDir dir;
    ThreadPool pool("test", 2);
    auto repo = Repository::init(real_os(), dir.path() + "/r", {});
    ASSERT_TRUE(repo) << repo.error().message;
    auto opened = Worktree::open(**repo, "main", pool);
    ASSERT_TRUE(opened) << opened.error().message;
    Worktree& tree = **opened;
    std::mt19937_64 random(1);
    Buffer data(1'000'000);
    for (std::byte& b : data) b = static_cast<std::byte>(random());
    std::atomic<int> saved{0};
    std::atomic<bool> enough{false};
    std::thread saver([&] {  // never without something that waits
        for (int i = 0; !enough; ++i) {
            while (tree.pending() > 16) std::this_thread::yield();
            std::memcpy(data.data(), &i, sizeof i);
            if (!save(tree, "f" + std::to_string(i % 50), data, true)) return;
            ++saved;
        }
    });
    while (saved < 20) std::this_thread::yield();
    EXPECT_TRUE(tree.wait_ingested()) << "and it returned, though he goes on for ever";
    enough = true;
    saver.join();
}

}  // namespace
}  // namespace coral::repo
