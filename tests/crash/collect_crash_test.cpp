// SPDX-License-Identifier: Apache-2.0
// gc cut at every step: what is needed is there, exact, before, during and after; what checks clean goes on checking
// clean.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "coral/base/hash.hpp"
#include "coral/repo/worktree.hpp"
#include "crash/workload.hpp"
#include "support/power_cut.hpp"
#include "support/scratch_dir.hpp"

namespace coral::test {
namespace {

using repo::Repository;
using repo::Worktree;
using store::FileRecord;
using store::Kind;

const int kQuiet = ::setenv("CORAL_LOG", "critical", 0);

repo::RepositoryOptions options() {
    repo::RepositoryOptions out;
    out.store.cache_bytes = 8u << 20;
    out.store.pack_bytes = 256u << 10;
    return out;
}

struct Content {
    FileId id;
    std::string bytes;
    std::size_t durable = kNever, unneeded = kNever;  // positions
};

Result<Content> put(store::Store& store, std::size_t size, std::uint64_t seed) {
    Content out;
    out.bytes = noise(size, seed);
    FileRecord record;
    Bytes all = as_bytes(out.bytes);
    record.id = out.id = FileId::from(Sha256::of(all));
    record.size = size;
    for (std::size_t at = 0; at < size; at += 70'000) {
        Bytes part = all.subspan(at, std::min<std::size_t>(70'000, size - at));
        auto id = SegmentId::from(Sha256::of(part));
        CORAL_CHECK(store.put_segment(id, part, codec::Hint{}, {}));
        record.extents.push_back({static_cast<std::uint32_t>(record.segments.size()), 0, part.size()});
        record.segments.push_back(id);
    }
    CORAL_CHECK(store.put_file(record));
    return out;
}

struct GcRun {
    MemoryDir dir;
    RecordingOs os{dir.path()};
    std::size_t created = kNever;
    std::vector<Content> contents;
    std::uint64_t freed = 0;

    Status place(Worktree& tree, const std::string& path, Content content, bool durable) {
        CORAL_CHECK(tree.place_file(path, content.id, content.bytes.size(), 0644, 1, 0, 0));
        if (durable) {
            CORAL_CHECK(tree.sync_names());
            content.durable = os.position();
        }
        contents.push_back(std::move(content));
        return {};
    }

    Status work() {
        ThreadPool pool("test", 1);
        CORAL_TRY(auto owner, Repository::init(os, dir.path(), options()));
        created = os.position();
        {
            CORAL_TRY(auto tree, Worktree::open(*owner, "main", pool));
            CORAL_TRY(Content kept, put(owner->store(), 150'000, 1));
            CORAL_TRY(Content small, put(owner->store(), 3'000, 2));
            CORAL_TRY(Content first, put(owner->store(), 140'000, 3));
            CORAL_TRY(Content dead, put(owner->store(), 260'000, 4));
            CORAL_TRY(Content second, put(owner->store(), 100'000, 5));
            CORAL_CHECK(place(*tree, "kept", std::move(kept), true));
            CORAL_CHECK(place(*tree, "small", std::move(small), true));
            CORAL_CHECK(place(*tree, "changed", std::move(first), true));
            (void)dead;
            // The row that names the new content is not on the disk: a cut before gc has seen to that shows the old
            // one.
            CORAL_CHECK(owner->store().sync());
            CORAL_CHECK(place(*tree, "changed", std::move(second), false));
            CORAL_CHECK(owner->store().sync());
        }
        // Another process than the owner, whose connections stay open: closing the last one would sync the rows.
        CORAL_TRY(auto repo, Repository::open(os, dir.path(), options()));
        repo::GcOptions gc;
        gc.prune_before = std::numeric_limits<std::int64_t>::max();
        contents[2].unneeded = os.position();
        CORAL_TRY(auto report, repo->gc(gc));
        freed = report.packs.freed_bytes();
        contents[3].durable = os.position();
        return {};
    }
};

Status read_back(store::Store& store, const Content& content) {
    CORAL_TRY(auto record, store.file(content.id));
    std::string out(record->size, '\0');
    CORAL_TRY(std::size_t got, store.read_file(*record, 0, std::as_writable_bytes(std::span(out))));
    if (got != out.size() || out != content.bytes) return make_error(Errc::kInternal, "other bytes");
    return {};
}

Status check_whole(Repository& repo) {
    CORAL_TRY(auto problems, repo.fsck(true, {}));
    for (const store::Problem& problem : problems) {
        if (problem.severity != store::Problem::Severity::kWarning) return make_error(Errc::kInternal, problem.what);
    }
    return {};
}

Status check(const GcRun& run, const std::string& dir, std::size_t position) {
    ForwardingOs os("boot-2");
    auto opened = Repository::open(os, dir, options());
    if (!opened && run.created > position) return {};
    if (!opened) return std::move(opened).error().with("open");
    Repository& repo = **opened;
    CORAL_CHECK(check_whole(repo));
    for (const Content& content : run.contents) {
        if (content.durable > position || content.unneeded <= position) continue;
        Status read = read_back(repo.store(), content);
        if (!read) return std::move(read).error().with(fmt::format("file of {} bytes", content.bytes.size()));
    }
    // The next run ends the work, and what went can be stored again.
    repo::GcOptions gc;
    gc.prune_before = std::numeric_limits<std::int64_t>::max();
    CORAL_CHECK(repo.gc(gc));
    CORAL_CHECK(check_whole(repo));
    CORAL_TRY(Content again, put(repo.store(), 260'000, 4));
    CORAL_CHECK(repo.store().sync());
    return read_back(repo.store(), again);
}

std::size_t violations(const GcRun& run, Cut cut, std::uint64_t seed, std::size_t show = 5) {
    std::size_t bad = 0;
    Disk disk(run.os.log());
    // Before gc other tests have looked.
    for (std::size_t position = run.contents[2].unneeded; position <= run.os.log().size(); ++position) {
        disk.advance(position);
        MemoryDir there;
        disk.materialise(there.path(), cut, seed);
        Status good = check(run, there.path(), position);
        if (good || ++bad > show) continue;
        std::printf("  %s cut after %zu (%s): %s\n", std::string(cut_name(cut)).c_str(), position,
                    to_string(run.os.log()[position - 1]).c_str(), good.error().message.c_str());
    }
    return bad;
}

class GcCrash : public ::testing::TestWithParam<Cut> {};

TEST_P(GcCrash, EveryPoint) {
    GcRun run;
    Status worked = run.work();
    ASSERT_TRUE(worked) << worked.error().message;
    ASSERT_GT(run.freed, 200'000u) << "nothing was removed: nothing is tested";
    for (std::uint64_t seed = 0; seed < (GetParam() == Cut::kRandom ? 3 : 1); ++seed) {
        EXPECT_EQ(violations(run, GetParam(), seed), 0u);
    }
}

INSTANTIATE_TEST_SUITE_P(Modes, GcCrash,
                         ::testing::Values(Cut::kKill, Cut::kAll, Cut::kSynced, Cut::kNames, Cut::kRandom),
                         [](const auto& it) { return std::string(cut_name(it.param)); });

TEST(GcCrashChecker, NoticesADiskThatLies) {
    for (Lies lies : {Lies{true, false, false}, Lies{false, false, true}}) {
        GcRun run;
        run.os.set_lies(lies);
        ASSERT_TRUE(run.work());
        EXPECT_GT(violations(run, Cut::kSynced, 0, 0), 0u);
    }
}

}  // namespace
}  // namespace coral::test
