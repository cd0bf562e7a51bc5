// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::RepositoryTest;

//   a - b - d (main)        e: a merge of d and c
//    \- c (side)
class RevisionTest : public RepositoryTest {
  protected:
    void SetUp() override {
        RepositoryTest::SetUp();
        a = commit(1, {}, "a");
        b = commit(2, {a}, "b");
        c = commit(3, {a}, "c");
        d = commit(4, {b}, "d");
        e = commit(5, {d, c}, "e");
        ASSERT_OK(move("heads/main", e));
        ASSERT_OK(repo_->create_branch("side/one", c, ""));
        ASSERT_OK(move("tags/v1", b));
        auto tag = repo_->put_tag({d, "v2", testing::person(9), "release", ""});
        ASSERT_OK(tag);
        tag_id = *tag;
        ASSERT_OK(repo_->update_refs({{"tags/v2", {}, AnyId::from(tag_id), true, "tag"}}));
    }
    CommitId at(const std::string& revision) {
        auto id = repo_->resolve(revision);
        EXPECT_TRUE(id.ok()) << revision << ": " << (id.ok() ? "" : id.error().message);
        return id.value_or({});
    }
    CommitId a, b, c, d, e;
    TagId tag_id;
};

TEST_F(RevisionTest, Names) {
    for (const char* name : {"HEAD", "@", "main", "heads/main", "branches/main"}) EXPECT_EQ(at(name), e) << name;
    for (const char* name : {"side/one", "heads/side/one", "branches/side/one"}) EXPECT_EQ(at(name), c) << name;
    for (const char* name : {"v1", "tags/v1"}) EXPECT_EQ(at(name), b) << name;
    for (const char* name : {"v2", "tags/v2"}) EXPECT_EQ(at(name), d) << name;  // through the tag object
}

TEST_F(RevisionTest, Ancestors) {
    EXPECT_EQ(at("main~"), d);
    EXPECT_EQ(at("main~0"), e);
    EXPECT_EQ(at("main~1"), d);
    EXPECT_EQ(at("main~2"), b);
    EXPECT_EQ(at("main~~~"), a);
    EXPECT_EQ(at("main^"), d);
    EXPECT_EQ(at("main^0"), e);
    EXPECT_EQ(at("main^2"), c);
    EXPECT_EQ(at("main^2~1"), a);
    EXPECT_EQ(at("@^^^"), a);
    EXPECT_EQ(at("v2^0~1^"), a);
    EXPECT_EQ(at(e.hex().substr(0, 12) + "^2"), c);
    EXPECT_ERROR(repo_->resolve("main~4"), Errc::kNotFound, "no parent");
    EXPECT_ERROR(repo_->resolve("main~999999999"), Errc::kNotFound, "no parent");
    EXPECT_ERROR(repo_->resolve("main^3"), Errc::kNotFound, "only 2");
}

TEST_F(RevisionTest, Ids) {
    EXPECT_EQ(at(c.hex()), c);
    EXPECT_EQ(at("commits/" + c.hex()), c);
    EXPECT_EQ(at(c.hex().substr(0, 16)), c);
    std::string upper = c.hex();
    for (char& x : upper) x = static_cast<char>(std::toupper(x));
    EXPECT_EQ(at(upper), c);
    EXPECT_EQ(at(tag_id.hex()), d);
    EXPECT_ERROR(repo_->resolve(c.hex().substr(0, 3)), Errc::kNotFound, c.hex().substr(0, 3));
    EXPECT_ERROR(repo_->resolve(std::string(64, '0')), Errc::kNotFound, "0000");
    EXPECT_ERROR(repo_->resolve(c.hex() + "0"), Errc::kNotFound, c.hex());
}

TEST_F(RevisionTest, AShortIdOfManyIsToldWithCandidates) {
    // 16^4 prefixes: among this many commits two share one (birthday); found by looking.
    std::map<std::string, CommitId> seen;
    for (int i = 0; i < 3000; ++i) {
        CommitId id = commit(i, {}, std::to_string(i));
        auto [at, fresh] = seen.emplace(id.hex().substr(0, 4), id);
        if (fresh) continue;
        EXPECT_ERROR(repo_->resolve(at->first), Errc::kInvalid, "ambiguous");
        EXPECT_ERROR(repo_->resolve(at->first), Errc::kInvalid, id.hex().substr(0, 12));
        EXPECT_EQ(this->at(id.hex().substr(0, 24)), id);
        return;
    }
    FAIL() << "no two ids alike";
}

TEST_F(RevisionTest, ANameBeatsAnIdAndABranchATag) {
    std::string shorty = c.hex().substr(0, 8);
    ASSERT_OK(repo_->create_branch(shorty, a, ""));
    EXPECT_EQ(at(shorty), a);
    ASSERT_OK(move("tags/main", a));
    EXPECT_EQ(at("main"), e);
    EXPECT_EQ(at("tags/main"), a);
}

TEST_F(RevisionTest, Unborn) {
    ASSERT_OK(repo_->create_branch("empty", std::nullopt, ""));
    EXPECT_ERROR(repo_->resolve("empty"), Errc::kNotFound, "no commit yet");
    ASSERT_OK(repo_->set_head_branch("empty"));
    EXPECT_ERROR(repo_->resolve("HEAD"), Errc::kNotFound, "no commit yet");
    ASSERT_OK(repo_->set_head_detached(b));
    EXPECT_EQ(at("HEAD~"), a);
}

TEST_F(RevisionTest, WhatIsNoRevision) {
    EXPECT_ERROR(repo_->resolve(""), Errc::kInvalid, "empty");
    EXPECT_ERROR(repo_->resolve("~1"), Errc::kInvalid, "names nothing");
    EXPECT_ERROR(repo_->resolve("main~x"), Errc::kInvalid, "~n and ^n");
    EXPECT_ERROR(repo_->resolve("main^{tree}"), Errc::kInvalid, "~n and ^n");
    EXPECT_ERROR(repo_->resolve("main~12345678901"), Errc::kInvalid, "too large");
    EXPECT_ERROR(repo_->resolve("main@{yesterday}"), Errc::kInvalid, "not supported yet");
    EXPECT_ERROR(repo_->resolve(std::string(10'000, 'a')), Errc::kInvalid, "too long");
    EXPECT_ERROR(repo_->resolve("nothing/of/this"), Errc::kNotFound, "nothing/of/this");
    EXPECT_ERROR(repo_->resolve("heads/../main"), Errc::kNotFound, "");
    EXPECT_ERROR(repo_->resolve("main" + std::string(4000, '^')), Errc::kNotFound, "no parent");
}

}  // namespace
}  // namespace coral::repo
