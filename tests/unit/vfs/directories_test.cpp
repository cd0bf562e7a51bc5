// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <set>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

using Names = std::vector<std::string>;

class DirectoriesTest : public VfsTest {
  protected:
    // One READDIR with room for `count` entries.
    std::vector<std::pair<std::string, std::uint64_t>> read(vfs::HandleId handle, std::uint64_t offset,
                                                            std::size_t count) {
        std::vector<std::pair<std::string, std::uint64_t>> got;
        EXPECT_OK(fs_->read_directory(handle, offset, false, [&](const vfs::DirItem& item, const vfs::Entry*) {
            if (got.size() == count) return false;
            got.emplace_back(item.name, item.next);
            return true;
        }));
        return got;
    }
};

TEST_F(DirectoriesTest, DotsComeFirstAndOffsetsLeadBack) {
    for (const char* name : {"a", "b", "c", "d", "e"}) ASSERT_OK(c().put(std::string("branches/main/") + name, ""));
    std::string root = "commits/" + commit().hex();
    for (const std::string& dir : {std::string("branches/main"), root}) {
        auto at = c().walk(dir);
        ASSERT_OK(at);
        auto handle = fs_->open_directory(at->id());
        ASSERT_OK(handle);
        auto all = read(*handle, 0, 100);
        ASSERT_EQ(all.size(), 7u);
        EXPECT_EQ(all[0].first, ".");
        EXPECT_EQ(all[1].first, "..");
        EXPECT_TRUE(read(*handle, all[6].second, 10).empty());
        for (std::size_t i = 0; i < all.size(); ++i) {  // seekdir to any earlier place
            auto next = read(*handle, i == 0 ? 0 : all[i - 1].second, 1);
            ASSERT_EQ(next.size(), 1u);
            EXPECT_EQ(next[0], all[i]);
        }
        EXPECT_EQ(read(*handle, 0, 100), all);
        fs_->release_directory(*handle);
        EXPECT_ERRC(fs_->read_directory(*handle, 0, false, [](const auto&, auto) { return true; }), Errc::kBadHandle);
    }
    auto file = c().walk("branches/main/a");
    EXPECT_ERRC(fs_->open_directory(file->id()), Errc::kNotDirectory);
}

TEST_F(DirectoriesTest, WhatStaysIsShownExactlyOnceWhateverComesAndGoes) {
    std::set<std::string> staying;
    for (int i = 0; i < 400; ++i) {
        std::string name = fmt::format("f{:03}", i);
        ASSERT_OK(c().put("branches/main/" + name, ""));
        if (i % 2 == 0) staying.insert(name);
    }
    auto at = c().walk("branches/main");
    auto handle = fs_->open_directory(at->id());
    ASSERT_OK(handle);
    std::multiset<std::string> seen;
    std::uint64_t offset = 0;
    for (int round = 0;; ++round) {
        auto part = read(*handle, offset, 7);
        if (part.empty()) break;
        for (auto& [name, next] : part) {
            seen.insert(name);
            offset = next;
        }
        // Entries go before and behind the place, others come.
        int odd = round * 14 % 400 | 1;
        (void)c().unlink(fmt::format("branches/main/f{:03}", odd));
        (void)c().unlink(fmt::format("branches/main/f{:03}", 399 - odd / 2 * 2));
        ASSERT_OK(c().put(fmt::format("branches/main/f{:03}x", round), ""));
        ASSERT_LT(round, 400);
    }
    fs_->release_directory(*handle);
    for (const std::string& name : staying) EXPECT_EQ(seen.count(name), 1u) << name;
    for (const std::string& name : seen) EXPECT_EQ(seen.count(name), 1u) << name;
}

TEST_F(DirectoriesTest, PlusGivesAttributesAndCountsReferences) {
    ASSERT_OK(c().put("branches/main/a", "12345"));
    ASSERT_OK(c().make_dir("branches/main/d"));
    std::string root = "commits/" + commit().hex();
    for (const std::string& dir : {std::string("branches/main"), root}) {
        auto at = c().walk(dir);
        auto handle = fs_->open_directory(at->id());
        ASSERT_OK(handle);
        std::vector<vfs::Entry> counted;
        int calls = 0;
        ASSERT_OK(fs_->read_directory(*handle, 2, true, [&](const vfs::DirItem&, const vfs::Entry* entry) {
            if (++calls == 2) return false;  // no room for it: not counted
            counted.push_back(*entry);
            return true;
        }));
        ASSERT_EQ(counted.size(), 1u);
        EXPECT_EQ(counted[0].attr.size, 5u);
        EXPECT_OK(fs_->attributes(counted[0].attr.node, std::nullopt));
        fs_->forget(counted[0].attr.node, 1);
        EXPECT_ERRC(fs_->attributes(counted[0].attr.node, std::nullopt), Errc::kStale);
        fs_->release_directory(*handle);
        auto listed = c().list(dir);
        ASSERT_OK(listed);
        for (const Listed& item : *listed) {
            EXPECT_EQ(item.attr.node, c().stat(dir + "/" + item.name)->node) << "d_ino is st_ino";
        }
    }
}

TEST_F(DirectoriesTest, ARemovedDirectoryThatIsOpenListsNothing) {
    ASSERT_OK(c().make_dir("branches/main/d"));
    auto at = c().walk("branches/main/d");
    auto handle = fs_->open_directory(at->id());
    ASSERT_OK(handle);
    ASSERT_OK(c().remove_dir("branches/main/d"));
    auto left = read(*handle, 0, 10);
    EXPECT_EQ(left.size(), 2u);
    EXPECT_ERRC(fs_->lookup(at->id(), "x"), Errc::kNotFound);
    EXPECT_ERRC(fs_->create(at->id(), "x", 0644, O_RDWR, c().caller()), Errc::kNotFound);
    EXPECT_EQ(fs_->attributes(at->id(), std::nullopt)->attr.nlink, 0u);
    fs_->release_directory(*handle);
}

TEST_F(DirectoriesTest, HundredThousandEntriesArePagedOnceEach) {
    // Made as a commit: a branch fills its rows from it when it is first looked into.
    repo::Tree tree;
    ASSERT_OK(c().put("branches/main/seed", ""));
    CommitId first = commit();
    auto seed = repo_->entry_at((*repo_->commit(first))->tree, "seed");
    ASSERT_OK(seed);
    for (int i = 0; i < 100'000; ++i) {
        repo::TreeEntry entry = *seed;
        entry.name = fmt::format("file-{:06}", i);
        tree.entries.push_back(entry);
    }
    auto tree_id = repo_->put_tree(tree);
    ASSERT_OK(tree_id);
    repo::Commit big = **repo_->commit(first);
    big.tree = *tree_id;
    auto id = repo_->put_commit(big);
    ASSERT_OK(id);
    ASSERT_OK(repo_->create_branch("big", *id, "test"));
    for (const std::string& dir : {"commits/" + id->hex(), std::string("branches/big")}) {
        for (bool plus : {false, true}) {
            auto listed = c().list(dir, plus, plus ? 27 : 1000);
            ASSERT_OK(listed);
            ASSERT_EQ(listed->size(), 100'000u);
            for (std::size_t i = 0; i < listed->size(); ++i) ASSERT_EQ((*listed)[i].name, tree.entries[i].name);
        }
    }
}

// As the kernel asks for an open_by_handle_at(2) when it has forgotten the node, or an NFS server.
TEST_F(DirectoriesTest, ForgottenNodesAreFoundByTheirNumbers) {
    ASSERT_OK(c().make_dir("branches/main/d"));
    ASSERT_OK(c().put("branches/main/d/f", "text"));
    ASSERT_OK(c().put("branches/main/d/gone", "text"));
    const vfs::NodeId file = c().stat("branches/main/d/f")->node, gone = c().stat("branches/main/d/gone")->node;
    const vfs::NodeId dir = c().stat("branches/main/d")->node, root = c().stat("branches/main")->node;
    ASSERT_OK(c().unlink("branches/main/d/gone"));
    auto found = [&](vfs::NodeId id, const char* name) {
        auto entry = fs_->lookup(id, name);
        if (entry && entry->attr.node > 10) fs_->forget(entry->attr.node, 1);
        return entry ? entry->attr.node : 0;
    };
    for (int process = 0; process < 2; ++process) {
        EXPECT_EQ(found(file, "."), file);
        EXPECT_EQ(found(file, ".."), dir);
        EXPECT_EQ(found(dir, "."), dir);
        EXPECT_EQ(found(dir, ".."), root);
        EXPECT_EQ(found(root, ".."), c().stat("branches")->node);
        EXPECT_ERRC(fs_->lookup(gone, "."), Errc::kStale);
        EXPECT_ERRC(fs_->lookup(file + 1'000'000, "."), Errc::kStale);
        EXPECT_ERRC(fs_->attributes(file, std::nullopt), Errc::kStale) << "what the kernel has given back is kept";
        if (process == 0) remount();
    }
    auto entry = fs_->lookup(file, ".");
    ASSERT_OK(entry);
    auto opened = fs_->open_file(file, O_RDONLY, c().caller());
    ASSERT_OK(opened);
    EXPECT_VALUE(c().read_all(opened->handle), "text");
    ASSERT_OK(c().close(opened->handle));
    fs_->forget(file, 1);
}

}  // namespace
}  // namespace coral::test
