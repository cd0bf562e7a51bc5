// SPDX-License-Identifier: Apache-2.0
// Repository::repack: files that are cut anew, bases that are found late.
#include "coral/base/thread_pool.hpp"
#include "coral/repo/ingest.hpp"
#include "repo/base_index.hpp"
#include "repo_fixture.hpp"

namespace coral::repo::testing {
namespace {

// F32 weights around zero, as a network has them.
std::string weights(std::size_t count, std::uint64_t seed, float step = 0, std::uint64_t step_seed = 0) {
    std::mt19937_64 random(seed), moves(step_seed + 99);
    std::normal_distribution<float> normal(0.0F, 0.02F), move(0.0F, 1.0F);
    std::string out;
    for (std::size_t i = 0; i < count; ++i) {
        float value = normal(random) + step * move(moves);
        out.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    return out;
}

std::string safetensors(const std::string& name, const std::vector<std::string>& tensors) {
    std::string header = "{", data;
    for (const std::string& tensor : tensors) {
        header += fmt::format(R"({}"{}.{}":{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                              header.size() > 1 ? "," : "", name, data.size(), tensor.size() / 4, data.size(),
                              data.size() + tensor.size());
        data += tensor;
    }
    header += "}";
    std::string out(8, '\0');
    for (int i = 0; i < 8; ++i) out[static_cast<std::size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
    return out + header + data;
}

class RepackTest : public RepositoryTest {
  protected:
    RepackReport repack(RepackOptions options = {}) {
        options.patience = std::chrono::milliseconds(3000);
        auto done = repo_->repack(pool_, options);
        EXPECT_TRUE(done.ok()) << done.error().message;
        return done ? std::move(*done) : RepackReport{};
    }
    void expect_content(const std::string& content) {
        auto record = repo_->store().file(FileId::from(Sha256::of(as_bytes(content))));
        ASSERT_OK(record);
        std::string got(content.size(), '\0');
        auto length = repo_->store().read_file(**record, 0, std::as_writable_bytes(std::span(got)));
        ASSERT_OK(length);
        EXPECT_TRUE(got == content);
    }
    void expect_clean() {
        auto problems = repo_->fsck(true, {});
        ASSERT_OK(problems);
        for (const store::Problem& problem : *problems) ADD_FAILURE() << problem.what;
    }
    std::uint16_t parser_of(const std::string& content) {
        auto record = repo_->store().file(FileId::from(Sha256::of(as_bytes(content))));
        return record ? (*record)->parser : std::uint16_t{999};
    }
    TreeEntry ingest(const std::string& name, const std::string& content) {
        Ingestor ingestor(repo_->store(), repo_->base_index(), pool_, 2);
        BaseMap bases;
        auto done = ingestor.ingest(formats::MemorySource(as_bytes(content)), bases);
        EXPECT_TRUE(done.ok());
        return fake_file(name, content);
    }
    ThreadPool pool_{"test", 2};
};

TEST_F(RepackTest, AFileOfUnknownFormatIsCutAnew) {
    std::string model = safetensors("m", {weights(50'000, 1), weights(30'000, 2)});
    std::string noise = "no format at all " + weights(20'000, 3);
    // The fixture stores a file as one segment without a layout, as a CoralFS that knew no format did.
    CommitId id = commit(1000, {}, "m", tree({file("model", model), file("noise", noise)}));
    ASSERT_OK(move("heads/main", id));
    ASSERT_OK(repo_->store().seal());
    ASSERT_EQ(parser_of(model), 0);
    RepackOptions dry;
    dry.dry_run = true;
    EXPECT_EQ(repack(dry).files_cut, 1u);
    EXPECT_EQ(parser_of(model), 0);
    RepackReport report = repack();
    EXPECT_EQ(report.files, 2u);
    EXPECT_EQ(report.files_cut, 1u);
    EXPECT_EQ(parser_of(model), 1);
    EXPECT_EQ(parser_of(noise), 0);
    EXPECT_LT(report.after_bytes, report.before_bytes) << "floats are coded, and the old cut is gone";
    auto old = repo_->store().contains(store::Kind::kSegment, Sha256::of(as_bytes(model)));
    EXPECT_TRUE(old && !*old) << "the segment of the old cut";
    expect_content(model);
    expect_content(noise);
    ASSERT_OK(repo_->commit(id));
    expect_clean();
    EXPECT_EQ(repack().files_cut, 0u);
    repo_ = reopen();
    EXPECT_EQ(parser_of(model), 1);
    expect_content(model);
    expect_clean();
}

TEST_F(RepackTest, FilesOfTheSameBytesAndOthersKeepWhatTheyShare) {
    std::string model = safetensors("m", {weights(50'000, 1)});
    TreeEntry whole = file("model", model);
    // Another file that is made of the very segment that the old cut was: it must stay.
    std::string twice = model + model;
    store::FileRecord record;
    record.id = FileId::from(Sha256::of(as_bytes(twice)));
    record.size = twice.size();
    record.segments = {SegmentId::from(Sha256::of(as_bytes(model)))};
    record.extents = {{0, 0, model.size()}, {0, 0, model.size()}};
    ASSERT_OK(repo_->store().put_file(record));
    CommitId id = commit(1000, {}, "m", tree({whole, fake_file("twice", twice)}));
    ASSERT_OK(move("heads/main", id));
    repack();
    EXPECT_EQ(parser_of(model), 1);
    expect_content(model);
    expect_content(twice);
    expect_clean();
}

TEST_F(RepackTest, BasesAreFoundWhateverTheNames) {
    std::string first = safetensors("a", {weights(60'000, 1)});
    std::string second = safetensors("b", {weights(60'000, 1, 1e-6F, 1)});
    std::string third = safetensors("c", {weights(60'000, 1, 1e-6F, 2)});
    CommitId parent{};
    std::vector<CommitId> parents;
    std::int64_t time = 1000;
    for (const std::string* content : {&first, &second, &third}) {
        parent = commit(++time, parents, "m", tree({ingest("model", *content)}));
        parents = {parent};
        ASSERT_OK(move("heads/main", parent));
        repo_.reset();
        for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(dir() + "/bases.db" + suffix);
        repo_ = reopen();
    }
    RepackReport report = repack();
    EXPECT_EQ(report.files, 3u);
    EXPECT_EQ(report.segments_encoded, 2u);
    EXPECT_LT(report.after_bytes, report.before_bytes * 4 / 5);
    for (const std::string* content : {&first, &second, &third}) expect_content(*content);
    expect_clean();
    EXPECT_EQ(repack().segments_encoded, 0u);
}

TEST_F(RepackTest, AnInterruptedOneIsEndedByTheNext) {
    std::string model = safetensors("m", {weights(50'000, 1), weights(30'000, 2)});
    ASSERT_OK(move("heads/main", commit(1000, {}, "m", tree({file("model", model)}))));
    RepackOptions options;
    int asked = 0;
    for (int after = 0; after < 12; ++after) {
        asked = 0;
        options.cancelled = [&] { return ++asked > after; };
        auto done = repo_->repack(pool_, options);
        EXPECT_TRUE(done.ok() || done.error().code == Errc::kConflict);
        expect_content(model);
    }
    repack();
    EXPECT_EQ(parser_of(model), 1);
    expect_content(model);
    expect_clean();
}

}  // namespace
}  // namespace coral::repo::testing
