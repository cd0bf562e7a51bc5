// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/repository.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "repo/format_file.hpp"
#include "repo/init.hpp"
#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

namespace fs = std::filesystem;
using testing::RepositoryTest;
using testing::TempDir;

Status put(const std::string& path, std::string_view text) {
    return write_file_atomic(real_os(), path, as_bytes(text));
}

TEST_F(RepositoryTest, InitMakesWhatTheFormatSays) {
    for (const char* name : {"packs", "staging", "cache", "run"}) {
        auto st = real_os().stat(path_join(dir(), name));
        ASSERT_OK(st);
        EXPECT_EQ(st->type, FileType::kDirectory) << name;
        EXPECT_EQ(st->mode, 0700u) << name;
    }
    for (const char* name : {"FORMAT", "coral.toml", "state.db"}) EXPECT_TRUE(real_os().exists(path_join(dir(), name)));
    EXPECT_FALSE(real_os().exists(path_join(dir(), kInitMarker)));
    auto text = read_file(real_os(), path_join(dir(), "FORMAT"));
    ASSERT_OK(text);
    EXPECT_TRUE(text->starts_with("coral 1\nrepo " + repo_->uuid().text() + "\nsum "));

    auto head = repo_->head();
    ASSERT_OK(head);
    EXPECT_EQ(head->branch, "main");
    EXPECT_FALSE(head->commit);
    auto branches = repo_->branches();
    ASSERT_OK(branches);
    ASSERT_EQ(branches->size(), 1u);
    EXPECT_FALSE(branches->at(0).commit);
    EXPECT_FALSE(branches->at(0).worktree.is_zero());
    EXPECT_EQ(
        count("SELECT count(*) FROM inode i JOIN worktree w ON w.root = i.ino AND i.worktree = w.id WHERE i.parent = 0 "
              "AND i.type = 2 AND i.mode = 493 AND i.filled = 1 AND i.dirty = 0 AND i.content IS NULL AND "
              "length(i.name) = 0 AND typeof(i.name) = 'blob'"),
        1);
    ASSERT_OK(repo_->all_config());  // the options' comments are TOML
}

TEST_F(RepositoryTest, InitTwiceIsRefused) {
    EXPECT_ERROR(Repository::init(real_os(), dir(), options()), Errc::kExists, "already is a CoralFS repository");
    EXPECT_TRUE(reopen());
}

TEST(Init, MakesParentsAndAnyBranch) {
    TempDir temp;
    auto repo = Repository::init(real_os(), temp / "a/b/../c d/r.coral/", {}, "work/one");
    ASSERT_OK(repo);
    EXPECT_EQ((*repo)->dir(), fs::canonical(temp.path()).string() + "/a/c d/r.coral");
    EXPECT_EQ((*repo)->head().value().branch, "work/one");
}

TEST(Init, RefusesWhatIsInTheWay) {
    TempDir temp;
    EXPECT_ERROR(Repository::init(real_os(), temp / "r", {}, "bad..name"), Errc::kInvalid, "bad..name");
    EXPECT_FALSE(real_os().exists(temp / "r"));
    ASSERT_OK(put(temp / "file", "x"));
    EXPECT_ERROR(Repository::init(real_os(), temp / "file", {}), Errc::kNotDirectory, "file");
    EXPECT_ERROR(Repository::init(real_os(), temp / "file/r", {}), Errc::kNotDirectory, "file");
    EXPECT_ERROR(Repository::init(real_os(), temp.path(), {}), Errc::kNotEmpty, "'file'");
    EXPECT_TRUE(real_os().exists(temp / "file"));
}

TEST(Init, AnEmptyDirectoryWillDo) {
    TempDir temp;
    ASSERT_OK(Repository::init(real_os(), temp.path(), {}));
}

// What a crash leaves: the marker and any part of the rest. The next init clears it away.
TEST(Init, HalfMadeIsNoRepositoryAndIsMadeAgain) {
    TempDir temp;
    std::string dir = temp / "r";
    {
        auto repo = Repository::init(real_os(), dir, {});
        ASSERT_OK(repo);
    }
    fs::remove(dir + "/FORMAT");
    ASSERT_OK(put(dir + "/" + kInitMarker, ""));
    ASSERT_OK(put(dir + "/FORMAT.tmp-1234", "coral 1\n"));
    EXPECT_ERROR(Repository::open(real_os(), dir, {}), Errc::kNotFound, "coral init");
    EXPECT_ERROR(Repository::discover(real_os(), dir), Errc::kNotFound, "coral init");
    auto again = Repository::init(real_os(), dir, {});
    ASSERT_OK(again);
    EXPECT_FALSE(real_os().exists(dir + "/" + kInitMarker));
    EXPECT_FALSE(real_os().exists(dir + "/FORMAT.tmp-1234"));
}

TEST(Init, ForeignFilesBesideRemainsAreKept) {
    TempDir temp;
    ASSERT_OK(put(temp / kInitMarker, ""));
    ASSERT_OK(put(temp / "thesis.tex", "x"));
    EXPECT_ERROR(Repository::init(real_os(), temp.path(), {}), Errc::kNotEmpty, "thesis.tex");
    EXPECT_TRUE(real_os().exists(temp / "thesis.tex"));
}

// Packs whose FORMAT got lost are somebody's data, not remains.
TEST_F(RepositoryTest, ALostFormatIsNeverClearedAway) {
    repo_.reset();
    fs::remove(dir() + "/FORMAT");
    EXPECT_ERROR(Repository::init(real_os(), dir(), options()), Errc::kNotEmpty, "not empty");
    EXPECT_TRUE(real_os().exists(dir() + "/state.db"));
}

TEST_F(RepositoryTest, AMarkerLeftInAWholeRepositoryGoesAtOpen) {
    repo_.reset();
    ASSERT_OK(put(dir() + "/" + kInitMarker, ""));
    ASSERT_TRUE(reopen());
    EXPECT_FALSE(real_os().exists(dir() + "/" + kInitMarker));
}

TEST(Init, TwoAtOnce) {
    TempDir temp;
    ASSERT_OK(real_os().make_dir(temp / "r"));
    auto marker = real_os().open(temp / ("r/" + std::string(kInitMarker)), OpenMode::kCreateNew);
    ASSERT_OK(marker);
    ASSERT_TRUE((*marker)->try_lock(true).value());
    EXPECT_ERROR(Repository::init(real_os(), temp / "r", {}), Errc::kBusy, "another `coral init`");
}

TEST_F(RepositoryTest, Discover) {
    std::string root = fs::canonical(dir()).string();
    EXPECT_EQ(Repository::discover(real_os(), dir()).value_or(""), root);
    EXPECT_EQ(Repository::discover(real_os(), dir() + "/packs").value_or(""), root);
    EXPECT_EQ(Repository::discover(real_os(), dir() + "/FORMAT").value_or(""), root);
    EXPECT_EQ(Repository::discover(real_os(), dir() + "/no/such/thing").value_or(""), root);
    EXPECT_ERROR(Repository::discover(real_os(), temp_.path()), Errc::kNotFound, "coral init");
    ASSERT_OK(put(dir() + "/run/FORMAT", "not ours\n"));
    EXPECT_EQ(Repository::discover(real_os(), dir() + "/run").value_or(""), root);
}

std::string signed_format(const std::string& lines) {
    return fmt::format("{}sum {:016x}\n", lines, xxh3_64(as_bytes(lines)));
}

TEST_F(RepositoryTest, FormatsOfLaterAndDamagedRepositories) {
    std::string path = dir() + "/FORMAT", repo = "repo " + repo_->uuid().text() + "\n";
    repo_.reset();
    auto open = [&](const std::string& text) {
        EXPECT_OK(put(path, text));
        return Repository::open(real_os(), dir(), options());
    };
    EXPECT_ERROR(open(signed_format("coral 2\n" + repo)), Errc::kUnsupported, "install a newer one");
    EXPECT_ERROR(open("coral 2\nwhat comes then is unknown"), Errc::kUnsupported, "coral 2");
    EXPECT_ERROR(open(signed_format("coral 1\n" + repo + "need warp\n")), Errc::kUnsupported, "'warp'");
    EXPECT_ERROR(open(signed_format("coral 1\n" + repo + "want tea\n")), Errc::kUnsupported, "want tea");
    EXPECT_ERROR(open("coral 1\n" + repo + "sum 0123456789abcdef\n"), Errc::kCorrupt, "checksum");
    EXPECT_ERROR(open("coral 1\n" + repo), Errc::kCorrupt, "no sum");
    EXPECT_ERROR(open(signed_format("coral 1\n" + repo) + "x"), Errc::kCorrupt, "checksum");
    EXPECT_ERROR(open(signed_format("coral 1\nrepo 12\n")), Errc::kCorrupt, "repo line");
    EXPECT_ERROR(open(signed_format("coral 1\n")), Errc::kCorrupt, "repo line");
    EXPECT_ERROR(open(""), Errc::kCorrupt, "backup");
    EXPECT_ERROR(open("hello\n"), Errc::kCorrupt, "backup");
    EXPECT_OK(open(signed_format("coral 1\n" + repo)));
    auto later = open(signed_format("coral 1\n" + repo + "may sparkle\n"));
    ASSERT_OK(later);
    EXPECT_TRUE((*later)->read_only());
    EXPECT_ERROR((*later)->create_branch("x", std::nullopt, ""), Errc::kReadOnly, "read-only");
}

TEST_F(RepositoryTest, EveryFlippedBitOfFormatIsNoticed) {
    auto text = read_file(real_os(), dir() + "/FORMAT");
    ASSERT_OK(text);
    for (std::size_t i = 0; i < text->size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string bad = *text;
            bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
            bool read_only = false;
            EXPECT_FALSE(parse_format(bad, "FORMAT", read_only).ok()) << i << " " << bit;
        }
    }
}

TEST_F(RepositoryTest, ReadOnlyChangesNothing) {
    CommitId c = commit(1, {});
    ASSERT_OK(move("heads/main", c));
    RepositoryOptions o = options();
    o.read_only = true;
    auto repo = Repository::open(real_os(), dir(), o);
    ASSERT_OK(repo);
    EXPECT_EQ((*repo)->resolve("main").value_or({}), c);
    EXPECT_ERROR((*repo)->put_tree({}), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->put_commit(Commit{}), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->put_tag(Tag{}), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->put_xattrs({{"user.a", "1"}}), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->update_refs({{"tags/x", {}, AnyId::from(c), false, ""}}), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->delete_branch("main", ""), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->rename_branch("main", "x"), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->set_head_branch("main"), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->set_head_detached(c), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*repo)->set_config("user.name", "x", false), Errc::kReadOnly, "read-only");
}

TEST_F(RepositoryTest, ObjectsComeBackAfterReopening) {
    TreeId root = tree({file("a", "1"), folder("d", {file("b", "2"), link("l", "../a")})});
    CommitId c = commit(5, {}, "hello", root);
    auto tag_id = repo_->put_tag({c, "v1", testing::person(6), "t", ""});
    ASSERT_OK(tag_id);
    auto xattrs = repo_->put_xattrs({{"user.a", "1"}, {"user.b", std::string("\0\xff", 2)}});
    ASSERT_OK(xattrs);
    ASSERT_OK(repo_->store().sync());
    repo_.reset();
    repo_ = reopen();
    auto back = repo_->commit(c);
    ASSERT_OK(back);
    EXPECT_EQ((*back)->message, "hello");
    EXPECT_EQ((*back)->tree, root);
    EXPECT_EQ(repo_->tag(*tag_id).value()->target, c);
    EXPECT_EQ(repo_->xattrs(*xattrs).value().at("user.b"), std::string("\0\xff", 2));
    EXPECT_TRUE(repo_->xattrs(SegmentId{}).value().empty());
    EXPECT_TRUE(repo_->put_xattrs({}).value().is_zero());
    EXPECT_EQ(repo_->entry_at(root, "d/b").value().size, 1u);
    EXPECT_EQ(repo_->entry_at(root, "").value().content, AnyId::from(root));
    EXPECT_EQ(repo_->entry_at(root, "/d//l/").value().link, "../a");
    EXPECT_ERROR(repo_->entry_at(root, "d/x"), Errc::kNotFound, "d/x");
    EXPECT_ERROR(repo_->entry_at(root, "a/b"), Errc::kNotFound, "a/b");
    EXPECT_ERROR(repo_->commit(CommitId{}), Errc::kNotFound, "0000");
    EXPECT_ERROR(repo_->put_xattrs({{"user.coral.x", "1"}}), Errc::kInvalid, "user.coral");
}

TEST_F(RepositoryTest, WhatCannotBeStoredIsRefusedNotThrown) {
    EXPECT_ERROR(repo_->put_tree(Tree{{fake_file("b", "1"), fake_file("a", "2")}}), Errc::kInvalid, "out of order");
    Commit c;
    c.author.name = "x\nparent";
    EXPECT_ERROR(repo_->put_commit(c), Errc::kInvalid, "author");
}

TEST_F(RepositoryTest, ALargeTree) {
    std::vector<TreeEntry> entries;
    for (int i = 0; i < 100'000; ++i) entries.push_back(fake_file(fmt::format("shard-{:06}", i), "x"));
    TreeId id = tree(std::move(entries));
    repo_.reset();
    repo_ = reopen();
    auto back = repo_->tree(id);
    ASSERT_OK(back);
    EXPECT_EQ((*back)->entries.size(), 100'000u);
    EXPECT_EQ((*back)->find("shard-099999")->size, 1u);
}

}  // namespace
}  // namespace coral::repo
