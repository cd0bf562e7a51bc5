// SPDX-License-Identifier: Apache-2.0
// Restoring what is no content: modes and extended attributes.
#include "worktree_fixture.hpp"

namespace coral::repo {
namespace {

class RestoreTest : public WorktreeFileTest {
  protected:
    TreeId commit(const std::string& message) {
        CommitOptions options;
        options.message = message;
        auto done = tree_->commit(options);
        EXPECT_TRUE(done) << done.error().message;
        auto commit = repo_->commit(done->id);
        EXPECT_TRUE(commit);
        return (*commit)->tree;
    }
    void set_mode(std::uint32_t mode) {
        SetAttributes set;
        set.mode = mode;
        ASSERT_TRUE(tree_->set_attributes(inode_, set));
    }
    std::size_t changed() {
        auto status = tree_->status();
        EXPECT_TRUE(status);
        return status->changes.size();
    }
};

TEST_F(RestoreTest, ModeAndAttributesOfADirectory) {
    auto root = *tree_->lookup_path("");
    auto above = tree_->make_directory(root, "above", 0755, 0, 0);
    ASSERT_TRUE(above);
    auto made = tree_->make_directory(*above, "d", 0755, 0, 0);
    ASSERT_TRUE(made);
    inode_ = *made;
    ASSERT_TRUE(tree_->set_xattr(inode_, "user.a", "old", Worktree::XattrMode::kAny));
    const TreeId first = commit("one");
    set_mode(0700);
    ASSERT_TRUE(tree_->set_xattr(inode_, "user.a", "new", Worktree::XattrMode::kAny));
    const TreeId second = commit("two");
    ASSERT_EQ(changed(), 0u);
    const std::int64_t times = tree_->attributes(*above).mtime_ns;
    std::vector<std::pair<Ino, std::string>> seen;
    tree_->observe([&](Ino parent, const std::string& name, Ino) { seen.emplace_back(parent, name); });

    auto restored = tree_->restore(first, {"above"});
    ASSERT_TRUE(restored) << restored.error().message;
    EXPECT_EQ(*restored, 1u);
    EXPECT_EQ(changed(), 1u) << "it differs from the last commit now";
    EXPECT_EQ(tree_->attributes(inode_).mode & 0777, 0755u);
    EXPECT_EQ(tree_->xattrs(inode_), (Xattrs{{"user.a", "old"}}));
    // Not by name: whoever has it as the current directory keeps it.
    EXPECT_EQ(seen, (std::vector<std::pair<Ino, std::string>>{{tree_->attributes(inode_).ino, ""}}));
    EXPECT_EQ(tree_->attributes(*above).mtime_ns, times);
    EXPECT_EQ(commit("three"), first);

    // And the attributes alone, in the next process.
    ASSERT_TRUE(tree_->remove_xattr(inode_, "user.a"));
    EXPECT_EQ(*tree_->restore(first, {}), 1u);
    EXPECT_EQ(changed(), 0u);
    EXPECT_EQ(*tree_->restore(first, {}), 0u);
    EXPECT_EQ(*tree_->restore(second, {}), 1u);
    above->reset();
    made->reset();
    root.reset();
    open();
    find("above/d");
    EXPECT_EQ(tree_->attributes(inode_).mode & 0777, 0700u);
    EXPECT_EQ(tree_->xattrs(inode_), (Xattrs{{"user.a", "new"}}));
}

}  // namespace
}  // namespace coral::repo
