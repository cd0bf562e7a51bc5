// SPDX-License-Identifier: Apache-2.0
// Parameters and their moments: found by names and shapes, stored as steps of Adam.
#include "repo/adam_parts.hpp"

#include <cmath>

#include "coral/base/thread_pool.hpp"
#include "coral/formats/layout.hpp"
#include "coral/repo/ingest.hpp"
#include "repo/base_index.hpp"
#include "repo_fixture.hpp"

namespace coral::repo::testing {
namespace {

store::TensorEntry entry(std::string name, std::vector<std::uint64_t> shape,
                         formats::Dtype dtype = formats::Dtype::kF32) {
    store::TensorEntry out;
    out.name = std::move(name);
    out.dtype = static_cast<std::uint8_t>(dtype);
    out.shape = std::move(shape);
    return out;
}

TEST(AdamParts, TheNthPairOfAShapeIsOfTheNthTensorOfIt) {
    std::vector<store::TensorEntry> tensors{
        entry("model.a.weight", {8, 4}),
        entry("model.a.bias", {8}),
        entry("model.b.weight", {8, 4}),
        entry("model.mask", {8, 4}, formats::Dtype::kU8),
        entry("optimizer.state.0.exp_avg", {8, 4}),
        entry("optimizer.state.0.exp_avg_sq", {8, 4}),
        entry("optimizer.state.1.exp_avg", {8, 4}),
        entry("optimizer.state.1.exp_avg_sq", {8, 4}),
        entry("optimizer.state.2.exp_avg", {8}),
        entry("optimizer.state.2.exp_avg_sq", {8}),
    };
    const auto parts = adam_parts(tensors);
    auto is = [&](std::size_t i, codec::Formula formula, std::size_t first, std::size_t second) {
        return parts[i].formula == formula && parts[i].first == first && parts[i].second == second;
    };
    EXPECT_TRUE(is(0, codec::Formula::kAdamWeights, 4, 5));
    EXPECT_TRUE(is(1, codec::Formula::kAdamWeights, 8, 9));
    EXPECT_TRUE(is(2, codec::Formula::kAdamWeights, 6, 7));
    EXPECT_TRUE(is(3, codec::Formula::kNone, 0, 0));
    EXPECT_TRUE(is(4, codec::Formula::kNone, 0, 0));
    EXPECT_TRUE(is(7, codec::Formula::kAdamVariance, 6, 0));
}

TEST(AdamParts, NamesOfOtherOrdersAndWithoutAPartner) {
    const auto parts = adam_parts({entry("exp_avg.w", {9}), entry("exp_avg_sq.w", {9}), entry("w", {9}),
                                   entry("exp_average", {9}), entry("exp_avg.u", {9}), entry("exp_avg_sq.x", {3})});
    EXPECT_EQ(parts[1].formula, codec::Formula::kAdamVariance);
    EXPECT_EQ(parts[1].first, 0u);
    EXPECT_EQ(parts[2].formula, codec::Formula::kAdamWeights);
    EXPECT_EQ(parts[3].formula, codec::Formula::kNone) << "one pair, one parameter";
    EXPECT_EQ(parts[5].formula, codec::Formula::kNone);
    EXPECT_TRUE(adam_parts({}).empty());
}

class AdamSeriesTest : public RepositoryTest {
  protected:
    static constexpr std::size_t kCount = 60'000;
    // One more step, as AdamW makes it.
    void step() {
        std::normal_distribution<float> normal;
        for (std::size_t i = 0; i < kCount; ++i) {
            const float g = 1e-3F * normal(random_);
            m_[i] += 0.1F * (g - m_[i]);
            v_[i] = 0.999F * v_[i] + 0.001F * g * g;
            w_[i] = w_[i] * (1 - 1e-5F) - 3e-4F * m_[i] / (std::sqrt(v_[i]) + 1e-8F);
        }
    }
    std::string file_of_now() const {
        std::string header = "{", data;
        for (auto& [name, values] : {std::pair{"w", &w_}, {"opt.0.exp_avg", &m_}, {"opt.0.exp_avg_sq", &v_}}) {
            header += fmt::format(R"({}"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                                  header.size() > 1 ? "," : "", name, kCount, data.size(), data.size() + 4 * kCount);
            data.append(reinterpret_cast<const char*>(values->data()), 4 * kCount);
        }
        header += "}";
        std::string out(8, '\0');
        for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> (8 * i));
        return out + header + data;
    }
    std::uint64_t ingest(const std::string& content) {
        Ingestor ingestor(repo_->store(), repo_->base_index(), pool_, 2);
        auto done = ingestor.ingest(formats::MemorySource(as_bytes(content)), bases_);
        EXPECT_TRUE(done.ok()) << done.error().message;
        return done ? done->stored_bytes : 0;
    }
    void expect_content(const std::string& content) {
        auto record = repo_->store().file(FileId::from(Sha256::of(as_bytes(content))));
        ASSERT_OK(record);
        std::string got(content.size(), '\0');
        ASSERT_OK(repo_->store().read_file(**record, 0, std::as_writable_bytes(std::span(got))));
        EXPECT_TRUE(got == content);
    }
    std::mt19937_64 random_{3};
    std::vector<float> w_ = normal_weights(), m_ = std::vector<float>(kCount), v_ = std::vector<float>(kCount, 1e-7F);
    BaseMap bases_;
    ThreadPool pool_{"test", 2};

  private:
    std::vector<float> normal_weights() {
        std::normal_distribution<float> normal(0, 0.05F);
        std::vector<float> out(kCount);
        for (float& w : out) w = normal(random_);
        return out;
    }
};

TEST_F(AdamSeriesTest, ASaveAfterEveryStepCostsItsGradient) {
    std::vector<std::string> saves;
    std::uint64_t all = 0;
    for (int save = 0; save < 18; ++save) {
        step();
        saves.push_back(file_of_now());
        const std::uint64_t stored = ingest(saves.back());
        if (save > 0 && save < 5) {
            EXPECT_LT(stored, saves.back().size() * 3 / 10) << save;
        }
        EXPECT_LT(stored, saves.back().size());
        all += stored;
    }
    EXPECT_LT(all, saves.back().size() * saves.size() * 4 / 10) << "a new chain where one is too deep";
    for (const std::string& content : saves) expect_content(content);
    ASSERT_OK(repo_->store().sync());
    repo_ = reopen();
    for (const std::string& content : saves) expect_content(content);
    auto problems = repo_->fsck(true, {});
    ASSERT_OK(problems);
    EXPECT_TRUE(problems->empty());
}

// A source that has other bytes when it is read once more.
class Changing final : public formats::ByteSource {
  public:
    explicit Changing(std::string bytes) : bytes_(std::move(bytes)) {}
    std::uint64_t size() const override { return bytes_.size(); }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        std::memcpy(out.data(), bytes_.data() + offset, out.size());
        if (offset > 0 && out.size() == 4 * 60'000) ++bytes_[static_cast<std::size_t>(offset)];
        return {};
    }

  private:
    mutable std::string bytes_;
};

TEST_F(AdamSeriesTest, AFileThatChangesMeanwhileIsNotStored) {
    step();
    ingest(file_of_now());
    step();
    Ingestor ingestor(repo_->store(), repo_->base_index(), pool_, 2);
    auto done = ingestor.ingest(Changing(file_of_now()), bases_);
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().code, Errc::kConflict);
}

}  // namespace
}  // namespace coral::repo::testing
