// SPDX-License-Identifier: Apache-2.0
// Staging files that serve again where many small files come.
#include "repo/spare_files.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "coral/repo/worktree.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {
namespace {

constexpr std::int64_t kStart = 1'000'000'000'000;

TEST(SpareFiles, AsManyAreKeptAsWereNeededOfLate) {
    SpareFiles spares;
    EXPECT_FALSE(spares.wants(kStart));
    for (std::size_t i = 1; i < SpareFiles::kLeast; ++i) EXPECT_FALSE(spares.take(kStart));
    EXPECT_FALSE(spares.wants(kStart)) << "a few are not worth it";
    EXPECT_FALSE(spares.take(kStart));
    std::vector<Uuid> put;
    while (spares.wants(kStart)) spares.put(put.emplace_back(Uuid::random()));
    EXPECT_EQ(put.size(), SpareFiles::kLeast);
    EXPECT_EQ(spares.take(kStart), put.back());
    EXPECT_TRUE(spares.excess(kStart + SpareFiles::kWindow).empty());
    EXPECT_EQ(spares.excess(kStart + 2 * SpareFiles::kWindow).size(), put.size() - 1) << "nobody needed one since";
    EXPECT_FALSE(spares.take(kStart));
}

TEST(SpareFiles, NoneIsWantedAfterTheEnd) {
    SpareFiles spares;
    for (std::size_t i = 0; i < SpareFiles::kLeast; ++i) (void)spares.take(kStart);
    spares.put(Uuid::random());
    EXPECT_EQ(spares.close().size(), 1u);
    EXPECT_FALSE(spares.wants(kStart));
    EXPECT_FALSE(spares.take(kStart));
}

class SpareFilesTest : public ::testing::Test {
  protected:
    struct Staging {
        std::size_t spare = 0, used = 0;
    };
    void SetUp() override { open(); }
    void open() {
        tree_.reset();
        repo_.reset();
        std::string path = dir_.path() + "/r";
        auto repo =
            real_os().exists(path) ? Repository::open(real_os(), path, {}) : Repository::init(real_os(), path, {});
        ASSERT_TRUE(repo) << repo.error().message;
        repo_ = std::move(*repo);
        auto tree = Worktree::open(*repo_, "main", pool_);
        ASSERT_TRUE(tree) << tree.error().message;
        tree_ = std::move(*tree);
    }
    static Buffer text(std::size_t size, int number) { return Buffer(size, static_cast<std::byte>(number)); }
    void put(const std::string& name, const Buffer& data) {
        auto inode = tree_->create_file(tree_->root(), name, 0644, 0, 0);
        ASSERT_TRUE(inode) << inode.error().message;
        ASSERT_TRUE(tree_->open_file(*inode, true, false));
        ASSERT_TRUE(tree_->write(*inode, 0, data));
        ASSERT_TRUE(tree_->flush(*inode, true));
        tree_->close_file(*inode, true);
    }
    Buffer get(const std::string& name) {
        auto inode = tree_->lookup(tree_->root(), name);
        EXPECT_TRUE(inode) << name;
        if (!inode) return {};
        Buffer out(tree_->attributes(*inode).size);
        EXPECT_EQ(tree_->read(*inode, 0, out).value_or(0), out.size());
        return out;
    }
    void commit() {
        CommitOptions options;
        options.message = "lets staging files go";
        ASSERT_TRUE(tree_->commit(options));
    }
    Staging staging() {
        Staging found;
        if (tree_) staging_dir_ = dir_.path() + "/r/staging/" + tree_->uuid().text();
        for (const std::string& name : real_os().list_dir(staging_dir_).value_or({})) {
            auto stat = real_os().stat(path_join(staging_dir_, name));
            ++(stat && stat->size > 0 ? found.used : found.spare);
        }
        return found;
    }
    // At most ten seconds.
    bool becomes(const std::function<bool(const Staging&)>& wanted) {
        for (int i = 0; i < 200; ++i) {
            if (wanted(staging())) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
        return false;
    }

    test::TempDir dir_;
    std::string staging_dir_;
    ThreadPool pool_{"test", 2};
    std::unique_ptr<Repository> repo_;
    std::shared_ptr<Worktree> tree_;
};

TEST_F(SpareFilesTest, WhereManyFilesComeStagingFilesServeAgain) {
    for (int i = 0; i < 200; ++i) put("a" + std::to_string(i), text(3000, i));
    commit();
    ASSERT_TRUE(becomes([](const Staging& s) { return s.used == 0 && s.spare >= 100; })) << staging().spare;
    std::size_t before = staging().spare;
    for (int i = 0; i < 50; ++i) put("b" + std::to_string(i), text(2000, i + 1));
    EXPECT_LE(staging().spare, before - 50) << "they were made, not taken";
    auto check = [&] {
        for (int i = 0; i < 200; ++i) ASSERT_EQ(get("a" + std::to_string(i)), text(3000, i));
        for (int i = 0; i < 50; ++i) ASSERT_EQ(get("b" + std::to_string(i)), text(2000, i + 1));
    };
    check();
    tree_.reset();
    EXPECT_EQ(staging().spare, 0u) << "nobody needs them any more";
    open();
    check();
}

// A mapping may outlive its descriptor, and shows the file below until it goes.
TEST_F(SpareFilesTest, WhatSomebodyMayHaveMappedNeverServesAgain) {
    Buffer data = text(5000, 7);
    put("mapped", data);
    auto inode = tree_->lookup(tree_->root(), "mapped");
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, false, false));
    auto lent = tree_->lend(*inode, Worktree::Lending{});
    ASSERT_TRUE(lent && *lent);
    auto file = tree_->lent_file(*inode);
    ASSERT_TRUE(file);
    tree_->close_lent(*inode, false);
    inode->reset();
    for (int i = 0; i < 100; ++i) put("f" + std::to_string(i), text(100, i));
    commit();
    ASSERT_TRUE(becomes([](const Staging& s) { return s.used == 0; }));
    Buffer seen(data.size());
    EXPECT_EQ((*file)->read_at(0, seen).value_or(0), data.size());
    EXPECT_EQ(seen, data);
}

TEST_F(SpareFilesTest, AFileThatHasJustBeenMadeIsNotTakenForOneThatSomebodyElseWrites) {
    auto inode = tree_->create_file(tree_->root(), "f", 0644, 0, 0);
    ASSERT_TRUE(inode);
    EXPECT_FALSE(tree_->attributes(*inode).lent);
    EXPECT_TRUE(tree_->attributes(*inode).incomplete);
    auto again = tree_->create_file(tree_->root(), "f", 0644, 0, 0);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, Errc::kExists);
    EXPECT_EQ(again.error().message, "f: exists already");
}

}  // namespace
}  // namespace coral::repo
