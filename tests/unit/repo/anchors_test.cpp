// SPDX-License-Identifier: Apache-2.0
#include "repo/anchors.hpp"

#include <gtest/gtest.h>

#include <random>

#include "coral/base/hash.hpp"
#include "coral/base/os.hpp"
#include "repo/probe.hpp"
#include "support/temp_dir.hpp"

namespace coral::repo {
namespace {

constexpr codec::Hint kF32{4, codec::Hint::Class::kFloat, false, 12};

Buffer noise(std::size_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    Buffer out(size);
    for (std::byte& b : out) b = static_cast<std::byte>(random());
    return out;
}

Buffer part(const Buffer& from, std::size_t begin, std::size_t length) {
    return {from.begin() + static_cast<std::ptrdiff_t>(begin),
            from.begin() + static_cast<std::ptrdiff_t>(begin + length)};
}

Buffer joined(const std::vector<Buffer>& parts) {
    Buffer out;
    for (const Buffer& p : parts) out.insert(out.end(), p.begin(), p.end());
    return out;
}

class ProbeTest : public ::testing::Test {
  protected:
    SegmentId add(const Buffer& raw) {
        auto id = SegmentId::from(Sha256::of(raw));
        index_.add(id, sketch_of(raw, kF32), anchors_of(raw), 0);
        index_.flush();
        return id;
    }
    std::vector<Found> probe(const Buffer& file, std::size_t step = 1) {
        auto found = find_stored(formats::MemorySource(file), 0, file.size(), step, index_);
        EXPECT_TRUE(found.ok());
        return found ? *found : std::vector<Found>{};
    }
    test::TempDir dir_;
    BaseIndex index_{real_os(), dir_.file("bases.db"), false};
};

TEST_F(ProbeTest, StoredTensorsAtAnyOffset) {
    Buffer a = noise(300'000, 1), b = noise(70'001, 2), c = noise(2'500'000, 3);
    SegmentId id_a = add(a), id_b = add(b), id_c = add(c);
    Buffer file = joined({noise(12'345, 7), c, noise(1, 8), a, b, noise(100'000, 9)});
    auto found = probe(file);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(found[0].id, id_c);
    EXPECT_EQ(found[0].begin, 12'345u);
    EXPECT_EQ(found[0].length, c.size());
    EXPECT_EQ(found[1].id, id_a);
    EXPECT_EQ(found[1].begin, 12'346u + c.size());
    EXPECT_EQ(found[2].id, id_b);
    EXPECT_EQ(found[2].begin + found[2].length, file.size() - 100'000);
    for (const Found& f : found) EXPECT_EQ(f.offset, 0u);
}

TEST_F(ProbeTest, ASliceOfAStoredTensor) {
    Buffer whole = noise(4'000'000, 1);
    SegmentId id = add(whole);
    Buffer slice = part(whole, 1'000'004, 1'500'000);
    auto found = probe(slice, 4);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].id, id);
    EXPECT_EQ(found[0].begin, 0u);
    EXPECT_EQ(found[0].offset, 1'000'004u);
    EXPECT_EQ(found[0].length, slice.size());
    // In an unknown container, from the middle of an element on: the base begins with a whole one.
    found = probe(part(whole, 1'000'001, 1'500'000));
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].begin, 3u);
    EXPECT_EQ(found[0].offset, 1'000'004u);
}

TEST_F(ProbeTest, GrownAndCutOff) {
    Buffer whole = noise(1'000'000, 1);
    add(whole);
    auto grown = probe(joined({whole, noise(200'000, 2)}), 4);
    ASSERT_EQ(grown.size(), 1u);
    EXPECT_EQ(grown[0].length, whole.size());
    auto shorter = probe(part(whole, 0, 500'000), 4);
    ASSERT_EQ(shorter.size(), 1u);
    EXPECT_EQ(shorter[0].length, 500'000u);
}

TEST_F(ProbeTest, NothingInStrangersPaddingAndShortPieces) {
    Buffer known = noise(400'000, 1);
    add(known);
    EXPECT_TRUE(probe(noise(3'000'000, 2)).empty());
    EXPECT_TRUE(probe(Buffer(3'000'000)).empty());
    EXPECT_TRUE(probe(part(known, 0, kSketchFrom - 1)).empty());
    add(Buffer(200'000));  // zeros have no anchors
    EXPECT_TRUE(probe(Buffer(3'000'000)).empty());
}

TEST_F(ProbeTest, ManySmallOnesOneAfterTheOther) {
    std::vector<Buffer> parts;
    for (unsigned i = 0; i < 60; ++i) {
        parts.push_back(noise(kSketchFrom + 4 * i, 100 + i));
        add(parts.back());
    }
    auto found = probe(joined(parts), 4);
    ASSERT_EQ(found.size(), parts.size());
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        EXPECT_EQ(found[i].begin, at);
        EXPECT_EQ(found[i].length, parts[i].size());
        at += parts[i].size();
    }
}

TEST_F(ProbeTest, AcrossTheBlocksThatAreRead) {
    Buffer known = noise(100'000, 1);
    SegmentId id = add(known);
    for (std::size_t before :
         {(1u << 20) - 33u, (1u << 20) - 32u, (1u << 20) - 31u, (1u << 20) - 1u, (1u << 20) + 0u}) {
        auto found = probe(joined({noise(before, 5), known, noise(5, 6)}));
        ASSERT_EQ(found.size(), 1u) << before;
        EXPECT_EQ(found[0].begin, before);
        EXPECT_EQ(found[0].id, id);
    }
}

TEST(AnchorTable, TheNewestCountsAndThereIsALimit) {
    AnchorTable table;
    Buffer raw = noise(200'000, 1);
    AnchorTable::Segment first{SegmentId{}, 200'000, kF32}, second = first;
    second.id.bytes[0] = std::byte{2};
    table.add(first, anchors_of(raw));
    table.add(second, anchors_of(raw));
    auto place = table.find(raw, 0, 1);
    ASSERT_TRUE(place);
    EXPECT_EQ(place->position, 0u);
    EXPECT_EQ(place->hit.segment.id, second.id);
    place = table.find(raw, 1, 1);
    ASSERT_TRUE(place);
    EXPECT_EQ(place->position, kAnchorEvery);
    EXPECT_EQ(place->hit.offset, kAnchorEvery);
    std::mt19937_64 random(1);
    for (std::size_t i = 0; i < AnchorTable::kMost / 1000 + 10; ++i) {
        std::vector<std::uint64_t> many(1000);
        for (std::uint64_t& anchor : many) anchor = random() | 1;
        table.add(first, many);
    }
    EXPECT_FALSE(table.find(raw, 0, 1)) << "it has started afresh";
}

}  // namespace
}  // namespace coral::repo
