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

// A private file must not become another user's because the folder is his.
TEST_F(RestoreTest, OwnersStayAndNewOnesComeFromTheFolder) {
    auto above = tree_->make_directory(*tree_->lookup_path(""), "above", 0755, 7, 8);
    ASSERT_TRUE(above);
    auto below = tree_->make_directory(*above, "below", 0755, 17, 18);
    ASSERT_TRUE(below);
    auto create = [&](const InodePtr& dir, const char* name) {
        auto made = tree_->create_file(dir, name, 0600, 1, 2);
        EXPECT_TRUE(made);
        EXPECT_TRUE(tree_->write(*made, 0, as_bytes(name)));
        tree_->close_file(*made, true);
    };
    create(*above, "changed");
    create(*above, "removed");
    create(*below, "deeper");
    const TreeId first = commit("one");
    auto changed = tree_->lookup_path("above/changed");
    ASSERT_TRUE(changed);
    SetAttributes empty;
    empty.size = 0;
    ASSERT_TRUE(tree_->set_attributes(*changed, empty));
    ASSERT_TRUE(tree_->unlink(*above, "removed"));
    ASSERT_TRUE(tree_->unlink(*below, "deeper"));
    ASSERT_TRUE(tree_->remove_directory(*above, "below"));
    auto owner = [&](const char* path) {
        auto found = tree_->lookup_path(path);
        EXPECT_TRUE(found) << path;
        const Attributes a = tree_->attributes(*found);
        return std::pair(a.uid, a.gid);
    };
    ASSERT_TRUE(tree_->restore(first, {"above/changed", "above/removed", "above/below/deeper"}));
    EXPECT_EQ(owner("above/changed"), std::pair(1u, 2u));
    EXPECT_EQ(owner("above/removed"), std::pair(7u, 8u));
    EXPECT_EQ(owner("above/below"), std::pair(7u, 8u)) << "not the branch's owner";
    EXPECT_EQ(owner("above/below/deeper"), std::pair(7u, 8u));
}

TEST_F(RestoreTest, WhatIsRefusedHasChangedNothing) {
    auto root = *tree_->lookup_path("");
    auto create = [&](const InodePtr& dir, const char* name, const char* text) {
        auto made = tree_->create_file(dir, name, 0600, 1, 2);
        EXPECT_TRUE(made);
        EXPECT_TRUE(tree_->write(*made, 0, as_bytes(text)));
        tree_->close_file(*made, true);
    };
    auto folder = tree_->make_directory(root, "f", 0755, 0, 0);
    ASSERT_TRUE(folder);
    create(*folder, "g", "1");
    create(root, "aa", "keep");
    const TreeId first = commit("one");
    ASSERT_TRUE(tree_->unlink(*folder, "g"));
    ASSERT_TRUE(tree_->remove_directory(root, "f"));
    create(root, "f", "a file");
    ASSERT_TRUE(tree_->write(*tree_->lookup_path("aa"), 0, as_bytes("changed")));
    auto size = [&](const char* path) { return tree_->attributes(*tree_->lookup_path(path)).size; };

    auto refused = tree_->restore(first, {"aa", "f/g"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNotDirectory);
    EXPECT_NE(refused.error().message.find("f/g: f is a file now"), std::string::npos) << refused.error().message;
    auto unknown = tree_->restore(first, {"aa", "nowhere/x"});
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code, Errc::kNotFound);
    EXPECT_EQ(size("aa"), 7u);
    ASSERT_TRUE(tree_->restore(first, {"aa", "f", "f/g"})) << "what is in the way is among them";
    EXPECT_EQ(size("aa"), 4u);
    EXPECT_EQ(size("f/g"), 1u);
}

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
