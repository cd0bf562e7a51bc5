// SPDX-License-Identifier: Apache-2.0
#include "repo/base_index.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>

#include "coral/base/hash.hpp"
#include "coral/base/os.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {
namespace {

constexpr codec::Hint kF32{4, codec::Hint::Class::kFloat, false, 12};
constexpr codec::Hint kBF16{2, codec::Hint::Class::kFloat, false, 11};

std::vector<float> weights(unsigned seed, std::size_t n = 32'768) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.03f);
    std::vector<float> out(n);
    for (float& w : out) w = normal(random);
    return out;
}

// A training step: every weight moves by about `size`.
std::vector<float> moved(std::vector<float> w, float size, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, size);
    for (float& value : w) value += normal(random);
    return w;
}

Buffer bytes_of(const std::vector<float>& w) {
    Buffer out(w.size() * 4);
    std::memcpy(out.data(), w.data(), out.size());
    return out;
}

SegmentId name_of(Bytes raw) {
    return SegmentId::from(Sha256::of(raw));
}

std::optional<SegmentId> chosen(const std::optional<BaseIndex::Choice>& choice) {
    return choice ? std::optional(choice->id) : std::nullopt;
}

class BaseIndexTest : public ::testing::Test {
  protected:
    SegmentId add(BaseIndex& index, const std::vector<float>& w, std::uint8_t depth = 0) {
        Buffer raw = bytes_of(w);
        index.add(name_of(raw), sketch_of(raw, kF32), anchors_of(raw), depth);
        return name_of(raw);
    }
    test::TempDir dir_;
    std::string path_ = dir_.path() + "/bases.db";
    BaseIndex index_{real_os(), path_, false};
};

TEST_F(BaseIndexTest, FindsTheRelativeAmongStrangers) {
    for (unsigned i = 0; i < 500; ++i) add(index_, weights(1000 + i, 8192));
    auto base = weights(1);
    SegmentId wanted = add(index_, base);
    for (unsigned i = 0; i < 500; ++i) add(index_, weights(5000 + i, 8192));
    index_.flush();
    Sketch tuned = sketch_of(bytes_of(moved(base, 1e-4f, 7)), kF32);
    EXPECT_EQ(chosen(index_.choose(tuned, std::nullopt)), wanted);
    EXPECT_FALSE(index_.choose(sketch_of(bytes_of(weights(2)), kF32), std::nullopt)) << "strangers are no bases";
}

TEST_F(BaseIndexTest, TheNearestOfAFamily) {
    auto base = weights(1);
    SegmentId first = add(index_, base);
    auto second = moved(base, 1e-3f, 2);
    SegmentId nearer = add(index_, second);
    add(index_, moved(base, 1e-2f, 3));
    index_.flush();
    Sketch next = sketch_of(bytes_of(moved(second, 1e-5f, 4)), kF32);
    EXPECT_EQ(chosen(index_.choose(next, std::nullopt)), nearer);
    EXPECT_EQ(chosen(index_.choose(next, first)), nearer) << "what the name suggests is clearly worse";
    Sketch other = sketch_of(bytes_of(moved(base, 1e-5f, 5)), kF32);
    EXPECT_EQ(chosen(index_.choose(other, nearer)), first);
}

TEST_F(BaseIndexTest, TheNameDecidesWhatIsAlike) {
    auto base = weights(1);
    SegmentId a = add(index_, moved(base, 1e-4f, 2)), b = add(index_, moved(base, 1e-4f, 3));
    index_.flush();
    Sketch next = sketch_of(bytes_of(moved(base, 1e-4f, 4)), kF32);
    EXPECT_EQ(chosen(index_.choose(next, a)), a);
    EXPECT_EQ(chosen(index_.choose(next, b)), b);
    SegmentId unknown = name_of(bytes_of(weights(9)));
    EXPECT_EQ(chosen(index_.choose(sketch_of(bytes_of(weights(8)), kF32), unknown)), unknown)
        << "nothing is known against it";
}

TEST_F(BaseIndexTest, ANameWithoutAnyLikenessIsNoBase) {
    SegmentId named = add(index_, weights(1));
    index_.flush();
    EXPECT_FALSE(index_.choose(sketch_of(bytes_of(weights(2)), kF32), named));
}

TEST_F(BaseIndexTest, ShallowBasesFirstAndNoneTooDeep) {
    auto base = weights(1);
    SegmentId shallow = add(index_, moved(base, 1e-4f, 2), 1);
    add(index_, moved(base, 0.9e-4f, 3), codec::kMaxDepth);
    index_.flush();
    EXPECT_EQ(chosen(index_.choose(sketch_of(bytes_of(moved(base, 1e-4f, 4)), kF32), std::nullopt)), shallow);
}

TEST_F(BaseIndexTest, OfTheSameElementTypeOnly) {
    add(index_, weights(1));
    index_.flush();
    EXPECT_TRUE(index_.nearest(sketch_of(bytes_of(weights(1)), kBF16), 8).empty());
}

TEST_F(BaseIndexTest, OutlivesTheProcessAndIsShared) {
    auto base = weights(1);
    BaseIndex other(real_os(), path_, false);
    Sketch tuned = sketch_of(bytes_of(moved(base, 1e-4f, 7)), kF32);
    EXPECT_FALSE(other.choose(tuned, std::nullopt));
    SegmentId wanted = add(index_, base);
    index_.flush();
    other.refresh();
    EXPECT_EQ(chosen(other.choose(tuned, std::nullopt)), wanted);
    BaseIndex later(real_os(), path_, true);
    later.refresh();
    EXPECT_EQ(chosen(later.choose(tuned, std::nullopt)), wanted);
}

TEST_F(BaseIndexTest, ADamagedFileIsMadeAnew) {
    std::ofstream(path_) << std::string(5000, 'x');
    auto base = weights(1);
    EXPECT_FALSE(index_.choose(sketch_of(bytes_of(base), kF32), std::nullopt));
    SegmentId wanted = add(index_, base);
    index_.flush();
    EXPECT_EQ(chosen(index_.choose(sketch_of(bytes_of(moved(base, 1e-4f, 7)), kF32), std::nullopt)), wanted);
}

TEST_F(BaseIndexTest, ForgetsWhatIsGone) {
    auto base = weights(1);
    SegmentId far = add(index_, moved(base, 1e-3f, 2)), near = add(index_, moved(base, 1e-5f, 3));
    index_.flush();
    Sketch next = sketch_of(bytes_of(base), kF32);
    EXPECT_EQ(chosen(index_.choose(next, std::nullopt)), near);
    index_.keep_only([&](const SegmentId& id) { return id != near; });
    EXPECT_EQ(chosen(index_.choose(next, std::nullopt)), far);
    BaseIndex later(real_os(), path_, true);
    later.refresh();
    EXPECT_EQ(chosen(later.choose(next, std::nullopt)), far);
}

TEST_F(BaseIndexTest, StrangersOfOtherLengthsTakeNoPlaces) {
    auto base = weights(1);
    SegmentId wanted = add(index_, base);
    // Nearer by their heads, which show the first 4 KiB alone.
    auto next = moved(base, 1e-4f, 2);
    for (std::size_t more = 1; more <= 20; ++more) {
        auto longer = next;
        longer.resize(base.size() + 1024 * more, 0.01f);
        add(index_, longer);
    }
    index_.flush();
    EXPECT_EQ(chosen(index_.choose(sketch_of(bytes_of(next), kF32), std::nullopt)), wanted);
}

// A file of terabytes keeps no more than so many sketches in memory, and what it has written is found with it.
TEST_F(BaseIndexTest, ALongFilesRowsAreWrittenAndFoundAtItsEnd) {
    BaseIndex index(real_os(), path_, false, {.heads = 100, .waiting = 2});
    index.refresh();
    auto base = weights(1);
    SegmentId wanted = add(index, base);
    Sketch next = sketch_of(bytes_of(moved(base, 1e-4f, 7)), kF32);
    add(index, weights(2));
    {
        BaseIndex other(real_os(), path_, true);
        other.refresh();
        EXPECT_EQ(chosen(other.choose(next, std::nullopt)), wanted) << "written";
    }
    EXPECT_FALSE(index.choose(next, std::nullopt)) << "not a base within its own file";
    index.flush();
    EXPECT_EQ(chosen(index.choose(next, std::nullopt)), wanted);
}

TEST_F(BaseIndexTest, TheNewestStayWhenThereAreTooMany) {
    constexpr unsigned kHeads = 64;
    for (bool anew : {false, true}) {
        BaseIndex index(real_os(), path_ + (anew ? "2" : "1"), false, {.heads = kHeads});
        std::vector<SegmentId> ids;
        for (unsigned i = 0; i < 5 * kHeads; ++i) {
            ids.push_back(add(index, weights(i, 8192)));
            if (!anew && i % 10 == 0) index.flush();
        }
        index.flush();
        auto found = [&](unsigned i) {
            return chosen(index.choose(sketch_of(bytes_of(moved(weights(i, 8192), 1e-4f, 7)), kF32), std::nullopt));
        };
        for (unsigned i = 5 * kHeads - kHeads / 2; i < 5 * kHeads; ++i) EXPECT_EQ(found(i), ids[i]) << i << anew;
        EXPECT_FALSE(found(0)) << anew;
        EXPECT_FALSE(found(3 * kHeads)) << anew;
    }
}

TEST(Sketch, DistanceOfHeadsIsTheSumOfBitLengths) {
    std::mt19937 random(1);
    for (int i = 0; i < 10'000; ++i) {
        std::array<std::uint16_t, Sketch::kHead> a{}, b{};
        unsigned wanted = 0;
        for (std::size_t e = 0; e < Sketch::kHead; ++e) {
            a[e] = static_cast<std::uint16_t>(random());
            b[e] = static_cast<std::uint16_t>(i % 2 ? random() : a[e] + random() % (1u << random() % 17));
            wanted += static_cast<unsigned>(std::bit_width(static_cast<unsigned>(std::abs(a[e] - b[e]))));
        }
        ASSERT_EQ(head_distance(a, b), wanted);
    }
    std::array<std::uint16_t, Sketch::kHead> low{}, high;
    high.fill(0xffff);
    EXPECT_EQ(head_distance(low, high), 256u);
}

TEST(Sketch, EstimatesWhatTheCoderMakes) {
    for (float size : {1e-6f, 1e-4f, 1e-2f}) {
        auto base = weights(1, 262'144);
        Buffer old = bytes_of(base), raw = bytes_of(moved(base, size, 2));
        Sketch a = sketch_of(raw, kF32), b = sketch_of(old, kF32);
        codec::Base as_base{name_of(old), 0, 0, old};
        auto alone = codec::encode_segment(raw, kF32, {}), delta = codec::encode_segment(raw, kF32, {&as_base, 1});
        ASSERT_TRUE(alone && delta);
        double n = static_cast<double>(base.size());
        double alone_bits = 8.0 * static_cast<double>(alone->payload.size()) / n;
        double delta_bits = 8.0 * static_cast<double>(delta->payload.size()) / n;
        EXPECT_NEAR(solo_estimate(a), alone_bits, 0.06 * alone_bits) << size;
        // Without the context of the exponent: somewhat too much, the same for all candidates.
        EXPECT_GT(delta_estimate(a, b), 0.85 * delta_bits) << size;
        EXPECT_LT(delta_estimate(a, b), 1.35 * delta_bits) << size;
    }
}

TEST(Sketch, EveryWidthAndOrder) {
    Buffer raw = bytes_of(weights(3));
    for (std::uint8_t width : {1, 2, 4, 8}) {
        for (bool big : {false, true}) {
            codec::Hint hint{width, codec::Hint::Class::kInteger, big, 0};
            Sketch sketch = sketch_of(raw, hint);
            EXPECT_LE(sketch.samples.size(), 1024u);
            EXPECT_EQ(sketch.samples.size() % width, 0u);
            EXPECT_EQ(delta_estimate(sketch, sketch), 0) << "the same costs nothing";
            EXPECT_EQ(head_distance(sketch.head, sketch.head), 0u);
            EXPECT_GT(solo_estimate(sketch), 0);
        }
    }
    Buffer zeros(kSketchFrom);
    EXPECT_EQ(solo_estimate(sketch_of(zeros, kF32)), 0);
}

}  // namespace
}  // namespace coral::repo
