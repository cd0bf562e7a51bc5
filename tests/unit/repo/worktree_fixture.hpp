// SPDX-License-Identifier: Apache-2.0
// A worktree with one file open, over a disk that fails on demand, and a machine that is started anew on demand.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "coral/repo/worktree.hpp"
#include "support/failing_os.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {

class WorktreeFileTest : public ::testing::Test {
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
    // A file of data_ that is in the store.
    void create_stored(const std::string& name) {
        create(name);
        write(0, data_);
        close_stored();
    }
    void close_stored() {
        tree_->close_file(inode_, true);
        ASSERT_TRUE(tree_->wait_ingested());
    }
    // The same, and open for writing in a process that has no staging file of it: what is written lies over the stored
    // one.
    void create_overlaid(const std::string& name) {
        create_stored(name);
        open();
        find(name);
        ASSERT_TRUE(tree_->open_file(inode_, true, false));
    }
    Buffer read_all() {
        Buffer out(static_cast<std::size_t>(tree_->attributes(inode_).size));
        auto got = tree_->read(inode_, 0, out);
        EXPECT_TRUE(got) << got.error().message;
        EXPECT_EQ(*got, out.size());
        return out;
    }
    void cut_the_power() {
        close();
        os_.boots += "-power was cut";
        open();
    }

    test::TempDir dir_;
    test::FailingOs os_;
    ThreadPool pool_{"test", 2};
    std::unique_ptr<Repository> repo_;
    std::shared_ptr<Worktree> tree_;
    InodePtr inode_;
    const Buffer data_ = Buffer(3 * Worktree::kLinkUnit, std::byte{7});
};

}  // namespace coral::repo
