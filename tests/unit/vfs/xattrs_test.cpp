// SPDX-License-Identifier: Apache-2.0
#include "coral/base/hash.hpp"
#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

using Mode = repo::Worktree::XattrMode;
using Names = std::vector<std::string>;

class XattrsTest : public VfsTest {};

TEST_F(XattrsTest, UserAttributesAreKeptAndCommitted) {
    ASSERT_OK(c().put("branches/main/f", "x"));
    auto f = c().walk("branches/main/f");
    ASSERT_OK(f);
    ASSERT_OK(fs_->set_xattr(f->id(), "user.note", "hello", Mode::kCreate));
    EXPECT_ERRC(fs_->set_xattr(f->id(), "user.note", "again", Mode::kCreate), Errc::kExists);
    ASSERT_OK(fs_->set_xattr(f->id(), "user.note", "again", Mode::kReplace));
    EXPECT_ERRC(fs_->set_xattr(f->id(), "user.none", "x", Mode::kReplace), Errc::kNoData);
    EXPECT_VALUE(fs_->get_xattr(f->id(), "user.note"), "again");
    EXPECT_VALUE(fs_->list_xattrs(f->id()), (Names{"user.note"}));
    std::string root = "commits/" + commit().hex();
    auto committed = c().walk(root + "/f");
    EXPECT_VALUE(fs_->get_xattr(committed->id(), "user.note"), "again");
    EXPECT_VALUE(fs_->list_xattrs(committed->id()), (Names{"user.note"}));
    EXPECT_ERRC(fs_->set_xattr(committed->id(), "user.note", "no", Mode::kAny), Errc::kReadOnly);
    EXPECT_ERRC(fs_->remove_xattr(committed->id(), "user.note"), Errc::kReadOnly);
    ASSERT_OK(fs_->remove_xattr(f->id(), "user.note"));
    EXPECT_ERRC(fs_->remove_xattr(f->id(), "user.note"), Errc::kNoData);
    EXPECT_ERRC(fs_->get_xattr(f->id(), "user.note"), Errc::kNoData);
}

TEST_F(XattrsTest, AllOfAFileTakeAtMost64KiBWithTheirNames) {
    ASSERT_OK(c().put("branches/main/f", "x"));
    auto f = c().walk("branches/main/f");
    ASSERT_OK(fs_->set_xattr(f->id(), "user.a", std::string(40'000, 'a'), Mode::kAny));
    EXPECT_ERRC(fs_->set_xattr(f->id(), "user.b", std::string(30'000, 'b'), Mode::kAny), Errc::kNoSpace);
    ASSERT_OK(fs_->set_xattr(f->id(), "user.b", std::string(25'000, 'b'), Mode::kAny));
    std::string name = "user." + std::string(200, 'n');
    int fit = 0;
    while (fit < 100 && fs_->set_xattr(f->id(), name + std::to_string(fit), "", Mode::kAny)) ++fit;
    EXPECT_LE(fit, ((64 << 10) - 65'000) / 200) << "names count";
    EXPECT_EQ(fs_->list_xattrs(f->id())->size(), 2u + static_cast<unsigned>(fit));
}

TEST_F(XattrsTest, ThoseOfABranchsRootAreNotCommitted) {
    ASSERT_OK(c().make_dir("branches/main/d"));
    auto root = c().walk("branches/main"), d = c().walk("branches/main/d");
    ASSERT_OK(fs_->set_xattr(root->id(), "user.note", "root", Mode::kAny));
    ASSERT_OK(fs_->set_xattr(d->id(), "user.note", "d", Mode::kAny));
    std::string committed = "commits/" + commit().hex();
    EXPECT_ERRC(c().xattr(committed, "user.note"), Errc::kNoData);
    EXPECT_VALUE(c().xattr(committed + "/d", "user.note"), "d");
    EXPECT_VALUE(c().xattr("branches/main", "user.note"), "root");
}

TEST_F(XattrsTest, OtherNamespacesAreRefused) {
    ASSERT_OK(c().put("branches/main/f", "x"));
    auto f = c().walk("branches/main/f");
    EXPECT_ERRC(fs_->set_xattr(f->id(), "user.coral.sha256", "x", Mode::kAny), Errc::kPermission);
    EXPECT_ERRC(fs_->remove_xattr(f->id(), "user.coral.sha256"), Errc::kPermission);
    EXPECT_ERRC(fs_->set_xattr(f->id(), "trusted.x", "x", Mode::kAny), Errc::kPermission);
    for (const char* name :
         {"security.capability", "system.posix_acl_access", "system.posix_acl_default", "user.", "x"}) {
        EXPECT_ERRC(fs_->set_xattr(f->id(), name, "x", Mode::kAny), Errc::kUnsupported) << name;
    }
    EXPECT_ERRC(fs_->get_xattr(f->id(), "system.posix_acl_access"), Errc::kUnsupported);
    EXPECT_ERRC(fs_->get_xattr(f->id(), "security.capability"), Errc::kUnsupported);
}

TEST_F(XattrsTest, TheFilesystemTellsWhatItKnows) {
    ASSERT_OK(c().make_dir("branches/main/d"));
    std::string data = noise(100'000, 1);
    ASSERT_OK(c().put("branches/main/d/f", data));
    EXPECT_VALUE(c().xattr("branches/main", "user.coral.branch"), "main");
    EXPECT_VALUE(c().xattr("branches/main/d", "user.coral.branch"), "main");
    EXPECT_VALUE(c().xattr("branches/main/d", "user.coral.path"), "d");
    EXPECT_VALUE(c().xattr("branches/main", "user.coral.path"), "");
    EXPECT_VALUE(c().xattr("branches/main/d/f", "user.coral.path"), "d/f");
    EXPECT_ERRC(c().xattr("branches/main", "user.coral.commit"), Errc::kNoData) << "unborn";
    CommitId id = commit();
    std::string root = "commits/" + id.hex();
    for (const std::string& dir :
         {std::string(), std::string("branches"), std::string("tags"), std::string("at"), std::string("commits"),
          std::string("branches/main"), std::string("branches/main/d"), root}) {
        EXPECT_VALUE(c().xattr(dir, "user.coral.repository"), repo_->dir()) << dir;
        EXPECT_ERRC(c().xattr(dir, "user.coral.socket"), Errc::kNoData);
    }
    fs_->set_socket_path("/run/x.sock");
    EXPECT_VALUE(c().xattr("branches/main/d", "user.coral.socket"), "/run/x.sock");
    EXPECT_VALUE(c().xattr("branches/main", "user.coral.commit"), id.hex());
    EXPECT_VALUE(c().xattr(root, "user.coral.commit"), id.hex());
    EXPECT_VALUE(c().xattr(root + "/d", "user.coral.commit"), id.hex());
    std::string sha = Sha256::of(as_bytes(data)).hex();
    for (const std::string& file : {root + "/d/f", std::string("branches/main/d/f")}) {
        EXPECT_VALUE(c().xattr(file, "user.coral.sha256"), sha);
        EXPECT_VALUE(c().xattr(file, "user.coral.digest"), sha);
        EXPECT_VALUE(c().xattr(file, "user.coral.size"), "100000");
        EXPECT_ERRC(c().xattr(file, "user.coral.incomplete"), Errc::kNoData);
        auto stored = c().xattr(file, "user.coral.stored");
        ASSERT_OK(stored);
        EXPECT_GT(std::stoull(*stored), 0u);
        auto at = c().walk(file);
        EXPECT_VALUE(fs_->list_xattrs(at->id()), Names{}) << "answers are not listed: rsync -X would try to set them";
    }
    auto open = c().open("branches/main/d/f", O_RDWR);
    ASSERT_OK(open);
    ASSERT_OK(c().write(open->handle, 0, "x"));
    EXPECT_VALUE(c().xattr("branches/main/d/f", "user.coral.incomplete"), "1");
    EXPECT_ERRC(c().xattr("branches/main/d/f", "user.coral.sha256"), Errc::kNoData);
    ASSERT_OK(c().close(open->handle));
}

}  // namespace
}  // namespace coral::test
