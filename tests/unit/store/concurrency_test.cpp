// SPDX-License-Identifier: Apache-2.0
// Threads, processes (two stores on one directory behave like two processes: their locks are per open file) and the
// cache.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "store/chunk_cache.hpp"
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

using ConcurrencyTest = StoreTest;

ChunkKey key_of(std::uint32_t n) {
    return {SegmentId{}, n, 18};
}

Result<BlockPtr> block_of(std::size_t size) {
    return BlockPtr(std::make_shared<Block>(size));
}

TEST(ChunkCache, DecodesOnceHoweverManyWant) {
    ChunkCache cache(1 << 20);
    std::atomic<int> loads{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&] {
            auto got = cache.get(key_of(1), 1000, [&] {
                ++loads;
                std::this_thread::sleep_for(std::chrono::milliseconds(30));
                return block_of(1000);
            });
            EXPECT_TRUE(got.ok());
        });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(loads, 1);
    EXPECT_EQ(cache.misses(), 1u);
    EXPECT_EQ(cache.hits(), 7u);
}

TEST(ChunkCache, ErrorsReachAllAndAreNotKept) {
    ChunkCache cache(1 << 20);
    auto failed = cache.get(key_of(1), 10, []() -> Result<BlockPtr> { return make_error(Errc::kCorrupt, "x"); });
    EXPECT_FALSE(failed.ok());
    auto thrown = cache.get(key_of(1), 10, []() -> Result<BlockPtr> { throw std::bad_alloc(); });
    EXPECT_FALSE(thrown.ok());
    EXPECT_EQ(cache.bytes(), 0u);
    EXPECT_TRUE(cache.get(key_of(1), 10, [] { return block_of(10); }).ok());
}

TEST(ChunkCache, KeepsItsBudgetAndWhatWasUsedLast) {
    ChunkCache cache(100'000);
    for (std::uint32_t i = 0; i < 1000; ++i) {
        ASSERT_TRUE(cache.get(key_of(i), 5000, [] { return block_of(5000); }).ok());
        EXPECT_LE(cache.bytes(), 100'000u);
        if (i > 0) {
            EXPECT_TRUE(cache.peek(key_of(0))) << "used all the time";
        }
    }
    EXPECT_FALSE(cache.peek(key_of(500)));
    EXPECT_TRUE(cache.get(key_of(5000), 1 << 20, [] { return block_of(1 << 20); }).ok()) << "larger than all of it";
    EXPECT_LE(cache.bytes(), 100'000u);
}

TEST(ChunkCache, AChunkGoesWhenAllOfItWasHandedOut) {
    ChunkCache cache(1 << 20);
    ASSERT_TRUE(cache.get(key_of(1), 1000, [] { return block_of(1000); }).ok());
    cache.used(key_of(1), 999);
    EXPECT_TRUE(cache.peek(key_of(1)));
    cache.used(key_of(1), 1);
    EXPECT_FALSE(cache.peek(key_of(1)));
    EXPECT_EQ(cache.bytes(), 0u);
}

TEST(ChunkCache, WhatNobodyHasReadYetHasABudget) {
    ChunkCache cache(1 << 20);
    std::uint32_t taken = 0;
    for (; taken < 100 && cache.reserve_ahead(10'000); ++taken) {
        ASSERT_TRUE(cache
                        .get(
                            key_of(taken), 10'000, [] { return block_of(10'000); }, true)
                        .ok());
        cache.release_ahead(10'000);
    }
    EXPECT_EQ(taken, cache.ahead_budget() / 10'000);
    EXPECT_EQ(cache.ahead_bytes(), taken * 10'000);
    EXPECT_TRUE(cache
                    .get(
                        key_of(0), 10'000, [] { return block_of(10'000); }, true)
                    .ok())
        << "is no reading";
    EXPECT_FALSE(cache.reserve_ahead(10'000));
    EXPECT_TRUE(cache.get(key_of(0), 10'000, [] { return block_of(10'000); }).ok());
    EXPECT_TRUE(cache.join(key_of(1)));
    EXPECT_TRUE(cache.peek(key_of(1))) << "counts once";
    EXPECT_EQ(cache.ahead_bytes(), (taken - 2) * 10'000);
    EXPECT_TRUE(cache.reserve_ahead(20'000));
    cache.release_ahead(20'000);
    cache.clear();
    EXPECT_EQ(cache.ahead_bytes(), 0u);
}

TEST(ChunkCache, WhatNobodyComesToReadMakesRoom) {
    ChunkCache cache(1 << 20);
    while (cache.reserve_ahead(50'000)) {
        static std::uint32_t n = 0;
        ASSERT_TRUE(cache
                        .get(
                            key_of(++n), 50'000, [] { return block_of(50'000); }, true)
                        .ok());
        cache.release_ahead(50'000);
    }
    cache.drop_unread(std::chrono::hours(1));
    EXPECT_FALSE(cache.reserve_ahead(50'000));
    cache.drop_unread(std::chrono::milliseconds(0));
    EXPECT_EQ(cache.ahead_bytes(), 0u);
    EXPECT_EQ(cache.bytes(), 0u);
    EXPECT_TRUE(cache.reserve_ahead(50'000));
}

TEST(ChunkCache, AChunkThatIsWaitedForIsReadAndNotAhead) {
    ChunkCache cache(1 << 20);
    std::atomic<bool> loading{false}, go{false};
    std::thread decoder([&] {
        auto got = cache.get(
            key_of(1), 1000,
            [&] {
                loading = true;
                while (!go) std::this_thread::yield();
                return block_of(1000);
            },
            true);
        EXPECT_TRUE(got.ok());
    });
    while (!loading) std::this_thread::yield();
    std::thread reader([&] { EXPECT_TRUE(cache.join(key_of(1))); });
    while (cache.hits() == 0) std::this_thread::yield();
    go = true;
    decoder.join();
    reader.join();
    EXPECT_EQ(cache.ahead_bytes(), 0u);
    EXPECT_EQ(cache.misses(), 1u);
}

TEST(Block, MemoryOfChunksIsUsedAgainWithinALimit) {
    const std::byte* first = nullptr;
    {
        Block block(codec::kChunkSize);
        first = block.bytes().data();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 4096, 0u);
    }
    EXPECT_EQ(Block(codec::kChunkSize).bytes().data(), first);
    std::vector<std::unique_ptr<Block>> many;
    for (int i = 0; i < 200; ++i) many.push_back(std::make_unique<Block>(codec::kChunkSize));
    many.clear();
    EXPECT_EQ(Block::spare_bytes(), Block::kMaxSpare);
}

// Whoever decodes a chunk, the reader or a thread ahead of him: it is done once.
TEST_F(ConcurrencyTest, AReaderAndThoseAheadOfHimDecodeEachChunkOnce) {
    Buffer raw = noise(24 << 20, 7);
    FileId id = put_file(*store_, raw, 8 << 20).id;
    ASSERT_OK(store_->sync());
    for (std::size_t step : {std::size_t{1} << 20, std::size_t{128} << 10}) {
        reopen(os_);
        auto record = store_->file(id);
        ASSERT_OK(record);
        Buffer out(step);
        const std::uint64_t chunks = raw.size() / codec::kChunkSize;
        for (std::size_t at = 0, asked = 0; at < raw.size(); at += step) {
            asked = std::max(asked, at);  // while the budget was used up, the reader may have come by
            if (asked < std::min(raw.size(), at + (8 << 20))) {
                asked += store_->prefetch(*record, asked, std::min<std::size_t>(2 << 20, raw.size() - asked));
            }
            auto got = store_->read_file(**record, at, out);
            ASSERT_OK(got);
            ASSERT_TRUE(std::equal(out.begin(), out.end(), raw.begin() + static_cast<std::ptrdiff_t>(at)));
        }
        EXPECT_LE(store_->stats()->cache_misses, chunks + 1) << step;
        EXPECT_LT(store_->stats()->cache_bytes, 2u << 20) << "what was read is gone";
    }
}

// A large read of what is not decoded, and nobody else wants a core.
TEST_F(ConcurrencyTest, IdleThreadsHelpALoneReader) {
    // The disk answers slowly as long as only one asks, so that a helper has the time to come.
    std::atomic<int> reading{0};
    os_.on_read = [&](std::size_t size) {
        if (size < 64u << 10) return;
        ++reading;
        for (int i = 0; i < 50 && reading < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        --reading;
    };
    Buffer raw = noise(8 << 20, 7);
    FileId id = put_file(*store_, raw, 8 << 20).id;
    ASSERT_OK(store_->sync());
    std::uint64_t helped = 0;
    for (int tries = 0; tries < 20 && helped == 0; ++tries) {
        reopen(os_);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until those threads wait for work
        auto record = store_->file(id);
        ASSERT_OK(record);
        Buffer out(1 << 20);
        ASSERT_OK(store_->read_file(**record, 0, out));
        EXPECT_TRUE(std::equal(out.begin(), out.end(), raw.begin()));
        EXPECT_EQ(store_->stats()->cache_misses, 4u);
        helped = store_->stats()->cache_hits;  // chunks that another thread decoded
    }
    EXPECT_GE(helped, 1u);
    store_.reset();
    os_.on_read = nullptr;
}

TEST_F(ConcurrencyTest, NoMoreIsDecodedAheadThanThereIsABudgetFor) {
    Buffer raw = noise(40 << 20, 7);
    FileId id = put_file(*store_, raw, 8 << 20).id;
    ASSERT_OK(store_->sync());
    options_.cache_bytes = 32u << 20;
    reopen(os_);
    auto record = store_->file(id);
    ASSERT_OK(record);
    std::uint64_t taken = store_->prefetch(*record, 0, raw.size());
    EXPECT_GT(taken, 4u << 20);
    EXPECT_LT(taken, 8u << 20);
    EXPECT_EQ(store_->prefetch(*record, taken, raw.size()), 0u);
    expect_file(*store_, raw);
    std::uint64_t again = 0;  // what the reader took over still counts until a thread has seen that
    for (int i = 0; i < 1000 && again < (4u << 20); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        again += store_->prefetch(*record, again, raw.size());
    }
    EXPECT_GE(again, 4u << 20) << "what was read has made room";
}

TEST_F(ConcurrencyTest, EqualPutsAtOnceStoreOnce) {
    Buffer raw = noise(2'000'000, 1);
    std::atomic<int> fresh{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t) {
        threads.emplace_back([&] {
            auto put = store_->put_segment(segment_id(raw), raw, {}, {});
            ASSERT_TRUE(put.ok());
            if (!put->existed) ++fresh;
        });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(fresh, 1);
    EXPECT_EQ(store_->stats()->objects.at(Kind::kSegment), 1u);
}

TEST_F(ConcurrencyTest, TwoStoresSeeEachOther) {
    auto other = open_another();
    std::vector<Buffer> mine, theirs;
    for (std::uint64_t i = 0; i < 10; ++i) {
        mine.push_back(noise(i % 2 ? 70'000 : 3000, i));
        theirs.push_back(noise(i % 2 ? 3000 : 70'000, 100 + i));
        put(*store_, mine.back());
        put(*other, theirs.back());
        if (i % 3 == 0) {
            ASSERT_OK(store_->sync());
            ASSERT_OK(other->sync());
        }
    }
    ASSERT_OK(store_->sync());
    ASSERT_OK(other->sync());
    EXPECT_EQ(packs().size(), 2u) << "one appender per file";
    for (const Buffer& raw : theirs) {
        expect_segment(*store_, raw);
        EXPECT_TRUE(store_->put_segment(segment_id(raw), raw, {}, {})->existed);
    }
    for (const Buffer& raw : mine) expect_segment(*other, raw);
    ASSERT_OK(other->seal());
    Buffer later = noise(80'000, 999);
    put(*store_, later);
    expect_segment(*other, later);
    for (Store* s : {store_.get(), other.get()}) {
        auto problems = s->verify(true, nullptr);
        ASSERT_OK(problems);
        for (const Problem& p : *problems) ADD_FAILURE() << p.what;
    }
}

TEST_F(ConcurrencyTest, AnotherProcessKilledInTheMiddleLeavesWholeRecords) {
    std::vector<Buffer> all;
    for (std::uint64_t i = 0; i < 20; ++i) all.push_back(noise(100'000, i));
    store_.reset();  // its threads would not be in the child
    pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        auto mine = Store::open(real_os(), dir_.path(), repo_, options_);
        for (const Buffer& raw : all) (void)(*mine)->put_segment(segment_id(raw), raw, {}, {});
        ::_exit(0);  // no destructor, no sync
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    reopen();
    for (const Buffer& raw : all) expect_segment(*store_, raw);
    put(noise(90'000, 77));
    EXPECT_EQ(packs().size(), 1u) << "its lock is free and its tail whole: go on in it";
    ASSERT_OK(store_->sync());
    reopen();
    for (const Buffer& raw : all) expect_segment(*store_, raw);
}

TEST_F(ConcurrencyTest, PutsReadsSyncsAndChecksTogether) {
    options_.cache_bytes = 2u << 20;
    options_.pack_bytes = 3u << 20;
    os_.skip_sync = true;
    reopen(os_);
    constexpr int kWriters = 3, kEach = 25;
    auto bytes_of = [](int t, int i) {
        return noise(i % 3 == 0 ? 300'000 : 2000 + static_cast<std::size_t>(i),
                     static_cast<std::uint64_t>(t * 1000 + i));
    };
    std::atomic<int> written[kWriters] = {};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < kWriters; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < kEach; ++i) {
                put_file(*store_, bytes_of(t, i), 50'000);
                written[t] = i + 1;
                if (i % 10 == 9) EXPECT_OK(store_->sync());
            }
        });
    }
    for (int r = 0; r < 2; ++r) {
        threads.emplace_back([&, r] {
            std::mt19937 random(static_cast<unsigned>(r));
            while (!stop) {
                int t = static_cast<int>(random() % kWriters), n = written[t];
                if (n == 0) continue;
                Buffer raw = bytes_of(t, static_cast<int>(random() % static_cast<unsigned>(n)));
                auto record = store_->file(FileId::from(Sha256::of(raw)));
                ASSERT_TRUE(record.ok()) << record.error().message;
                store_->prefetch(*record, random() % raw.size(), 100'000);
                Buffer out(raw.size());
                auto got = store_->read_file(**record, 0, out);
                ASSERT_TRUE(got.ok()) << got.error().message;
                EXPECT_EQ(out, raw);
            }
        });
    }
    threads.emplace_back([&] {
        while (!stop) {
            auto problems = store_->verify(false, nullptr);
            EXPECT_OK(problems);
            for (const Problem& p : *problems) ADD_FAILURE() << p.what;
            EXPECT_OK(store_->stats());
            EXPECT_OK(store_->find_prefix(Kind::kFile, "1", 10));
        }
    });
    for (int t = 0; t < kWriters; ++t) threads[static_cast<std::size_t>(t)].join();
    stop = true;
    for (std::size_t t = kWriters; t < threads.size(); ++t) threads[t].join();
    EXPECT_LE(store_->stats()->cache_bytes, options_.cache_bytes);
    reopen(os_);
    for (int t = 0; t < kWriters; ++t) {
        for (int i = 0; i < kEach; ++i) expect_file(*store_, bytes_of(t, i));
    }
    auto problems = store_->verify(true, nullptr);
    ASSERT_OK(problems);
    for (const Problem& p : *problems) ADD_FAILURE() << p.what;
}

}  // namespace
}  // namespace coral::store::test
