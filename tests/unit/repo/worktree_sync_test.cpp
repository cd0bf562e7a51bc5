// SPDX-License-Identifier: Apache-2.0
// fsync of a worktree's files beside everything else.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace coral::repo
