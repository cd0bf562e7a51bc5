// SPDX-License-Identifier: Apache-2.0
// Branches as directories: made and removed by mkdir and rmdir, owned by one process at a time, changed from outside.
#include <algorithm>
#include <mutex>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

using Names = std::vector<std::string>;

class RecordingNotifier final : public vfs::Notifier {
  public:
    void entry_changed(vfs::NodeId parent, const std::string& name) override {
        std::lock_guard lock(mutex_);
        entries.emplace_back(parent, name);
    }
    void attributes_changed(vfs::NodeId node) override {
        std::lock_guard lock(mutex_);
        attributes.push_back(node);
    }
    void contents_changed(vfs::NodeId node, std::uint64_t, std::uint64_t) override {
        std::lock_guard lock(mutex_);
        contents.push_back(node);
    }
    bool saw(vfs::NodeId parent, const std::string& name) {
        std::lock_guard lock(mutex_);
        return std::find(entries.begin(), entries.end(), std::pair{parent, name}) != entries.end();
    }
    std::vector<std::pair<vfs::NodeId, std::string>> entries;
    std::vector<vfs::NodeId> attributes, contents;

  private:
    std::mutex mutex_;
};

class BranchesTest : public VfsTest {
  protected:
    std::unique_ptr<repo::Repository> other_process() {
        auto opened = repo::Repository::open(real_os(), dir(), repo_options());
        EXPECT_OK(opened);
        return opened ? std::move(*opened) : nullptr;
    }
};

TEST_F(BranchesTest, MkdirMakesABranchAtHead) {
    ASSERT_OK(c().make_dir("branches/unborn"));
    EXPECT_FALSE(repo_->branch("unborn")->commit.has_value());
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId id = commit();
    ASSERT_OK(c().make_dir("branches/dev"));
    EXPECT_EQ(repo_->branch("dev")->commit, id);
    EXPECT_VALUE(c().cat("branches/dev/a"), "1");
    ASSERT_OK(c().put("branches/dev/a", "2"));
    EXPECT_VALUE(c().cat("branches/main/a"), "1");
    EXPECT_ERRC(c().make_dir("branches/dev"), Errc::kExists);
    EXPECT_ERRC(c().make_dir("branches/a..b"), Errc::kInvalid);
    EXPECT_ERRC(c().make_dir("branches/-x"), Errc::kInvalid);
    EXPECT_ERRC(c().create("branches/file"), Errc::kReadOnly);
    EXPECT_ERRC(c().rename("branches/dev", "branches/dev2"), Errc::kReadOnly);
    EXPECT_ERRC(c().rename("branches/dev/a", "branches/main/b"), Errc::kCrossDevice);
    EXPECT_VALUE(c().names("branches"), (Names{"dev", "main", "unborn"}));
    auto root = c().walk("branches/dev");
    EXPECT_LE(root->entry.entry_timeout, 1);
    EXPECT_LE(root->entry.attr_timeout, 1);
    EXPECT_GT(c().walk("branches/dev/a")->entry.entry_timeout, 1e6);
}

TEST_F(BranchesTest, NamesWithSlashesNest) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId id = commit();
    ASSERT_OK(repo_->create_branch("exp/lr/one", id, "test"));
    ASSERT_OK(repo_->create_branch("exp-2", id, "test"));
    EXPECT_VALUE(c().names("branches"), (Names{"exp-2", "exp", "main"}));
    EXPECT_VALUE(c().names("branches/exp"), (Names{"lr"}));
    EXPECT_VALUE(c().names("branches/exp/lr"), (Names{"one"}));
    EXPECT_VALUE(c().cat("branches/exp/lr/one/a"), "1");
    ASSERT_OK(c().make_dir("branches/exp/two"));
    EXPECT_EQ(repo_->branch("exp/two")->commit, id);
    EXPECT_ERRC(c().make_dir("branches/exp"), Errc::kExists);
    EXPECT_ERRC(c().create("branches/exp/file"), Errc::kReadOnly);
    EXPECT_ERRC(c().remove_dir("branches/exp"), Errc::kNotEmpty);
    ASSERT_OK(c().remove_dir("branches/exp/two"));
    ASSERT_OK(c().remove_dir("branches/exp/lr/one"));
    EXPECT_ERRC(c().stat("branches/exp"), Errc::kNotFound) << "a folder is there as long as a branch is below it";
}

TEST_F(BranchesTest, RmdirLosesNothing) {
    EXPECT_ERRC(c().remove_dir("branches/none"), Errc::kNotFound);
    EXPECT_ERRC(c().remove_dir("branches/main"), Errc::kBusy) << "HEAD";
    ASSERT_OK(c().put("branches/main/a", "1"));
    commit();
    ASSERT_OK(c().make_dir("branches/dev"));
    auto open = c().create("branches/dev/b", O_WRONLY);
    ASSERT_OK(open);
    EXPECT_ERRC(c().remove_dir("branches/dev"), Errc::kNotEmpty) << "uncommitted";
    ASSERT_OK(c().close(open->handle));
    EXPECT_ERRC(c().remove_dir("branches/dev"), Errc::kNotEmpty) << "uncommitted";
    commit("on dev", "dev");
    EXPECT_ERRC(c().remove_dir("branches/dev"), Errc::kNotEmpty) << "its commit is nowhere else";
    ASSERT_OK(tag("keep", *repo_->branch("dev")->commit));
    auto reader = c().open("branches/dev/b", O_RDONLY);
    ASSERT_OK(reader);
    EXPECT_ERRC(c().remove_dir("branches/dev"), Errc::kBusy) << "open";
    ASSERT_OK(c().close(reader->handle));
    ASSERT_OK(c().remove_dir("branches/dev"));
    EXPECT_ERRC(c().stat("branches/dev"), Errc::kNotFound);
    EXPECT_ERRC(repo_->branch("dev"), Errc::kNotFound);
    ASSERT_OK(c().make_dir("branches/gone"));
    ASSERT_OK(c().put("branches/gone/c", "3"));
    CommitId alone = commit("on gone", "gone");
    EXPECT_ERRC(c().remove_dir("branches/gone"), Errc::kNotEmpty);
    ASSERT_OK(repo_->set_head_detached(alone));
    ASSERT_OK(c().remove_dir("branches/gone")) << "a detached HEAD keeps it";
    ASSERT_OK(repo_->set_head_branch("main"));
    // Merged history is kept by a later commit too.
    ASSERT_OK(c().make_dir("branches/old"));
    ASSERT_OK(c().put("branches/main/a", "2"));
    commit();
    ASSERT_OK(c().remove_dir("branches/old"));
}

TEST_F(BranchesTest, ABranchOfAnotherProcessIsReadOnlyUntilItIsFree) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    ASSERT_OK(c().make_dir("branches/main/d"));
    ASSERT_OK(c().put("branches/main/d/b", "2"));
    CommitId id = commit();
    auto other = other_process();
    ASSERT_OK(other->create_branch("theirs", id, "test"));
    ThreadPool pool("test", 1);
    auto tree = repo::Worktree::open(*other, "theirs", pool);
    ASSERT_OK(tree);

    EXPECT_VALUE(c().cat("branches/theirs/a"), "1");
    EXPECT_VALUE(c().cat("branches/theirs/d/b"), "2");
    EXPECT_VALUE(c().names("branches/theirs"), (Names{"a", "d"}));
    auto root = c().walk("branches/theirs");
    ASSERT_OK(root);
    EXPECT_LE(root->entry.entry_timeout, 1);
    EXPECT_LE(root->entry.attr_timeout, 1);
    EXPECT_NE(c().stat("branches/theirs/a")->node, c().stat("commits/" + id.hex() + "/a")->node);
    EXPECT_ERRC(c().create("branches/theirs/new"), Errc::kReadOnly);
    EXPECT_ERRC(c().open("branches/theirs/a", O_WRONLY), Errc::kReadOnly);
    EXPECT_ERRC(c().rename("branches/theirs/a", "branches/main/x"), Errc::kReadOnly);
    EXPECT_ERRC(c().remove_dir("branches/theirs"), Errc::kBusy);
    EXPECT_ERRC(fs_->worktree("theirs"), Errc::kBusy);
    EXPECT_VALUE(c().xattr("branches/theirs", "user.coral.branch"), "theirs");
    EXPECT_VALUE(c().xattr("branches/theirs/d", "user.coral.path"), "d");

    // The owner commits: seen at the next look.
    auto file = (*tree)->create_file((*tree)->root(), "new", 0644, 0, 0);
    ASSERT_OK(file);
    ASSERT_OK((*tree)->open_file(*file, true, false));
    ASSERT_OK((*tree)->write(*file, 0, as_bytes("fresh")));
    ASSERT_OK((*tree)->flush(*file, true));
    (*tree)->close_file(*file, true);
    EXPECT_ERRC(c().stat("branches/theirs/new"), Errc::kNotFound);
    repo::CommitOptions options;
    options.message = "theirs";
    ASSERT_OK((*tree)->commit(options));
    EXPECT_VALUE(c().cat("branches/theirs/new"), "fresh");

    file = make_error(Errc::kNotFound, "");
    tree = make_error(Errc::kNotFound, "");  // the owner leaves
    ASSERT_OK(c().put("branches/theirs/new", "ours"));
    EXPECT_VALUE(c().cat("branches/theirs/new"), "ours");
    EXPECT_OK(fs_->worktree("theirs"));
}

TEST_F(BranchesTest, ABranchIsGivenAwayAndTakenBack) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId id = commit();
    ASSERT_OK(repo_->create_branch("dev", id, "test"));
    ASSERT_OK(c().put("branches/dev/b", "2"));
    settle("dev");
    auto held = c().walk("branches/dev/b");
    ASSERT_OK(held);
    auto open = c().open("branches/dev/b", O_RDONLY);
    ASSERT_OK(open);
    EXPECT_ERRC(fs_->release_branch("dev"), Errc::kBusy);
    ASSERT_OK(c().close(open->handle));
    ASSERT_OK(fs_->release_branch("dev"));
    // Looked at in between, it is not snatched away from whoever asked.
    EXPECT_VALUE(c().names("branches/dev"), (Names{"a"}));
    EXPECT_ERRC(fs_->attributes(held->id(), std::nullopt), Errc::kStale);
    {
        auto other = other_process();
        ASSERT_OK(other->rename_branch("dev", "renamed"));
    }
    ASSERT_OK(fs_->branches_changed());
    EXPECT_VALUE(c().cat("branches/renamed/b"), "2");
    EXPECT_EQ(c().stat("branches/renamed/b")->node, held->id());
    EXPECT_OK(fs_->attributes(held->id(), std::nullopt));
    EXPECT_ERRC(c().stat("branches/dev"), Errc::kNotFound);
    EXPECT_EQ(*c().xattr("branches/renamed", "user.coral.branch"), "renamed");
}

TEST_F(BranchesTest, OutsideChangesAreNotified) {
    RecordingNotifier notifier;
    fs_->set_notifier(&notifier);
    ASSERT_OK(c().put("branches/main/a", "1"));
    ASSERT_OK(c().make_dir("branches/main/d"));
    ASSERT_OK(c().put("branches/main/d/b", "1"));
    CommitId id = commit();
    EXPECT_TRUE(notifier.entries.empty()) << "what the kernel does itself it knows";
    auto main = c().walk("branches/main");
    auto d = c().walk("branches/main/d");
    auto a = c().walk("branches/main/a");
    ASSERT_OK(c().put("branches/main/a", "2"));
    ASSERT_OK(c().put("branches/main/d/b", "2"));
    ASSERT_OK(c().put("branches/main/d/new", "2"));
    settle();
    auto open = c().open("branches/main/a", O_RDONLY);
    ASSERT_OK(open);
    auto tree = fs_->worktree("main");
    ASSERT_OK((*tree)->restore((*repo_->commit(id))->tree, {}));
    EXPECT_TRUE(notifier.saw(main->id(), "a"));
    EXPECT_TRUE(notifier.saw(d->id(), "b"));
    EXPECT_TRUE(notifier.saw(d->id(), "new"));
    EXPECT_VALUE(c().cat("branches/main/a"), "1");
    EXPECT_NE(c().stat("branches/main/a")->node, a->id());
    EXPECT_VALUE(c().read_all(open->handle), "2") << "who had it open keeps it";
    ASSERT_OK(c().close(open->handle));
    fs_->set_notifier(nullptr);
}

TEST_F(BranchesTest, ForkedWritersMakeThePagesOfReadersBeDropped) {
    RecordingNotifier notifier;
    fs_->set_notifier(&notifier);
    auto writer = c().create("branches/main/log", O_WRONLY);
    ASSERT_OK(writer);
    ASSERT_OK(c().write(writer->handle, 0, "one"));
    ASSERT_OK(fs_->flush(writer->handle));  // the child's copy of the descriptor is closed
    auto reader = c().open("branches/main/log", O_RDONLY);
    ASSERT_OK(reader);
    ASSERT_OK(c().write(writer->handle, 3, "two"));
    EXPECT_EQ(notifier.contents.size(), 1u);
    EXPECT_VALUE(c().read_all(reader->handle), "onetwo");
    ASSERT_OK(c().close(reader->handle));
    ASSERT_OK(c().close(writer->handle));
    fs_->set_notifier(nullptr);
}

TEST_F(BranchesTest, PagesThatAreWrittenBackAreRight) {
    const char* file = "branches/main/saved";
    RecordingNotifier notifier;
    fs_->set_notifier(&notifier);
    fs_->set_direct_maps(true);
    auto maker = c().create(file, O_RDWR | O_CREAT | O_EXCL);
    ASSERT_OK(maker);
    ASSERT_OK(fs_->flush(maker->handle));  // closed, and still mapped
    auto reader = c().open(file, O_RDONLY);
    ASSERT_OK(reader);
    ASSERT_EQ(reader->mode, vfs::IoMode::kCached);
    EXPECT_VALUE(fs_->write(maker->handle, 0, as_bytes("abc"), vfs::WriteFrom::kPages), 3u);
    EXPECT_TRUE(notifier.contents.empty()) << "to drop a page that is being written back is to wait for oneself";
    EXPECT_VALUE(fs_->write(maker->handle, 0, as_bytes("abc")), 3u);
    EXPECT_EQ(notifier.contents.size(), 1u);
    ASSERT_OK(c().close(reader->handle));
    ASSERT_OK(c().close(maker->handle));
    EXPECT_VALUE(c().cat(file), "abc");
    fs_->set_notifier(nullptr);
}

TEST_F(BranchesTest, AReadOnlyMountOwnsNothingAndChangesNothing) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId id = commit();
    ASSERT_OK(c().put("branches/main/a", "not committed"));
    vfs::Options options;
    options.read_only = true;
    remount(options);
    EXPECT_VALUE(c().cat("branches/main/a"), "1") << "what is committed";
    EXPECT_ERRC(c().put("branches/main/a", "x"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir("branches/dev"), Errc::kReadOnly);
    EXPECT_ERRC(c().remove_dir("branches/main"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir("branches/main/d"), Errc::kReadOnly);
    EXPECT_VALUE(c().link("at/main"), "../commits/" + id.hex());
    {
        auto other = other_process();
        ThreadPool pool("test", 1);
        EXPECT_OK(repo::Worktree::open(*other, "main", pool));  // free for others
    }
    remount();
    EXPECT_VALUE(c().cat("branches/main/a"), "not committed");
}

TEST_F(BranchesTest, AReadOnlyRepositoryCanBeMounted) {
    ASSERT_OK(c().put("branches/main/a", "1"));
    CommitId id = commit();
    unmount();
    repo_.reset();
    auto ro = repo_options();
    ro.read_only = true;
    ro.store.read_only = true;
    auto opened = repo::Repository::open(real_os(), dir(), ro);
    ASSERT_OK(opened);
    repo_ = std::move(*opened);
    mount();
    EXPECT_VALUE(c().cat("branches/main/a"), "1");
    EXPECT_VALUE(c().cat("commits/" + id.hex() + "/a"), "1");
    EXPECT_ERRC(c().put("branches/main/a", "x"), Errc::kReadOnly);
    EXPECT_ERRC(c().make_dir("branches/dev"), Errc::kReadOnly);
    unmount();
    repo_.reset();
}

}  // namespace
}  // namespace coral::test
