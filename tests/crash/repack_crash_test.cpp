// SPDX-License-Identifier: Apache-2.0
// repack cut at every step: every file is there, exact, before, during and after, and the next run ends the work.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

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

const int kQuietRepack = ::setenv("CORAL_LOG", "critical", 0);

repo::RepositoryOptions options() {
    repo::RepositoryOptions out;
    out.store.cache_bytes = 8u << 20;
    out.store.pack_bytes = 256u << 10;
    return out;
}

// F32 weights around zero; `step` apart from those of step 0.
std::string weights(std::size_t count, float step) {
    std::mt19937_64 random(7), moves(8);
    std::normal_distribution<float> normal(0.0F, 0.02F), move(0.0F, 1.0F);
    std::string out;
    for (std::size_t i = 0; i < count; ++i) {
        float value = normal(random) + step * move(moves);
        out.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    return out;
}

std::string safetensors(const std::string& data) {
    std::string header =
        fmt::format(R"({{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}})", data.size() / 4, data.size());
    std::string out(8, '\0');
    out[0] = static_cast<char>(header.size());
    return out + header + data;
}

// `raw` as a file of one segment, with a layout or as something unknown.
Status put(store::Store& store, const std::string& raw, bool with_layout) {
    FileRecord record;
    record.id = FileId::from(Sha256::of(as_bytes(raw)));
    record.size = raw.size();
    auto id = SegmentId::from(record.id);
    codec::Hint hint;
    if (with_layout) {
        hint = {4, codec::Hint::Class::kFloat, false, 12};
        record.parser = 1;
        record.parser_version = 99;
        record.tensors.push_back({"w", 12, false, {raw.size() / 4}, 0, raw.size(), 0});
    }
    CORAL_CHECK(store.put_segment(id, as_bytes(raw), hint, {}));
    record.segments = {id};
    record.extents = {{0, 0, raw.size()}};
    return store.put_file(record).ok() ? Status() : make_error(Errc::kInternal, "put_file");
}

struct RepackRun {
    MemoryDir dir;
    RecordingOs os{dir.path()};
    std::vector<std::string> contents;
    std::size_t begun = kNever;
    repo::RepackReport report;

    Status work() {
        ThreadPool pool("test", 1);
        {
            CORAL_TRY(auto owner, Repository::init(os, dir.path(), options()));
            CORAL_TRY(auto tree, Worktree::open(*owner, "main", pool));
            contents = {weights(20'000, 0), weights(20'000, 1e-6F), weights(20'000, 2e-6F),
                        safetensors(weights(15'000, 0.1F)), noise(30'000, 4)};
            for (std::size_t i = 0; i < contents.size(); ++i) {
                CORAL_CHECK(put(owner->store(), contents[i], i < 3));
                auto id = FileId::from(Sha256::of(as_bytes(contents[i])));
                CORAL_CHECK(tree->place_file(fmt::format("f{}", i), id, contents[i].size(), 0644, 1, 0, 0));
            }
            CORAL_CHECK(tree->sync_names());
            CORAL_CHECK(owner->store().seal());
        }
        CORAL_TRY(auto repo, Repository::open(os, dir.path(), options()));
        begun = os.position();
        CORAL_TRY(report, repo->repack(pool, {}));
        return {};
    }
};

Status read_back(store::Store& store, const std::string& content) {
    CORAL_TRY(auto record, store.file(FileId::from(Sha256::of(as_bytes(content)))));
    std::string out(record->size, '\0');
    CORAL_TRY(std::size_t got, store.read_file(*record, 0, std::as_writable_bytes(std::span(out))));
    if (got != out.size() || out != content) return make_error(Errc::kInternal, "other bytes");
    return {};
}

Status check_all(Repository& repo, const RepackRun& run) {
    CORAL_TRY(auto problems, repo.fsck(true, {}));
    for (const store::Problem& problem : problems) {
        if (problem.severity != store::Problem::Severity::kWarning) return make_error(Errc::kInternal, problem.what);
    }
    for (const std::string& content : run.contents) CORAL_CHECK(read_back(repo.store(), content));
    return {};
}

Status check(const RepackRun& run, const std::string& dir) {
    ForwardingOs os("boot-2");
    ThreadPool pool("test", 1);
    {
        CORAL_TRY(auto repo, Repository::open(os, dir, options()));
        CORAL_CHECK(check_all(*repo, run));
        CORAL_CHECK(repo->repack(pool, {}));
        CORAL_CHECK(check_all(*repo, run));
    }
    {
        // The memory for similar tensors is a cache; a cut may damage it.
        for (const char* suffix : {"", "-wal", "-shm"}) (void)os.remove(dir + "/bases.db" + suffix);
        CORAL_TRY(auto repo, Repository::open(os, dir, options()));
        CORAL_TRY(auto report, repo->repack(pool, {}));
        // A pack with a hole in it is left to fsck.
        if (report.packs.kept.empty() && report.after_bytes > run.report.after_bytes + 4096)
            return make_error(Errc::kInternal, fmt::format("{} bytes are left", report.after_bytes));
        CORAL_CHECK(check_all(*repo, run));
    }
    CORAL_TRY(auto again, Repository::open(os, dir, options()));
    return check_all(*again, run);
}

std::size_t violations(const RepackRun& run, Cut cut, std::uint64_t seed, std::size_t show = 5) {
    std::size_t bad = 0;
    Disk disk(run.os.log());
    for (std::size_t position = run.begun; position <= run.os.log().size(); ++position) {
        disk.advance(position);
        MemoryDir there;
        disk.materialise(there.path(), cut, seed);
        Status good = check(run, there.path());
        if (good || ++bad > show) continue;
        std::printf("  %s cut after %zu (%s): %s\n", std::string(cut_name(cut)).c_str(), position,
                    to_string(run.os.log()[position - 1]).c_str(), good.error().message.c_str());
    }
    return bad;
}

class RepackCrash : public ::testing::TestWithParam<Cut> {};

TEST_P(RepackCrash, EveryPoint) {
    RepackRun run;
    Status worked = run.work();
    ASSERT_TRUE(worked) << worked.error().message;
    ASSERT_EQ(run.report.segments_encoded, 2u) << "nothing got a base: nothing is tested";
    ASSERT_EQ(run.report.files_cut, 1u);
    ASSERT_LT(run.report.after_bytes, run.report.before_bytes);
    for (std::uint64_t seed = 0; seed < (GetParam() == Cut::kRandom ? 3 : 1); ++seed) {
        EXPECT_EQ(violations(run, GetParam(), seed), 0u);
    }
}

INSTANTIATE_TEST_SUITE_P(Modes, RepackCrash,
                         ::testing::Values(Cut::kKill, Cut::kAll, Cut::kSynced, Cut::kNames, Cut::kRandom),
                         [](const auto& it) { return std::string(cut_name(it.param)); });

TEST(RepackCrashChecker, NoticesADiskThatLies) {
    RepackRun run;
    run.os.set_lies(Lies{true, false, false});
    ASSERT_TRUE(run.work());
    EXPECT_GT(violations(run, Cut::kSynced, 0, 0), 0u);
}

}  // namespace
}  // namespace coral::test
