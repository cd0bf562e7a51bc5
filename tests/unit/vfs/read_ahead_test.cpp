// SPDX-License-Identifier: Apache-2.0
#include "vfs/read_ahead.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace coral::vfs {
namespace {

constexpr std::uint64_t kMiB = 1u << 20;

store::FileRecord file(std::uint64_t size, std::vector<std::pair<std::uint64_t, std::uint64_t>> tensors = {}) {
    store::FileRecord record;
    record.size = size;
    for (auto [offset, length] : tensors) {
        store::TensorEntry t;
        t.offset = offset;
        t.length = length;
        record.tensors.push_back(t);
    }
    return record;
}

TEST(ReadAhead, ASequentialReaderIsAlwaysAheadAndNothingIsAskedTwice) {
    auto record = file(256 * kMiB);
    ReadAhead ahead(16 * kMiB);
    std::uint64_t asked_to = 0;
    for (std::uint64_t at = 0; at < record.size; at += kMiB) {
        if (auto range = ahead.on_read(record, at, kMiB)) {
            EXPECT_GE(range->offset, asked_to);
            asked_to = range->offset + range->length;
            EXPECT_LE(asked_to, at + kMiB + 16 * kMiB);
        }
        EXPECT_GE(asked_to, std::min(record.size, at + 2 * kMiB)) << "at " << at;
    }
    EXPECT_EQ(asked_to, record.size);
}

TEST(ReadAhead, RandomReadsAskForNothing) {
    auto record = file(1024 * kMiB);
    ReadAhead ahead(16 * kMiB);
    for (std::uint64_t i = 1; i < 97; ++i) {
        EXPECT_FALSE(ahead.on_read(record, (i * 7919 % 97 + 1) * 10 * kMiB, 4096)) << i;
    }
}

TEST(ReadAhead, SeveralReadersOfOneFileAreRegions) {
    auto record = file(1024 * kMiB);
    ReadAhead ahead(8 * kMiB);
    int hits = 0;
    for (std::uint64_t step = 0; step < 16; ++step) {
        for (std::uint64_t reader = 1; reader < 9; ++reader) {
            hits += ahead.on_read(record, reader * 100 * kMiB + step * kMiB, kMiB).has_value();
        }
    }
    EXPECT_GT(hits, 8 * 8);
}

TEST(ReadAhead, StopsAtTheEndOfALargeTensorButNotOfASmallOne) {
    auto large = file(512 * kMiB, {{0, 256 * kMiB}, {256 * kMiB, 256 * kMiB}});
    ReadAhead a(16 * kMiB);
    std::uint64_t furthest = 0;
    for (std::uint64_t at = 200 * kMiB; at < 240 * kMiB; at += kMiB) {
        if (auto range = a.on_read(large, at, kMiB)) furthest = range->offset + range->length;
    }
    EXPECT_LE(furthest, 256 * kMiB);

    std::vector<std::pair<std::uint64_t, std::uint64_t>> many;
    for (std::uint64_t i = 0; i < 1000; ++i) many.push_back({i * 65536, 65536});
    auto small = file(1000 * 65536, many);
    ReadAhead b(16 * kMiB);
    furthest = 0;
    for (std::uint64_t at = 0; at < 8 * kMiB; at += 65536) {
        if (auto range = b.on_read(small, at, 65536)) furthest = range->offset + range->length;
    }
    EXPECT_GE(furthest, 12 * kMiB);
}

TEST(ReadAhead, ALargeTensorIsReadAheadFromItsFirstRead) {
    auto record = file(1024 * kMiB, {{1000, 100 * kMiB}, {1000 + 100 * kMiB, 300 * kMiB}, {1000 + 400 * kMiB, 4096}});
    ReadAhead ahead(16 * kMiB);
    // The kernel begins with the page in which the tensor begins.
    auto range = ahead.on_read(record, 100 * kMiB, 128 << 10);
    ASSERT_TRUE(range);
    EXPECT_EQ(range->offset, 100 * kMiB + (128 << 10));
    EXPECT_FALSE(ahead.on_read(record, 400 * kMiB, 4096)) << "a tensor that this read covers";
    EXPECT_FALSE(ahead.on_read(record, 250 * kMiB, 4096)) << "in the middle of one";
}

TEST(ReadAhead, ThirtyTwoThreadsThatTakeTensorsInRandomOrderAllStream) {
    constexpr std::uint64_t kTensor = 8 * kMiB, kTensors = 128;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> tensors;
    for (std::uint64_t i = 0; i < kTensors; ++i) tensors.push_back({4096 + i * kTensor, kTensor});
    auto record = file(4096 + kTensors * kTensor, tensors);
    ReadAhead ahead(16 * kMiB);
    std::mt19937 random(1);
    std::shuffle(tensors.begin(), tensors.end(), random);
    std::set<std::uint64_t> asked;  // pieces of 128 KiB
    std::uint64_t reads = 0, found = 0;
    for (std::size_t group = 0; group < kTensors; group += 32) {
        for (std::uint64_t at = 0; at < kTensor; at += 128 << 10) {
            for (std::size_t thread = 0; thread < 32; ++thread) {
                std::uint64_t offset = tensors[group + thread].first + at;
                found += asked.count(offset >> 17);
                ++reads;
                auto range = ahead.on_read(record, offset, 128 << 10);
                for (std::uint64_t p = 0; range && p < range->length; p += 128 << 10)
                    asked.insert((range->offset + p) >> 17);
            }
        }
    }
    EXPECT_GT(found, reads * 9 / 10);
}

// Reads whole tensors in this order. How many of them had their beginning asked for before it was read, and how much
// was asked for that was not read in this pass.
struct Pass {
    std::size_t expected = 0;
    std::uint64_t asked = 0;
};
Pass read_in_order(ReadAhead& ahead, const store::FileRecord& record, const std::vector<std::size_t>& order) {
    constexpr std::uint64_t kRead = 128 << 10;
    Pass pass;
    std::set<std::uint64_t> asked;
    for (std::size_t tensor : order) {
        const std::uint64_t begin = record.tensors[tensor].offset & ~std::uint64_t{4095};
        pass.expected += asked.count(begin >> 17);
        for (std::uint64_t at = begin; at < record.tensors[tensor].offset + record.tensors[tensor].length;
             at += kRead) {
            auto range = ahead.on_read(record, at, kRead);
            if (!range) continue;
            EXPECT_LE(range->offset + range->length, record.size);
            pass.asked += range->length;
            for (std::uint64_t p = 0; p < range->length; p += kRead) asked.insert((range->offset + p) >> 17);
        }
    }
    return pass;
}

store::FileRecord layers(std::size_t count, std::uint64_t length) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> tensors;
    for (std::size_t i = 0; i < count; ++i) {
        tensors.push_back({4096 + i * (length + 8192), length});
        tensors.push_back({4096 + i * (length + 8192) + length, 8192});  // its bias
    }
    return file(4096 + count * (length + 8192), tensors);
}

TEST(ReadAhead, TensorsFromTheLastToTheFirstAreExpectedOnceThatIsAHabit) {
    constexpr std::size_t kLayers = 40;
    auto record = layers(kLayers, 8 * kMiB);
    std::vector<std::size_t> order;
    for (std::size_t i = kLayers; i-- > 0;) order.push_back(2 * i);
    ReadAhead ahead(16 * kMiB);
    Pass pass = read_in_order(ahead, record, order);
    EXPECT_GE(pass.expected, kLayers - 4);
    EXPECT_LE(pass.asked, record.size * 11 / 10);
}

TEST(ReadAhead, AnOrderThatWasSeenIsExpectedTheNextTime) {
    constexpr std::size_t kLayers = 40;
    auto record = layers(kLayers, 8 * kMiB);
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < kLayers; ++i) order.push_back(2 * (i * 17 % 40));
    std::shuffle(order.begin(), order.end(), std::mt19937(3));
    ReadAhead ahead(16 * kMiB);
    Pass first = read_in_order(ahead, record, order);
    EXPECT_LT(first.expected, kLayers * 3 / 4) << "only what happens to follow in the file";
    Pass again = read_in_order(ahead, record, order);
    EXPECT_GE(again.expected, kLayers * 4 / 5);
    EXPECT_LE(again.asked, record.size * 11 / 10);

    std::vector<std::size_t> straight;
    for (std::size_t i = 0; i < kLayers; ++i) straight.push_back(2 * i);
    (void)read_in_order(ahead, record, straight);
    EXPECT_GE(read_in_order(ahead, record, straight).expected, kLayers - 2) << "and forgotten when it is another one";
}

TEST(ReadAhead, RandomReadsDoNotPushOutAStream) {
    auto record = file(4096 * kMiB);
    ReadAhead ahead(16 * kMiB);
    std::mt19937_64 random(1);
    std::uint64_t asked_to = 0, wasted = 0;
    for (std::uint64_t at = 0; at < 64 * kMiB; at += 128 << 10) {
        if (auto range = ahead.on_read(record, at, 128 << 10)) asked_to = range->offset + range->length;
        EXPECT_GT(asked_to, at + (128 << 10));
        for (int i = 0; i < 100; ++i) {
            std::uint64_t where = (100 * kMiB + random() % (3900 * kMiB)) & ~std::uint64_t{4095};
            wasted += ahead.on_read(record, where, 4096).has_value();
        }
    }
    EXPECT_LT(wasted, 512u * 100 / 50) << "of random reads one in a hundred looks like two in a row";
}

TEST(ReadAhead, WhatFoundNoRoomIsAskedForAgain) {
    auto record = file(256 * kMiB);
    ReadAhead ahead(16 * kMiB);
    auto range = ahead.on_read(record, 0, kMiB);
    ASSERT_TRUE(range);
    ahead.declined(*range, 256 << 10);
    auto again = ahead.on_read(record, kMiB, 128 << 10);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->offset, kMiB + (256 << 10));
}

TEST(ReadAhead, OffAndBeyondTheEnd) {
    auto record = file(kMiB);
    ReadAhead off(0);
    EXPECT_FALSE(off.on_read(record, 0, 4096));
    ReadAhead on(kMiB);
    EXPECT_FALSE(on.on_read(record, kMiB, 4096));
    EXPECT_FALSE(on.on_read(record, ~0ull, 4096));
    EXPECT_FALSE(on.on_read(file(0), 0, 4096));
}

}  // namespace
}  // namespace coral::vfs
