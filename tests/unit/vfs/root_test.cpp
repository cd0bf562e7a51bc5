// SPDX-License-Identifier: Apache-2.0
// What is above the branches: the root, HEAD, tags/, commits/, at/.
#include <algorithm>
#include <map>
#include <set>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

using Names = std::vector<std::string>;

TEST_F(VfsTest, RootListsItsPartsAndCannotBeChanged) {
    EXPECT_VALUE(c().names(""), (Names{"HEAD", "at", "branches", "commits", "tags"}));
    EXPECT_VALUE(c().link("HEAD"), "branches/main");
    for (const char* part : {"branches", "tags", "commits", "at"}) {
        auto attr = c().stat(part);
        ASSERT_OK(attr);
        EXPECT_EQ(attr->type, FileType::kDirectory);
        EXPECT_EQ(attr->mode, 0755u);
    }
    EXPECT_ERRC(c().stat("views"), Errc::kNotFound);
    EXPECT_ERRC(c().make_dir("new"), Errc::kReadOnly);
    EXPECT_ERRC(c().create("new"), Errc::kReadOnly);
    EXPECT_ERRC(c().unlink("HEAD"), Errc::kReadOnly);
    EXPECT_ERRC(c().remove_dir("branches"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_link("HEAD2", "x"), Errc::kReadOnly);
    EXPECT_ERRC(c().rename("HEAD", "HEAD2"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir("tags/x"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir("at/x"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir("commits/x"), Errc::kReadOnly);
    repo::SetAttributes set;
    set.mode = 0700;
    EXPECT_ERRC(c().set("", set), Errc::kReadOnly);
    EXPECT_ERRC(c().set("HEAD", set), Errc::kReadOnly);
}

TEST_F(VfsTest, HeadFollowsWhatAnotherProcessDoes) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId one = commit();
    // Another opening of the repository stands for another process.
    auto other = repo::Repository::open(real_os(), dir(), repo_options());
    ASSERT_OK(other);
    auto head_before = c().walk("HEAD");
    ASSERT_OK(head_before);
    EXPECT_EQ(head_before->entry.entry_timeout, 0);
    ASSERT_OK((*other)->set_head_detached(one));
    EXPECT_VALUE(c().link("HEAD"), "commits/" + one.hex());
    auto head_after = c().walk("HEAD");
    ASSERT_OK(head_after);
    EXPECT_NE(head_before->id(), head_after->id()) << "another text, another node";
    ASSERT_OK((*other)->create_branch("dev/x", one, "test"));
    ASSERT_OK((*other)->set_head_branch("dev/x"));
    EXPECT_VALUE(c().link("HEAD"), "branches/dev/x");
    EXPECT_VALUE(c().cat("branches/dev/x/a"), "1");
}

TEST_F(VfsTest, CommitsAreFoundByFullIdAndNeverChange) {
    ASSERT_OK(c().put("branches/main/a", "one"));
    ASSERT_OK(c().make_dir("branches/main/d"));
    ASSERT_OK(c().put("branches/main/d/b", "two"));
    ASSERT_OK(c().make_link("branches/main/l", "d/b"));
    CommitId id = commit();
    std::string root = "commits/" + id.hex();
    EXPECT_VALUE(c().names("commits"), (Names{id.hex()}));
    EXPECT_VALUE(c().names(root), (Names{"a", "d", "l"}));
    EXPECT_VALUE(c().cat(root + "/a"), "one");
    EXPECT_VALUE(c().cat(root + "/d/b"), "two");
    EXPECT_VALUE(c().link(root + "/l"), "d/b");
    EXPECT_ERRC(c().stat("commits/" + id.hex().substr(0, 12)), Errc::kNotFound);
    std::string capitals = id.hex();
    for (char& ch : capitals) ch = static_cast<char>(std::toupper(static_cast<unsigned char>(ch)));
    EXPECT_ERRC(c().stat("commits/" + capitals), Errc::kNotFound);
    EXPECT_ERRC(c().stat("commits/" + std::string(64, 'f')), Errc::kNotFound);

    auto dir = c().stat(root);
    ASSERT_OK(dir);
    EXPECT_EQ(dir->mode, 0755u);
    auto file = c().walk(root + "/a");
    ASSERT_OK(file);
    EXPECT_GT(file->entry.entry_timeout, 1e6);
    EXPECT_GT(file->entry.attr_timeout, 1e6);

    EXPECT_ERRC(c().create(root + "/new"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir(root + "/new"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_link(root + "/new", "x"), Errc::kReadOnly);
    EXPECT_ERRC(c().unlink(root + "/a"), Errc::kReadOnly);
    EXPECT_ERRC(c().remove_dir(root + "/d"), Errc::kReadOnly);
    EXPECT_ERRC(c().rename(root + "/a", root + "/z"), Errc::kReadOnly);
    EXPECT_ERRC(c().rename(root + "/a", "branches/main/z"), Errc::kReadOnly);
    EXPECT_ERRC(c().rename("branches/main/a", root + "/z"), Errc::kReadOnly);
    for (int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_WRONLY | O_APPEND}) {
        EXPECT_ERRC(c().open(root + "/a", flags), Errc::kReadOnly) << flags;
    }
    EXPECT_ERRC(c().open(root + "/d", O_RDONLY), Errc::kIsDirectory);
    EXPECT_ERRC(c().open(root + "/l", O_RDONLY), Errc::kLoop);
    repo::SetAttributes set;
    set.size = 0;
    EXPECT_ERRC(c().set(root + "/a", set), Errc::kReadOnly);
}

TEST_F(VfsTest, TheNewestThousandCommitsAreListed) {
    repo::Commit one;
    auto tree = repo_->put_tree({});
    ASSERT_OK(tree);
    one.tree = *tree;
    std::vector<std::string> ids;
    for (int i = 0; i < 1002; ++i) {
        one.author = one.committer = {"A", "a@b", 1'000'000'000 + i, 0};
        auto made = repo_->put_commit(one);
        ASSERT_OK(made);
        one.parents = {*made};
        ids.push_back(made->hex());
    }
    ASSERT_OK(repo_->create_branch("long", one.parents[0], "test"));
    Names newest(ids.begin() + 2, ids.end()), listed = *c().names("commits");
    std::sort(newest.begin(), newest.end());
    std::sort(listed.begin(), listed.end());
    EXPECT_EQ(listed, newest);
    EXPECT_OK(c().stat("commits/" + ids[0])) << "there all the same";
}

TEST_F(VfsTest, EqualFilesOfDifferentCommitsAreOneNode) {
    ASSERT_OK(c().put("branches/main/same", noise(5000, 1)));
    ASSERT_OK(c().put("branches/main/other", "1"));
    ASSERT_OK(c().make_dir("branches/main/d"));
    ASSERT_OK(c().make_link("branches/main/l", "same"));
    std::string one = "commits/" + commit().hex();
    ASSERT_OK(c().put("branches/main/other", "2"));
    std::string two = "commits/" + commit().hex();
    EXPECT_EQ(c().stat(one + "/same")->node, c().stat(two + "/same")->node);
    EXPECT_NE(c().stat(one + "/other")->node, c().stat(two + "/other")->node);
    EXPECT_NE(c().stat(one + "/d")->node, c().stat(two + "/d")->node) << "directories are never shared";
    EXPECT_NE(c().stat(one + "/l")->node, c().stat(two + "/l")->node) << "nor are symlinks";
    EXPECT_NE(c().stat(one + "/same")->node, c().stat("branches/main/same")->node);
    EXPECT_EQ(c().stat(one + "/same")->nlink, 1u);

    vfs::Options options;
    options.share = false;
    remount(options);
    EXPECT_NE(c().stat(one + "/same")->node, c().stat(two + "/same")->node);
    EXPECT_VALUE(c().cat(two + "/same"), noise(5000, 1));
}

TEST_F(VfsTest, OneCommitNeverShowsOneNodeUnderTwoNames) {
    ASSERT_OK(c().make_dir("branches/main/d"));
    std::int64_t time = 1'700'000'000'000'000'000;
    for (const char* name : {"a", "b", "d/a"}) {
        ASSERT_OK(c().put(std::string("branches/main/") + name, "equal"));
        repo::SetAttributes set;
        set.mtime_ns = time;
        ASSERT_OK(c().set(std::string("branches/main/") + name, set));
    }
    std::string root = "commits/" + commit().hex();
    std::set<vfs::NodeId> ids;
    for (const char* name : {"/a", "/b", "/d/a"}) ids.insert(c().stat(root + name)->node);
    EXPECT_EQ(ids.size(), 3u);
    EXPECT_EQ(c().stat(root + "/a")->mtime_ns, time);
}

TEST_F(VfsTest, TagsAreLinksAsDeepAsTheirNames) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId id = commit();
    ASSERT_OK(tag("v1.0", id));
    ASSERT_OK(tag("exp/lr/best", id));
    ASSERT_OK(tag("exp-1", id));
    auto annotated = repo_->put_tag(
        repo::Tag{.target = id, .name = "noted", .tagger = {"A", "a@b", 1, 0}, .message = "text", .signature = {}});
    ASSERT_OK(annotated);
    ASSERT_OK(repo_->update_refs({{"tags/noted", AnyId{}, AnyId::from(*annotated), true, "test"}}));
    EXPECT_VALUE(c().names("tags"), (Names{"exp-1", "exp", "noted", "v1.0"}));
    EXPECT_VALUE(c().names("tags/exp"), (Names{"lr"}));
    EXPECT_VALUE(c().names("tags/exp/lr"), (Names{"best"}));
    EXPECT_VALUE(c().link("tags/v1.0"), "../commits/" + id.hex());
    EXPECT_VALUE(c().link("tags/noted"), "../commits/" + id.hex());
    EXPECT_VALUE(c().link("tags/exp/lr/best"), "../../../commits/" + id.hex());
    EXPECT_ERRC(c().stat("tags/none"), Errc::kNotFound);
    EXPECT_ERRC(c().stat("tags/ex"), Errc::kNotFound);
    EXPECT_ERRC(c().unlink("tags/v1.0"), Errc::kReadOnly);
    auto entry = c().walk("tags/exp");
    ASSERT_OK(entry);
    EXPECT_EQ(entry->entry.entry_timeout, 0);
    EXPECT_EQ(entry->entry.attr_timeout, 0);
}

TEST_F(VfsTest, AtResolvesRevisionsAndIsNeverListed) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId one = commit();
    ASSERT_OK(c().put("branches/main/a", "2"));
    CommitId two = commit();
    ASSERT_OK(repo_->create_branch("exp/lr", one, "test"));
    EXPECT_VALUE(c().link("at/main"), "../commits/" + two.hex());
    EXPECT_VALUE(c().link("at/main~1"), "../commits/" + one.hex());
    EXPECT_VALUE(c().link("at/HEAD^"), "../commits/" + one.hex());
    EXPECT_VALUE(c().link("at/" + one.hex().substr(0, 10)), "../commits/" + one.hex());
    EXPECT_VALUE(c().link("at/exp/lr"), "../../commits/" + one.hex());
    EXPECT_VALUE(c().names("at"), Names{});
    EXPECT_VALUE(c().names("at/exp"), Names{});
    EXPECT_ERRC(c().stat("at/nothing"), Errc::kNotFound);
    EXPECT_ERRC(c().stat("at/main~9"), Errc::kNotFound);
    EXPECT_ERRC(c().stat("at/exp/none"), Errc::kNotFound);
}

TEST_F(VfsTest, AtHasNothingThatIsAmbiguous) {
    repo::Commit one;
    auto tree = repo_->put_tree({});
    ASSERT_OK(tree);
    one.tree = *tree;
    std::map<std::string, std::string> seen;
    for (int i = 0; i < 3000; ++i) {  // among so many two begin with the same four digits
        one.author = one.committer = {"A", "a@b", i, 0};
        auto made = repo_->put_commit(one);
        ASSERT_OK(made);
        auto [at, fresh] = seen.emplace(made->hex().substr(0, 4), made->hex());
        if (fresh) continue;
        EXPECT_ERRC(c().stat("at/" + at->first), Errc::kNotFound);
        EXPECT_VALUE(c().link("at/" + at->second), "../commits/" + at->second);
        return;
    }
    FAIL() << "no two ids alike";
}

TEST_F(VfsTest, NodesAreForgotten) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    auto held = c().walk("branches/main/a");
    ASSERT_OK(held);
    vfs::NodeId id = held->id();
    EXPECT_OK(fs_->attributes(id, std::nullopt));
    *held = Held();
    EXPECT_ERRC(fs_->attributes(id, std::nullopt), Errc::kStale);
    EXPECT_ERRC(fs_->lookup(999'999'999, "x"), Errc::kStale);
}

TEST_F(VfsTest, LongNamesAndOddNames) {
    std::string longest(255, 'n'), too_long(256, 'n'), odd = "a\xff\n \x01";
    ASSERT_OK(c().put("branches/main/" + longest, "long"));
    ASSERT_OK(c().put("branches/main/" + odd, "odd"));
    for (const char* dir : {"branches/main/", "commits/", "tags/", "at/", "branches/"}) {
        EXPECT_ERRC(c().stat(dir + too_long), Errc::kNameTooLong) << dir;
    }
    EXPECT_ERRC(c().create("branches/main/" + too_long), Errc::kNameTooLong);
    EXPECT_ERRC(c().rename("branches/main/" + odd, "branches/main/" + too_long), Errc::kNameTooLong);
    std::string root = "commits/" + commit().hex();
    EXPECT_VALUE(c().cat(root + "/" + longest), "long");
    EXPECT_VALUE(c().cat(root + "/" + odd), "odd");
}

TEST_F(VfsTest, SpaceIsTheDisksAndRequestsAfterShutDownFail) {
    auto space = fs_->space(vfs::kRoot);
    ASSERT_OK(space);
    EXPECT_EQ(space->name_max, 255u);
    EXPECT_GT(space->blocks, 0u);
    EXPECT_OK(fs_->shut_down());
    EXPECT_FALSE(fs_->lookup(vfs::kRoot, "HEAD").ok());
    EXPECT_FALSE(fs_->space(vfs::kRoot).ok());
    EXPECT_FALSE(fs_->worktree("main").ok());
    EXPECT_OK(fs_->shut_down());
}

}  // namespace
}  // namespace coral::test
