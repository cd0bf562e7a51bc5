// SPDX-License-Identifier: Apache-2.0
// What gc takes for needed, and what becomes of history of which a part went.
#include <limits>

#include "coral/repo/worktree.hpp"
#include "repo/pins.hpp"
#include "repo_fixture.hpp"

namespace coral::repo::testing {
namespace {

std::string noise(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string out(size, '\0');
    for (char& c : out) c = static_cast<char>(random());
    return out;
}

class GcTest : public RepositoryTest {
  protected:
    GcReport gc(std::int64_t prune_before = std::numeric_limits<std::int64_t>::max()) {
        EXPECT_OK(repo_->store().seal());
        GcOptions options;
        options.prune_before = prune_before;
        options.patience = std::chrono::milliseconds(3000);
        auto done = repo_->gc(options);
        EXPECT_TRUE(done.ok()) << done.error().message;
        return done ? *done : GcReport{};
    }
    bool there(const std::string& content) {
        auto found = repo_->store().contains(store::Kind::kFile, Sha256::of(as_bytes(content)));
        return found && *found;
    }
    void expect_clean() {
        auto problems = repo_->fsck(true, {});
        ASSERT_OK(problems);
        for (const store::Problem& problem : *problems) ADD_FAILURE() << problem.what;
    }
    // A commit of one file, in a pack of its own.
    CommitId one_file(const std::string& content, const std::vector<CommitId>& parents) {
        CommitId id = commit(1000, parents, "m", tree({file("f", content)}));
        EXPECT_OK(repo_->store().seal());
        return id;
    }
};

TEST_F(GcTest, TheReflogCountsWithinTheGracePeriod) {
    std::string old = noise(300'000, 1), now = noise(300'000, 2);
    CommitId a = one_file(old, {}), b = one_file(now, {});
    ASSERT_OK(move("heads/main", a));
    ASSERT_OK(move("heads/main", b));
    std::int64_t hour_ago = now_ns() - 3'600'000'000'000;
    EXPECT_EQ(gc(hour_ago).packs.freed_bytes(), 0u);
    EXPECT_TRUE(there(old));
    EXPECT_EQ(count("SELECT COUNT(*) FROM reflog WHERE ref = 'heads/main'"), 2);
    EXPECT_GT(gc().packs.freed_bytes(), 290'000u);
    EXPECT_FALSE(there(old));
    EXPECT_TRUE(there(now));
    EXPECT_EQ(count("SELECT COUNT(*) FROM reflog WHERE ref = 'heads/main'"), 0)
        << "lines of the reflog that lead nowhere would be damage to fsck";
    expect_clean();
}

TEST_F(GcTest, HistoryOfWhichAPartWentGetsNoName) {
    std::string lost = noise(500'000, 1), kept = noise(500'000, 2);
    one_file(lost, {});
    // The commit's own records lie among what stays.
    TreeEntry big = file("kept", kept);
    TreeId hollow_tree = tree({fake_file("f", lost)});
    CommitId hollow = commit(2000, {}, "hollow", hollow_tree);
    CommitId child = commit(3000, {hollow}, "child", tree({big}));
    CommitId good = commit(1500, {}, "good", tree({big}));
    ASSERT_OK(move("heads/main", good));
    ASSERT_OK(repo_->create_branch("before", hollow, "all of it is there"));
    ASSERT_OK(repo_->delete_branch("before", "test"));
    EXPECT_GT(gc().packs.freed_bytes(), 490'000u);
    ASSERT_TRUE(repo_->commit(hollow).ok()) << "the test is about a commit that can still be found";
    for (const CommitId& id : {hollow, child}) {
        EXPECT_ERROR(repo_->create_branch("back", id, ""), Errc::kNotFound, "coral gc");
        EXPECT_ERROR(move("tags/back", id), Errc::kNotFound, "coral gc");
        EXPECT_ERROR(repo_->set_head_detached(id), Errc::kNotFound, "coral gc");
    }
    ThreadPool pool("test", 1);
    {
        auto worktree = Worktree::open(*repo_, "main", pool);
        ASSERT_OK(worktree);
        EXPECT_ERROR((*worktree)->restore(hollow_tree, {}), Errc::kNotFound, "coral gc");
        EXPECT_OK((*worktree)->restore(tree({big}), {}));
    }
    ASSERT_OK(repo_->create_branch("fine", good, ""));
    expect_clean();
    // Once its content is stored again, nothing is wrong with it.
    (void)tree({file("f", lost)});
    EXPECT_OK(repo_->create_branch("back", child, ""));
    expect_clean();
}

TEST_F(GcTest, PinsOfLivingProcessesCount) {
    std::string one = noise(300'000, 1), two = noise(300'000, 2);
    auto a = FileId::from(file("a", one).content), b = FileId::from(file("b", two).content);
    ASSERT_OK(repo_->store().seal());
    auto other = reopen();
    auto first = other->pin(a), again = other->pin(a);
    auto second = other->pin(b);
    auto all = Pins::all(real_os(), dir() + "/run");
    ASSERT_OK(all);
    EXPECT_EQ(all->size(), 2u);
    first.reset();
    second.reset();
    gc();
    EXPECT_TRUE(there(one));
    EXPECT_EQ(Pins::all(real_os(), dir() + "/run")->size(), 1u);
    // Many come and go: the file does not grow for ever.
    for (int n = 0; n < 40'000; ++n) (void)other->pin(b);
    for (const auto& entry : std::filesystem::directory_iterator(dir() + "/run"))
        EXPECT_LT(entry.file_size(), 2u << 20);
    EXPECT_EQ(Pins::all(real_os(), dir() + "/run")->size(), 1u);
    again.reset();
    EXPECT_GT(gc().packs.freed_bytes(), 290'000u);
    EXPECT_FALSE(there(one));
    // What a process that was killed has left behind.
    std::string left = dir() + "/run/pins-" + Uuid::random().text();
    {
        auto file = real_os().open(left, OpenMode::kCreateNew);
        ASSERT_OK(file);
        Buffer entry;
        ByteWriter(entry).u8('+').id(a);
        ASSERT_OK((*file)->write_at(0, entry));
    }
    EXPECT_TRUE(Pins::all(real_os(), dir() + "/run")->empty());
    EXPECT_FALSE(std::filesystem::exists(left));
}

TEST_F(GcTest, AnUnlinkedOpenFileIsPinned) {
    std::string content = noise(300'000, 1);
    TreeEntry entry = file("f", content);
    ASSERT_OK(repo_->store().seal());
    auto owner = reopen();
    ThreadPool pool("test", 1);
    auto worktree = Worktree::open(*owner, "main", pool);
    ASSERT_OK(worktree);
    auto placed = (*worktree)->place_file("f", FileId::from(entry.content), content.size(), 0644, 1, 0, 0);
    ASSERT_OK(placed);
    ASSERT_OK((*worktree)->unlink((*worktree)->root(), "f"));
    ASSERT_OK(owner->store().sync());
    gc();
    std::string got(content.size(), '\0');
    auto read = (*worktree)->read(*placed, 0, std::as_writable_bytes(std::span(got)));
    ASSERT_OK(read);
    EXPECT_TRUE(got == content);
    *placed = nullptr;
    EXPECT_GT(gc().packs.freed_bytes(), 290'000u);
}

TEST_F(GcTest, OneAtATimeAndDurations) {
    auto lock = real_os().open(dir() + "/run/gc.lock", OpenMode::kOpenOrCreate);
    ASSERT_OK(lock);
    ASSERT_TRUE((*lock)->try_lock(true).ok());
    EXPECT_ERROR(repo_->gc(GcOptions{}), Errc::kBusy, "gc.lock");
    EXPECT_EQ(parse_duration("90s"), 90'000'000'000);
    EXPECT_EQ(parse_duration("2w"), 14ll * 86400 * 1'000'000'000);
    EXPECT_EQ(parse_duration("0s"), 0);
    for (const char* wrong : {"", "h", "-1h", "1", "1y", "1 h", "99999999999999999999h", "9223372036854775807w"})
        EXPECT_FALSE(parse_duration(wrong)) << wrong;
}

}  // namespace
}  // namespace coral::repo::testing
