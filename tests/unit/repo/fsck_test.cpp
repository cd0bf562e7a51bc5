// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::RepositoryTest;

class FsckTest : public RepositoryTest {
  protected:
    std::vector<std::string> problems(bool full = false) {
        auto found = repo_->fsck(full, [](std::uint64_t, std::uint64_t) {});
        EXPECT_TRUE(found.ok()) << found.error().message;
        std::vector<std::string> out;
        for (const auto& p : found.value_or({})) {
            static constexpr const char* kNames[] = {"lost", "damaged", "warning"};
            out.push_back(fmt::format("{} {}", kNames[static_cast<int>(p.severity)], p.what));
        }
        return out;
    }
    void expect_one(const std::string& text, bool full = false) {
        auto found = problems(full);
        ASSERT_EQ(found.size(), 1u) << fmt::format("{}", fmt::join(found, "\n"));
        EXPECT_EQ(found[0], text);
    }
    static AnyId missing() { return Sha256::of(as_bytes("missing")); }
    void execute(const std::string& sql) {
        ASSERT_OK(repo_->state().write([&](Database& db) { return db.execute(sql); }));
    }
};

TEST_F(FsckTest, AWholeRepository) {
    EXPECT_TRUE(problems().empty());
    auto xattrs = repo_->put_xattrs({{"user.a", "1"}});
    ASSERT_OK(xattrs);
    TreeEntry f = file("f", "some bytes");
    f.xattrs = *xattrs;
    CommitId a = commit(1, {}, "a", tree({f, folder("d", {link("l", "x"), folder("e", {}), file("empty", "")})}));
    CommitId b = commit(2, {a}, "b", tree({f}));
    ASSERT_OK(move("heads/main", b));
    auto tag = repo_->put_tag({a, "v1", testing::person(1), "", ""});
    ASSERT_OK(tag);
    ASSERT_OK(repo_->update_refs({{"tags/v1", {}, AnyId::from(*tag), true, ""}}));
    ASSERT_OK(repo_->create_branch("x", a, ""));
    ASSERT_OK(repo_->delete_branch("x", ""));
    ASSERT_OK(repo_->set_head_detached(a));
    ASSERT_OK(repo_->store().sync());
    EXPECT_TRUE(problems(false).empty());
    EXPECT_TRUE(problems(true).empty());
    repo_ = reopen();
    EXPECT_TRUE(problems(true).empty());
}

TEST_F(FsckTest, AMissingParent) {
    CommitId a = commit(1, {CommitId::from(missing())});
    ASSERT_OK(move("heads/main", a));
    expect_one(fmt::format("lost commit {}: commit {} is missing", a.hex(), missing().hex()));
}

TEST_F(FsckTest, AMissingTreeIsToldOnce) {
    CommitId a = commit(1, {}, "a", TreeId::from(missing())), b = commit(2, {a}, "b", TreeId::from(missing()));
    ASSERT_OK(move("heads/main", b));
    expect_one(fmt::format("lost commit {}: tree {} is missing", b.hex(), missing().hex()));
}

TEST_F(FsckTest, AMissingFile) {
    TreeId root = tree({folder("d", {fake_file("f", "not stored")})});
    AnyId inner = repo_->tree(root).value()->entries[0].content;
    ASSERT_OK(move("heads/main", commit(1, {}, "a", root)));
    expect_one(
        fmt::format("lost tree {}: 'f': file {} is missing", inner.hex(), Sha256::of(as_bytes("not stored")).hex()));
}

TEST_F(FsckTest, AMissingSegmentOfAttributesAndAWrongSize) {
    TreeEntry f = file("f", "abc");
    f.xattrs = SegmentId::from(missing());
    TreeEntry g = file("g", "abc");
    g.size = 4;
    TreeId root = tree({f, g});
    ASSERT_OK(move("heads/main", commit(1, {}, "a", root)));
    EXPECT_EQ(
        problems(),
        (std::vector<std::string>{
            fmt::format("lost tree {}: 'f': segment {} is missing", root.hex(), missing().hex()),
            fmt::format("damaged tree {}: 'g': is 4 bytes long, but file {} has 3", root.hex(), g.content.hex())}));
}

TEST_F(FsckTest, WhatOnlyAReflogOrAWorktreeReaches) {
    execute("INSERT INTO reflog(ref, new_target, actor, reason, time_ns) VALUES('heads/old', x'" + missing().hex() +
            "', '', '', 0)");
    expect_one(fmt::format("lost reflog of heads/old: commit {} is missing", missing().hex()));
    execute("DELETE FROM reflog");
    execute("UPDATE worktree SET base_commit = x'" + missing().hex() + "'");
    expect_one(fmt::format("lost worktree of main: commit {} is missing", missing().hex()));
    execute("UPDATE worktree SET base_commit = NULL");
    execute(
        "INSERT INTO inode(worktree, parent, name, type, mode, uid, gid, size, mtime_ns, ctime_ns, content) "
        "SELECT id, root, x'66', 1, 420, 0, 0, 1, 0, 0, x'" +
        missing().hex() + "' FROM worktree");
    expect_one(fmt::format("lost worktree of main: 'f': file {} is missing", missing().hex()));
    Uuid staging = Uuid::random();
    execute("UPDATE inode SET content = NULL, staging = x'" + to_hex(staging.bytes) + "' WHERE name = x'66'");
    std::string text = fmt::format("worktree of main: 'f': its staging file {}/staging/{}/{} is missing", repo_->dir(),
                                   repo_->branch("main")->worktree.text(), staging.text());
    expect_one("warning " + text);  // never synced, and the machine has stopped since
    execute("UPDATE inode SET synced = 1 WHERE name = x'66'");
    expect_one("lost " + text);
}

TEST_F(FsckTest, NamesThatDoNotFitTogether) {
    execute("UPDATE meta SET value = 'heads/nowhere' WHERE key = 'head'");
    expect_one("damaged HEAD: points at 'heads/nowhere', which is no branch; set it with `coral checkout`");
    execute("UPDATE meta SET value = 'heads/main' WHERE key = 'head'");
    ASSERT_OK(move("heads/main", commit(1, {})));
    execute("UPDATE refs SET name = 'heads/lone'");
    expect_one("damaged heads/lone: the branch has no worktree");
    execute("UPDATE refs SET name = 'heads/main'");
    execute("UPDATE worktree SET root = 99");
    expect_one("damaged worktree of main: its root directory is missing");
}

}  // namespace
}  // namespace coral::repo
