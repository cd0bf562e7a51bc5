// SPDX-License-Identifier: Apache-2.0
// Writes that fail: the file is as it was, and can be used.
#include <gtest/gtest.h>

#include <algorithm>
#include <new>
#include <string>

#include "repo/state.hpp"
#include "unit/repo/worktree_fixture.hpp"

namespace coral::repo {
namespace {

class FailedWrite : public WorktreeFileTest {
  protected:
    // What the next process would take for the file's length.
    std::uint64_t size_below() {
        auto names = os_.list_dir(path() + "/staging");
        EXPECT_TRUE(names);
        std::uint64_t longest = 0;
        for (const std::string& folder : *names) {
            auto files = os_.list_dir(path() + "/staging/" + folder);
            EXPECT_TRUE(files);
            for (const std::string& name : *files) {
                auto stat = os_.stat(path() + "/staging/" + folder + "/" + name);
                if (stat) longest = std::max(longest, stat->size);
            }
        }
        return longest;
    }
    const Buffer ones_ = Buffer(1000, std::byte{1});
};

TEST_F(FailedWrite, AtTheEndLeavesNothingThere) {
    create("f");
    write(0, Bytes(data_).first(5));
    os_.bytes_left = 100;
    EXPECT_FALSE(tree_->write(inode_, 5, ones_));
    os_.bytes_left = -1;
    EXPECT_EQ(tree_->attributes(inode_).size, 5u);
    EXPECT_EQ(size_below(), 5u);
    write(2000, Bytes(data_).first(1));
    Buffer wanted(2001, std::byte{0});
    std::fill_n(wanted.begin(), 5, std::byte{7});
    wanted.back() = std::byte{7};
    EXPECT_EQ(read_all(), wanted);
    close_stored();
}

TEST_F(FailedWrite, AnAppendLeavesNothingThere) {
    create("f");
    write(0, Bytes(data_).first(5));
    for (int left : {0, 100}) {
        os_.bytes_left = left;
        EXPECT_FALSE(tree_->append(inode_, ones_));
        os_.bytes_left = -1;
        EXPECT_EQ(tree_->attributes(inode_).size, 5u);
        EXPECT_EQ(size_below(), 5u);
    }
    auto at = tree_->append(inode_, ones_);
    ASSERT_TRUE(at);
    EXPECT_EQ(*at, 5u);
    Buffer wanted(5, std::byte{7});
    wanted.insert(wanted.end(), ones_.begin(), ones_.end());
    EXPECT_EQ(read_all(), wanted);
    close_stored();
}

TEST_F(FailedWrite, ATruncateThatTheDiskRefusesLeavesTheFileComplete) {
    create_stored("f");
    SetAttributes huge;
    huge.size = kMostFileBytes;
    os_.fail_truncate = true;
    EXPECT_FALSE(tree_->set_attributes(inode_, huge));
    os_.fail_truncate = false;
    EXPECT_FALSE(tree_->attributes(inode_).incomplete);
    EXPECT_EQ(tree_->attributes(inode_).size, data_.size());
    ASSERT_TRUE(tree_->wait_ingested());
    open();
    find("f");
    EXPECT_FALSE(tree_->attributes(inode_).incomplete);
    EXPECT_EQ(read_all(), data_);
}

// Wherever the disk ends its files: what is longer could never be stored.
TEST_F(FailedWrite, FilesEndAt16TiB) {
    create("f");
    SetAttributes last;
    last.size = kMostFileBytes - 4096;  // ext4 has none longer
    ASSERT_TRUE(tree_->set_attributes(inode_, last));
    int written = 0;
    os_.on_write = [&](const std::string& path) { written += staging(path); };
    auto refused = [](const auto& done) { return !done && done.error().code == Errc::kTooLarge; };
    EXPECT_TRUE(refused(tree_->append(inode_, Bytes(data_).first(4097))));
    EXPECT_TRUE(refused(tree_->write(inode_, kMostFileBytes - 1, Bytes(data_).first(2))));
    EXPECT_TRUE(refused(tree_->write(inode_, ~std::uint64_t{0}, Bytes(data_).first(2))));
    EXPECT_TRUE(refused(tree_->allocate(inode_, kMostFileBytes, 1, false)));
    SetAttributes more;
    more.size = kMostFileBytes + 1;
    EXPECT_TRUE(refused(tree_->set_attributes(inode_, more)));
    EXPECT_EQ(written, 0) << "what is refused must not be tried";
    EXPECT_EQ(tree_->attributes(inode_).size, *last.size);
    os_.on_write = nullptr;
    ASSERT_TRUE(tree_->unlink(tree_->root(), "f"));
}

TEST_F(FailedWrite, AFileThatCannotBeStoredIsNamed) {
    create("f");
    os_.on_write = [&](const std::string& path) {
        if (staging(path)) os_.unreadable = path;
    };
    write(0, data_);
    os_.on_write = nullptr;
    tree_->close_file(inode_, true);
    auto stored = tree_->wait_ingested();
    ASSERT_FALSE(stored);
    EXPECT_NE(stored.error().message.find(" f: "), std::string::npos) << stored.error().message;
}

// No memory, say: whoever waits for the write, or for the units that it was filling, must not wait for ever.
TEST_F(FailedWrite, AnExceptionLeavesNobodyWaiting) {
    create_overlaid("f");
    os_.on_write = [](const std::string& path) {
        if (staging(path)) throw std::bad_alloc();
    };
    EXPECT_THROW((void)tree_->write(inode_, 5, ones_), std::bad_alloc);
    os_.on_write = nullptr;
    EXPECT_EQ(read_all(), data_);
    ASSERT_TRUE(tree_->sync_file(inode_));
    write(5, ones_);
    Buffer wanted = data_;
    std::copy(ones_.begin(), ones_.end(), wanted.begin() + 5);
    EXPECT_EQ(read_all(), wanted);
    close_stored();
}

// Written to after it was removed: the rows of what was written name a file that is no more.
TEST_F(FailedWrite, ARemovedFileLeavesNoRows) {
    create_overlaid("f");
    ASSERT_TRUE(tree_->unlink(tree_->root(), "f"));
    write(5, ones_);
    auto rows = [&] {
        std::int64_t count = -1;
        EXPECT_TRUE(repo_->state().read([&](Database& db) -> Status {
            Statement st = db.prepare("SELECT count(*) FROM overlay_unit");
            CORAL_TRY(bool there, st.step());
            if (there) count = st.integer(0);
            return {};
        }));
        return count;
    };
    EXPECT_EQ(rows(), 1) << "this test does not test what it says";
    tree_->close_file(inode_, true);
    open();
    EXPECT_EQ(rows(), 0);
}

}  // namespace
}  // namespace coral::repo
