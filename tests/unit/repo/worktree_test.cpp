// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/worktree.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <random>
#include <thread>

#include "coral/base/hash.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {
namespace {

Buffer noise(std::size_t size, std::uint32_t seed) {
    std::mt19937 random(seed);
    Buffer out(size);
    for (std::byte& b : out) b = static_cast<std::byte>(random());
    return out;
}

class WorktreeTest : public ::testing::Test {
  protected:
    void SetUp() override {
        auto made = Repository::init(real_os(), dir_.path() + "/r", {});
        ASSERT_TRUE(made) << made.error().message;
        repo_ = std::move(*made);
        open();
    }
    void open() {
        auto tree = Worktree::open(*repo_, "main", pool_);
        ASSERT_TRUE(tree) << tree.error().message;
        tree_ = std::move(*tree);
    }
    void reopen() {
        tree_.reset();
        repo_.reset();
        auto opened = Repository::open(real_os(), dir_.path() + "/r", {});
        ASSERT_TRUE(opened) << opened.error().message;
        repo_ = std::move(*opened);
        open();
    }
    InodePtr put(const std::string& path, Bytes data) {
        auto inode = tree_->lookup_path(path);
        if (!inode) {
            std::string parent = path_parent(path);
            auto dir = tree_->lookup_path(parent == "." ? "" : parent);
            EXPECT_TRUE(dir) << dir.error().message;
            inode = tree_->create_file(*dir, path_name(path), 0644, 0, 0);
            EXPECT_TRUE(inode) << inode.error().message;
        }
        EXPECT_TRUE(tree_->open_file(*inode, true, true));
        EXPECT_TRUE(tree_->write(*inode, 0, data));
        EXPECT_TRUE(tree_->flush(*inode, true));
        tree_->close_file(*inode, true);
        return *inode;
    }
    Buffer get(const std::string& path) {
        auto inode = tree_->lookup_path(path);
        EXPECT_TRUE(inode) << path << ": " << inode.error().message;
        if (!inode) return {};
        return bytes_of(*inode);
    }
    Buffer bytes_of(const InodePtr& inode) {
        Buffer out(tree_->attributes(inode).size);
        auto got = tree_->read(inode, 0, out);
        EXPECT_TRUE(got) << got.error().message;
        EXPECT_EQ(got.value_or(0), out.size());
        return out;
    }
    CommitResult commit(const std::string& message) {
        CommitOptions options;
        options.message = message;
        auto done = tree_->commit(options);
        EXPECT_TRUE(done) << done.error().message;
        return done ? *done : CommitResult{};
    }
    std::size_t staging_files() {
        std::string dir = dir_.path() + "/r/staging/" + tree_->uuid().text();
        auto names = real_os().list_dir(dir);
        if (!names) return 0;
        return static_cast<std::size_t>(std::count_if(names->begin(), names->end(), [&](const std::string& name) {
            auto stat = real_os().stat(path_join(dir, name));
            return stat && stat->size > 0;  // empty ones are spare
        }));
    }

    test::TempDir dir_;
    ThreadPool pool_{"test", 2};
    std::unique_ptr<Repository> repo_;
    std::shared_ptr<Worktree> tree_;
};

TEST_F(WorktreeTest, WrittenBytesAreReadBackBeforeAndAfterIngestAndReopen) {
    Buffer data = noise(3'000'001, 1);
    put("a.bin", data);
    EXPECT_EQ(get("a.bin"), data);
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_EQ(get("a.bin"), data);
    auto inode = tree_->lookup_path("a.bin");
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->content_id(*inode));
    EXPECT_EQ(tree_->content_id(*inode)->bytes, Sha256::of(data).bytes);
    reopen();
    EXPECT_EQ(get("a.bin"), data);
}

TEST_F(WorktreeTest, AFileThatIsBeingWrittenIsNotIngestedUntilTheLastWriterCloses) {
    auto inode = tree_->create_file(tree_->root(), "f", 0644, 0, 0);
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("hello")));
    ASSERT_TRUE(tree_->flush(*inode, true));
    tree_->close_file(*inode, true);
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_FALSE(tree_->content_id(*inode));
    EXPECT_TRUE(tree_->attributes(*inode).incomplete);
    ASSERT_TRUE(tree_->write(*inode, 5, as_bytes(" world")));
    ASSERT_TRUE(tree_->flush(*inode, true));
    tree_->close_file(*inode, true);
    ASSERT_TRUE(tree_->wait_ingested());
    ASSERT_TRUE(tree_->content_id(*inode));
    EXPECT_EQ(tree_->content_id(*inode)->bytes, Sha256::of(as_bytes("hello world")).bytes);
}

TEST_F(WorktreeTest, AWriteIntoACommittedFileStagesOnlyItsUnits) {
    Buffer data = noise(5'000'000, 2);
    put("big", data);
    commit("one");
    reopen();
    auto inode = tree_->lookup_path("big");
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    Buffer patch = noise(300'000, 3);
    ASSERT_TRUE(tree_->write(*inode, 1'000'123, patch));
    std::copy(patch.begin(), patch.end(), data.begin() + 1'000'123);
    EXPECT_EQ(bytes_of(*inode), data);
    auto names = real_os().list_dir(dir_.path() + "/r/staging/" + tree_->uuid().text());
    ASSERT_TRUE(names);
    ASSERT_EQ(names->size(), 1u);
    auto stat = real_os().stat(dir_.path() + "/r/staging/" + tree_->uuid().text() + "/" + names->front());
    ASSERT_TRUE(stat);
    EXPECT_EQ(stat->size, data.size());
    EXPECT_LE(stat->blocks * 512, 3 * 256 * 1024u);
    // A killed daemon loses nothing written, in or out of the overlay.
    reopen();
    inode = tree_->lookup_path("big");
    ASSERT_TRUE(inode);
    EXPECT_EQ(bytes_of(*inode), data);
    EXPECT_TRUE(tree_->attributes(*inode).incomplete);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("x")));
    data[0] = std::byte{'x'};
    ASSERT_TRUE(tree_->flush(*inode, true));
    tree_->close_file(*inode, true);
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_EQ(bytes_of(*inode), data);
}

TEST_F(WorktreeTest, WhatWasCutOffReadsAsZerosWhenTheFileGrowsAgain) {
    Buffer data = noise(1'000'000, 4);
    put("f", data);
    commit("one");
    auto inode = tree_->lookup_path("f");
    ASSERT_TRUE(inode);
    SetAttributes set;
    set.size = 300'000;
    ASSERT_TRUE(tree_->set_attributes(*inode, set));
    set.size = 900'000;
    ASSERT_TRUE(tree_->set_attributes(*inode, set));
    data.resize(300'000);
    data.resize(900'000);
    EXPECT_EQ(bytes_of(*inode), data);
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_EQ(bytes_of(*inode), data);
    reopen();
    EXPECT_EQ(get("f"), data);
}

TEST_F(WorktreeTest, CommitTakesEverythingAndASecondOneHasNothingToDo) {
    ASSERT_TRUE(tree_->make_directory(tree_->root(), "d", 0755, 0, 0));
    put("d/one", as_bytes("1"));
    put("two", as_bytes("22"));
    ASSERT_TRUE(tree_->make_symlink(tree_->root(), "link", "d/one", 0, 0));
    CommitResult first = commit("first");
    EXPECT_EQ(first.added, 3u);
    auto made = repo_->commit(first.id);
    ASSERT_TRUE(made);
    auto entry = repo_->entry_at((*made)->tree, "d/one");
    ASSERT_TRUE(entry) << entry.error().message;
    EXPECT_EQ(entry->content.bytes, Sha256::of(as_bytes("1")).bytes);
    auto status = tree_->status();
    ASSERT_TRUE(status);
    EXPECT_TRUE(status->changes.empty());
    CommitOptions again;
    again.message = "again";
    auto none = tree_->commit(again);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::kConflict);
    // A touch alone is no change.
    auto inode = tree_->lookup_path("two");
    ASSERT_TRUE(inode);
    SetAttributes touch;
    touch.mtime_ns = 12345;
    ASSERT_TRUE(tree_->set_attributes(*inode, touch));
    EXPECT_FALSE(tree_->commit(again));
    EXPECT_EQ(tree_->attributes(*inode).mtime_ns, 12345);
    // A mode is one.
    SetAttributes mode;
    mode.mode = 0600;
    ASSERT_TRUE(tree_->set_attributes(*inode, mode));
    status = tree_->status();
    ASSERT_TRUE(status);
    ASSERT_EQ(status->changes.size(), 1u);
    EXPECT_EQ(status->changes[0].kind, ChangeKind::kModeChanged);
    commit("mode");
    reopen();
    status = tree_->status();
    ASSERT_TRUE(status);
    EXPECT_TRUE(status->changes.empty());
}

TEST_F(WorktreeTest, StatusNamesEveryChange) {
    ASSERT_TRUE(tree_->make_directory(tree_->root(), "d", 0755, 0, 0));
    for (const char* name : {"d/keep", "d/change", "d/remove", "top"}) put(name, as_bytes(name));
    commit("base");
    put("d/change", as_bytes("changed"));
    put("new", as_bytes("new"));
    auto dir = tree_->lookup_path("d");
    ASSERT_TRUE(dir);
    ASSERT_TRUE(tree_->unlink(*dir, "remove"));
    ASSERT_TRUE(tree_->rename(tree_->root(), "top", *dir, "moved", RenameMode::kReplace));
    ASSERT_TRUE(tree_->wait_ingested());
    auto status = tree_->status();
    ASSERT_TRUE(status);
    std::string seen;
    for (const Change& change : status->changes)
        seen += std::string(1, change_letter(change.kind)) + " " + change.path + ";";
    EXPECT_EQ(seen, "M d/change;A d/moved;D d/remove;A new;D top;");
    CommitResult done = commit("second");
    EXPECT_EQ(done.changed, 5u);
    EXPECT_EQ(as_text(get("d/moved")), "top");
}

TEST_F(WorktreeTest, CommitOfPathsLeavesTheRestUncommitted) {
    put("a", as_bytes("a"));
    put("b", as_bytes("b"));
    auto sub = tree_->make_directory(tree_->root(), "sub", 0755, 0, 0);
    ASSERT_TRUE(sub);
    put("sub/c", as_bytes("c"));
    commit("base");
    put("a", as_bytes("a2"));
    put("b", as_bytes("b2"));
    CommitOptions options;
    options.message = "only a";
    options.paths = {"a"};
    auto done = tree_->commit(options);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(done->changed, 1u);
    auto status = tree_->status();
    ASSERT_TRUE(status);
    ASSERT_EQ(status->changes.size(), 1u);
    EXPECT_EQ(status->changes[0].path, "b");
    for (const char* path : {"nosuch", "no/such", "sub/nosuch", "sub/nosuch/c"}) {
        options.paths = {path};
        auto refused = tree_->commit(options);
        ASSERT_FALSE(refused) << path;
        EXPECT_EQ(refused.error().message, std::string(path) + ": matches no file");
    }
}

TEST_F(WorktreeTest, CommitRefusesByNameWhatIsOpenUnlessTold) {
    put("done", as_bytes("1"));
    auto inode = tree_->create_file(tree_->root(), "half.pth", 0644, 0, 0);
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("half")));
    CommitOptions options;
    options.message = "x";
    auto refused = tree_->commit(options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kBusy);
    EXPECT_NE(refused.error().message.find("half.pth"), std::string::npos);
    options.allow_open = true;
    auto done = tree_->commit(options);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(done->added, 1u);
    tree_->close_file(*inode, true);
    EXPECT_EQ(commit("now").added, 1u);
}

TEST_F(WorktreeTest, RenameFollowsPosix) {
    auto d1 = tree_->make_directory(tree_->root(), "d1", 0755, 0, 0);
    auto d2 = tree_->make_directory(tree_->root(), "d2", 0755, 0, 0);
    ASSERT_TRUE(d1 && d2);
    put("d1/f", as_bytes("f"));
    put("g", as_bytes("g"));
    auto code = [](auto result) { return result ? Errc::kInternal : result.error().code; };
    EXPECT_EQ(code(tree_->rename(tree_->root(), "d2", tree_->root(), "d1", RenameMode::kReplace)), Errc::kNotEmpty);
    EXPECT_EQ(code(tree_->rename(tree_->root(), "g", tree_->root(), "d1", RenameMode::kReplace)), Errc::kIsDirectory);
    EXPECT_EQ(code(tree_->rename(tree_->root(), "d1", tree_->root(), "g", RenameMode::kReplace)), Errc::kNotDirectory);
    EXPECT_EQ(code(tree_->rename(tree_->root(), "d1", *d1, "x", RenameMode::kReplace)), Errc::kInvalid);
    EXPECT_EQ(code(tree_->rename(tree_->root(), "nope", *d1, "x", RenameMode::kReplace)), Errc::kNotFound);
    EXPECT_EQ(code(tree_->rename(tree_->root(), "g", *d1, "f", RenameMode::kNoReplace)), Errc::kExists);
    ASSERT_TRUE(tree_->rename(tree_->root(), "g", *d1, "f", RenameMode::kExchange));
    EXPECT_EQ(as_text(get("g")), "f");
    EXPECT_EQ(as_text(get("d1/f")), "g");
    auto replaced = tree_->rename(tree_->root(), "g", *d1, "f", RenameMode::kReplace);
    ASSERT_TRUE(replaced);
    ASSERT_TRUE(*replaced);
    EXPECT_EQ(as_text(get("d1/f")), "f");
    EXPECT_EQ(as_text(bytes_of(*replaced)), "g");  // who has it open goes on reading it
    EXPECT_EQ(tree_->attributes(*replaced).nlink, 0u);
    ASSERT_TRUE(tree_->rename(tree_->root(), "d1", tree_->root(), "d2", RenameMode::kReplace));
    EXPECT_EQ(as_text(get("d2/f")), "f");
}

TEST_F(WorktreeTest, RenamedWhileOpenTheFileIsStillComplete) {  // safetensors: rename, then flush
    put("model.safetensors", as_bytes("old"));
    auto inode = tree_->create_file(tree_->root(), ".tmp123", 0600, 0, 0);
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    SetAttributes size;
    size.size = 7;
    ASSERT_TRUE(tree_->set_attributes(*inode, size));
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("new one")));
    ASSERT_TRUE(tree_->rename(tree_->root(), ".tmp123", tree_->root(), "model.safetensors", RenameMode::kReplace));
    EXPECT_EQ(as_text(get("model.safetensors")), "new one");
    ASSERT_TRUE(tree_->flush(*inode, true));
    tree_->close_file(*inode, true);
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_EQ(as_text(get("model.safetensors")), "new one");
    EXPECT_FALSE(tree_->lookup(tree_->root(), ".tmp123"));
}

TEST_F(WorktreeTest, UnlinkedWhileOpenTheBytesStay) {
    auto inode = tree_->create_file(tree_->root(), "t", 0644, 0, 0);
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("abc")));
    ASSERT_TRUE(tree_->unlink(tree_->root(), "t"));
    ASSERT_TRUE(tree_->write(*inode, 3, as_bytes("def")));
    EXPECT_EQ(as_text(bytes_of(*inode)), "abcdef");
    tree_->close_file(*inode, true);
    EXPECT_FALSE(tree_->lookup(tree_->root(), "t"));
    inode->reset();
    reopen();
    EXPECT_EQ(staging_files(), 0u);
}

TEST_F(WorktreeTest, RestoreBringsBackWhatACommitHeld) {
    ASSERT_TRUE(tree_->make_directory(tree_->root(), "d", 0755, 0, 0));
    put("d/a", as_bytes("a1"));
    put("b", as_bytes("b1"));
    CommitResult first = commit("one");
    put("d/a", as_bytes("a2"));
    ASSERT_TRUE(tree_->unlink(tree_->root(), "b"));
    put("new", as_bytes("n"));
    std::vector<std::string> seen;
    tree_->observe([&](Ino, const std::string& name, Ino) { seen.push_back(name); });
    auto made = repo_->commit(first.id);
    ASSERT_TRUE(made);
    auto one = tree_->restore((*made)->tree, {"b"});
    ASSERT_TRUE(one) << one.error().message;
    EXPECT_EQ(*one, 1u);
    EXPECT_EQ(as_text(get("b")), "b1");
    EXPECT_EQ(as_text(get("d/a")), "a2");
    ASSERT_TRUE(tree_->restore((*made)->tree, {}));
    EXPECT_EQ(as_text(get("d/a")), "a1");
    EXPECT_FALSE(tree_->lookup_path("new"));
    EXPECT_FALSE(seen.empty());
    auto status = tree_->status();
    ASSERT_TRUE(status);
    EXPECT_TRUE(status->changes.empty());
    EXPECT_FALSE(tree_->restore((*made)->tree, {"nowhere"}));
}

TEST_F(WorktreeTest, StagingGoesOnlyOnceTheBytesAreElsewhere) {
    Buffer data = noise(100'000, 9);
    put("f", data);
    commit("one");
    for (int i = 0; i < 200 && staging_files() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(staging_files(), 0u);
    EXPECT_EQ(get("f"), data);
    reopen();
    EXPECT_EQ(get("f"), data);
}

TEST_F(WorktreeTest, TwoOwnersAreRefused) {
    auto second = Worktree::open(*repo_, "main", pool_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::kBusy);
}

TEST_F(WorktreeTest, WritersAndIngestNeverLoseAnUpdate) {
    auto inode = tree_->create_file(tree_->root(), "f", 0644, 0, 0);
    ASSERT_TRUE(inode);
    Buffer last;
    for (std::uint32_t round = 0; round < 60; ++round) {
        ASSERT_TRUE(tree_->open_file(*inode, true, false));
        last = noise(200'000, round);
        ASSERT_TRUE(tree_->write(*inode, 0, last));
        ASSERT_TRUE(tree_->flush(*inode, true));
        tree_->close_file(*inode, true);
        if (round % 7 == 0) {
            ASSERT_TRUE(tree_->wait_ingested());
        }
    }
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_EQ(get("f"), last);
    ASSERT_TRUE(tree_->content_id(*inode));
    EXPECT_EQ(tree_->content_id(*inode)->bytes, Sha256::of(last).bytes);
}

TEST_F(WorktreeTest, NamesAndLimits) {
    std::string longest(255, 'x');
    EXPECT_TRUE(tree_->create_file(tree_->root(), longest, 0644, 0, 0));
    EXPECT_EQ(tree_->create_file(tree_->root(), longest + "x", 0644, 0, 0).error().code, Errc::kNameTooLong);
    EXPECT_TRUE(tree_->create_file(tree_->root(), "\xff\xfe not utf-8", 0644, 0, 0));
    for (const char* bad : {"", ".", "..", "a/b"}) {
        EXPECT_FALSE(tree_->create_file(tree_->root(), bad, 0644, 0, 0)) << bad;
    }
    EXPECT_EQ(tree_->create_file(tree_->root(), longest, 0644, 0, 0).error().code, Errc::kExists);
}

// Lowers the limit on descriptors for its life.
class FewDescriptors {
  public:
    explicit FewDescriptors(rlim_t limit) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        rlimit few{std::min(limit, before_.rlim_max), before_.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &few);
    }
    ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

  private:
    rlimit before_{};
};

TEST_F(WorktreeTest, OpenFilesMayBeMoreThanDescriptors) {
    FewDescriptors few(400);
    std::vector<InodePtr> held;
    for (int i = 0; i < 1000; ++i) {
        auto inode = tree_->create_file(tree_->root(), "f" + std::to_string(i), 0644, 0, 0);
        ASSERT_TRUE(inode) << inode.error().message;
        ASSERT_TRUE(tree_->open_file(*inode, true, false));
        ASSERT_TRUE(tree_->write(*inode, 0, as_bytes(std::to_string(i))));
        held.push_back(*inode);
    }
    for (int i = 0; i < 1000; ++i) {
        auto& inode = held[static_cast<std::size_t>(i)];
        auto more = tree_->append(inode, as_bytes("!"));
        ASSERT_TRUE(more) << more.error().message;
        EXPECT_EQ(as_text(bytes_of(inode)), std::to_string(i) + "!");
    }
    for (const InodePtr& inode : held) tree_->close_file(inode, true);
    held.clear();
    ASSERT_TRUE(tree_->wait_ingested());
    reopen();
    EXPECT_EQ(as_text(get("f999")), "999!");
}

TEST_F(WorktreeTest, AnUnlinkedFileLivesAsLongAsItsHandles) {
    auto inode = tree_->create_file(tree_->root(), "temporary", 0644, 0, 0);
    ASSERT_TRUE(inode);
    ASSERT_TRUE(tree_->open_file(*inode, true, false));
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("still here")));
    ASSERT_TRUE(tree_->unlink(tree_->root(), "temporary"));
    for (int i = 0; i < 300; ++i) put("f" + std::to_string(i), as_bytes("x"));  // takes all descriptors
    commit("lets staging files go");
    for (int i = 0; i < 200 && staging_files() > 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(staging_files(), 1u);
    EXPECT_EQ(as_text(bytes_of(*inode)), "still here");
    ASSERT_TRUE(tree_->write(*inode, 0, as_bytes("STILL")));
    EXPECT_EQ(as_text(bytes_of(*inode)), "STILL here");
    tree_->close_file(*inode, true);
    inode->reset();
    for (int i = 0; i < 200 && staging_files() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(staging_files(), 0u);
}

}  // namespace
}  // namespace coral::repo
