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
