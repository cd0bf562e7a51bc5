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
