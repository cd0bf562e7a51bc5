// SPDX-License-Identifier: Apache-2.0
// What open handles mean for the rest: ingest beside a writer who is in the midst of a file, commits beside each other,
// rows that state.db did not take, times, and a process that follows another one under whose handles the files are.
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <thread>

#include "coral/base/sqlite.hpp"
#include "repo/state.hpp"
#include "worktree_fixture.hpp"

namespace coral::repo {
namespace {

using std::chrono::milliseconds;

class WorktreeHandles : public WorktreeFileTest {
  protected:
    // The file below, as the kernel has it in passthrough.
    void kernel_writes(std::uint64_t offset, std::string_view data) {
        auto file = tree_->lent_file(inode_);
        ASSERT_TRUE(file);
        const std::string path = "/proc/self/fd/" + std::to_string((*file)->native_handle());
        auto writable = real_os().open(path, OpenMode::kReadWrite);
        ASSERT_TRUE(writable);
        ASSERT_TRUE((*writable)->write_at(offset, as_bytes(data)));
    }
    bool eventually(const std::function<bool()>& done) {
        for (int i = 0; i < 500 && !done(); ++i) std::this_thread::sleep_for(milliseconds(10));
        return done();
    }
    Status execute(const char* sql) {
        return repo_->state().write([&](Database& db) { return db.execute(sql); });
    }
    Result<CommitResult> commit(std::vector<std::string> paths, const std::string& message) {
        CommitOptions options;
        options.paths = std::move(paths);
        options.message = message;
        return tree_->commit(options);
    }
};

// A fork closes what it inherited: a flush, in the midst of the writing. A commit beside it may take what was ingested
// last, which must have been whole.
TEST_F(WorktreeHandles, AFileIsIngestedWhenItsLastWriterHasClosedIt) {
    create("f");
    write(0, data_);
    ASSERT_TRUE(tree_->flush(inode_, true));
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_FALSE(tree_->content_id(inode_)) << "half of a file";
    tree_->close_file(inode_, true);  // nothing was written since the flush
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_TRUE(tree_->content_id(inode_));
    EXPECT_EQ(read_all(), data_);
}

// `touch -r` behind a write: the file below is as long and as old as it was.
TEST_F(WorktreeHandles, AWriteByTheKernelIsSeenThoughTheOldTimesAreSetAgain) {
    auto hot = std::make_shared<HotTier>();
    hot->limit = 1u << 30;
    tree_->keep_hot(hot);
    create("f");
    write(0, data_);
    SetAttributes old;
    old.mtime_ns = 1'000'000'000'000'000'000;
    ASSERT_TRUE(tree_->set_attributes(inode_, old));
    close_stored();
    const auto before = tree_->content_id(inode_);
    ASSERT_TRUE(before);
    ASSERT_TRUE(tree_->open_file(inode_, true, false));
    ASSERT_TRUE(tree_->lend(inode_, {.writable = true}).value_or(false));
    kernel_writes(5, "NEW");
    ASSERT_TRUE(tree_->set_attributes(inode_, old));
    tree_->close_lent(inode_, true);
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_NE(tree_->content_id(inode_), before);
    EXPECT_EQ(tree_->attributes(inode_).mtime_ns, *old.mtime_ns);
    open();  // and the staging file is gone
    find("f");
    EXPECT_EQ(read_all()[5], std::byte{'N'});
}

TEST_F(WorktreeHandles, CommitsOfPathsBesideEachOtherUndoNothing) {
    constexpr int kThreads = 8, kCommits = 40;
    for (int i = 0; i < kThreads; ++i) {
        create("p" + std::to_string(i));
        tree_->close_file(inode_, true);
    }
    ASSERT_TRUE(commit({}, "base"));
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([this, i] {
            const std::string name = "p" + std::to_string(i);
            for (int n = 1; n <= kCommits; ++n) {
                auto inode = tree_->lookup_path(name);
                ASSERT_TRUE(inode);
                ASSERT_TRUE(tree_->open_file(*inode, true, true));
                ASSERT_TRUE(tree_->write(*inode, 0, as_bytes(std::to_string(n))));
                tree_->close_file(*inode, true);
                while (!commit({name}, name)) std::this_thread::yield();  // another was first
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    auto at = tree_->base_commit();
    std::size_t seen = 0;
    for (; at; ++seen) {
        auto now = repo_->commit(*at);
        ASSERT_TRUE(now);
        if ((*now)->parents.empty()) break;
        auto before = repo_->commit((*now)->parents.front());
        ASSERT_TRUE(before);
        ASSERT_TRUE(diff_trees(*repo_, (*before)->tree, (*now)->tree, [&](const Change& change) -> Status {
            EXPECT_EQ(change.path, (*now)->message) << "another commit's file went with it";
            return {};
        }));
        at = (*now)->parents.front();
    }
    EXPECT_EQ(seen, std::size_t{kThreads * kCommits});
}

// A disk without room for the row: nobody will close the file a second time.
TEST_F(WorktreeHandles, AFileThatStateDidNotTakeAtItsCloseIsTakenLater) {
    create("f");
    write(0, data_);
    ASSERT_TRUE(
        execute("CREATE TRIGGER full BEFORE UPDATE OF complete ON inode WHEN new.complete = 1 "
                "BEGIN SELECT RAISE(ABORT, 'no room'); END"));
    tree_->close_file(inode_, true);
    std::this_thread::sleep_for(milliseconds(300));
    EXPECT_TRUE(tree_->attributes(inode_).incomplete);
    ASSERT_TRUE(execute("DROP TRIGGER full"));
    EXPECT_TRUE(eventually([this] { return !tree_->attributes(inode_).incomplete; }));
    ASSERT_TRUE(tree_->wait_ingested());
    EXPECT_TRUE(tree_->content_id(inode_));
}

TEST_F(WorktreeHandles, ATimeThatWasSetOutlivesTheProcess) {
    create("f");
    os_.on_write = [&](const std::string& path) {
        if (staging(path)) os_.unreadable = path;  // it waits for the next process: its ingest fails
    };
    write(0, data_);
    os_.on_write = nullptr;
    tree_->close_file(inode_, true);
    EXPECT_FALSE(tree_->wait_ingested());
    SetAttributes old;
    old.mtime_ns = 1'000'000'000'123'456'789;
    ASSERT_TRUE(tree_->set_attributes(inode_, old));
    open();
    find("f");
    EXPECT_EQ(tree_->attributes(inode_).mtime_ns, *old.mtime_ns);
    ASSERT_TRUE(tree_->open_file(inode_, true, false));
    write(0, data_);
    EXPECT_GT(tree_->attributes(inode_).mtime_ns, *old.mtime_ns);
}

TEST_F(WorktreeHandles, EmptyingAnEmptyFileChangesItsTimes) {
    create("f");
    close_stored();
    open();  // without a staging file
    find("f");
    SetAttributes old;
    old.mtime_ns = 1'000'000'000'000'000'000;
    ASSERT_TRUE(tree_->set_attributes(inode_, old));
    ASSERT_TRUE(tree_->open_file(inode_, true, true));
    EXPECT_GT(tree_->attributes(inode_).mtime_ns, *old.mtime_ns);
    tree_->close_file(inode_, true);
    open();
    find("f");
    EXPECT_GT(tree_->attributes(inode_).mtime_ns, *old.mtime_ns);
}

// The part of a supervisor: nobody has had the lock meanwhile.
class Locks final : public LockKeeper {
  public:
    std::unique_ptr<File> inherited(const Uuid&) override { return *real_os().open("/dev/null", OpenMode::kRead); }
    void keep(const Uuid&, const File&) override {}
    void drop(const Uuid&) override {}
};

// The kernel reads them itself: while it has one open, it goes on doing so whatever happens to our name for it.
TEST_F(WorktreeHandles, WhoFollowsLetsNoStagingFileGoBeforeItKnowsWhatIsOpen) {
    auto hot = std::make_shared<HotTier>();
    hot->limit = 1u << 30;
    tree_->keep_hot(hot);
    create("f");
    SetAttributes large;
    large.size = 300u << 20;  // more than what is worth a sync before its time
    ASSERT_TRUE(tree_->set_attributes(inode_, large));
    close_stored();
    Locks locks;
    auto next = Worktree::open(*repo_, "main", pool_, &locks);
    ASSERT_TRUE(next) << next.error().message;
    std::this_thread::sleep_for(milliseconds(500));
    auto inode = (*next)->lookup_path("f");
    ASSERT_TRUE(inode);
    ASSERT_TRUE((*next)->open_file(*inode, false, false));
    EXPECT_TRUE((*next)->lend(*inode, {}).value_or(false));
    (*next)->keep_hot(hot);
    EXPECT_TRUE((*next)->resumed());
    (*next)->close_lent(*inode, false);
}

}  // namespace
}  // namespace coral::repo
