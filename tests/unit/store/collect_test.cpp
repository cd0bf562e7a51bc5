// SPDX-License-Identifier: Apache-2.0
// Store::collect: what goes, what stays, and what others see meanwhile.
#include <atomic>
#include <thread>

#include "store/session_lock.hpp"
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

class CollectTest : public StoreTest {
  protected:
    void SetUp() override {
        options_.pack_bytes = 1u << 20;
        create();
    }
    std::uint64_t pack_bytes() {
        auto stats = store_->stats();
        return stats ? stats->pack_bytes : 0;
    }
};

TEST_F(CollectTest, DeadGoesAndLiveStays) {
    Buffer kept = noise(300'000, 1), lost = noise(3'000'000, 2), small = noise(5'000, 3);
    FileRecord a = put_file(*store_, kept, 100'000), b = put_file(*store_, lost, 500'000);
    FileRecord c = put_file(*store_, small, 2'000);
    ASSERT_OK(store_->seal());
    LiveSet live;
    keep_file(live, a);
    keep_file(live, c);
    CollectOptions dry;
    dry.dry_run = true;
    std::uint64_t before = pack_bytes();
    CollectReport predicted = collect(live, dry);
    EXPECT_EQ(pack_bytes(), before);
    expect_file(*store_, lost);
    CollectReport report = collect(live);
    EXPECT_GT(report.freed_bytes(), 2'900'000u);
    EXPECT_EQ(before - pack_bytes(), report.freed_bytes());
    EXPECT_EQ(predicted.removed_bytes, report.removed_bytes);
    EXPECT_EQ(predicted.rewritten_packs, report.rewritten_packs);
    EXPECT_NEAR(static_cast<double>(predicted.written_bytes), static_cast<double>(report.written_bytes), 64);
    EXPECT_FALSE(has_file(*store_, b));
    for (int round = 0; round < 3; ++round) {
        expect_file(*store_, kept);
        expect_file(*store_, small);
        expect_clean(*store_);
        if (round == 0) reopen();
        if (round == 1) ASSERT_OK(store_->reindex({}));
    }
    // Nothing is left to do, and what went can be stored again.
    EXPECT_EQ(collect(live).removed_bytes, 0u);
    put_file(*store_, lost, 500'000);
    expect_file(*store_, lost);
}

// The base of a live segment is live, however deep, and wherever it lies.
// An ordinary user may not open a sealed pack for writing; one that was open a moment ago is not an error for that.
TEST_F(CollectTest, APackThatIsSealedMeanwhileIsLeftAlone) {
    Buffer lost = noise(300'000, 1);
    put_file(*store_, lost, 100'000);
    ASSERT_OK(store_->sync());
    reopen(os_);
    os_.deny_packs = true;
    EXPECT_OK(store_->rewrite_limits());
    LiveSet nothing;
    auto done = store_->collect(nothing, {});
    ASSERT_OK(done);
    EXPECT_EQ(done->kept.size(), 1u);
    expect_file(*store_, lost);
    store_.reset();
}

TEST_F(CollectTest, BasesOfWhatIsLiveStay) {
    std::vector<Buffer> versions{noise(400'000, 1)};
    std::vector<SegmentId> ids{put(versions[0])};
    for (std::uint64_t n = 1; n < 6; ++n) {
        Buffer next = versions.back();
        for (std::size_t i = 0; i < 4000; ++i) next[i + n * 5000] = static_cast<std::byte>(i * n);
        ASSERT_OK(store_->seal());
        put(noise(900'000, 100 + n));
        ids.push_back(put(*store_, next, {}, {{ids.back(), 0}}));
        versions.push_back(next);
    }
    auto info = store_->segment_info(ids.back());
    ASSERT_OK(info);
    ASSERT_GE(info->depth, 4) << "no chain to speak of";
    LiveSet live;
    live.add(Kind::kSegment, AnyId::from(ids.back()));
    EXPECT_GT(collect(live).freed_bytes(), 4'000'000u);
    reopen();
    expect_segment(*store_, versions.back());
    expect_clean(*store_);
}

// A segment that nobody needs may lie in a pack that stays, while its base goes: nobody may build on it.
TEST_F(CollectTest, WhatHasLostItsBaseIsStoredAgain) {
    Buffer base = noise(500'000, 1), next = base;
    for (std::size_t i = 0; i < 3000; ++i) next[i] = std::byte{7};
    SegmentId base_id = put(base);
    ASSERT_OK(store_->seal());
    SegmentId id = put(*store_, next, {}, {{base_id, 0}});
    Buffer other = noise(900'000, 2);
    FileRecord file = put_file(*store_, other);
    LiveSet live;
    keep_file(live, file);
    collect(live);
    auto there = store_->contains(Kind::kSegment, AnyId::from(id));
    ASSERT_OK(there);
    EXPECT_FALSE(*there);
    auto rows = store_->find_prefix(Kind::kSegment, id.hex(), 2);
    ASSERT_OK(rows);
    EXPECT_EQ(rows->size(), 1u) << "the test is about a record that is still there";
    // As a base it counts no more, either.
    Buffer third = next;
    third[9] = std::byte{1};
    SegmentId third_id = put(*store_, third, {}, {{id, 0}});
    EXPECT_EQ(store_->segment_info(third_id)->depth, 0);
    put(next);
    ASSERT_OK(store_->sync());
    reopen();
    expect_segment(*store_, next);
    expect_segment(*store_, third);
}

TEST_F(CollectTest, AnotherProcessReadsOn) {
    Buffer kept = noise(300'000, 1), chained = kept;
    chained[100] ^= std::byte{1};
    FileRecord a = put_file(*store_, kept);
    SegmentId derived = put(*store_, chained, {}, {{a.segments[0], 0}});
    put_file(*store_, noise(700'000, 2));
    ASSERT_OK(store_->seal());
    auto other = open_another();
    auto fresh = open_another();  // has read nothing yet
    expect_file(*other, kept);
    expect_segment(*other, chained);
    LiveSet live;
    keep_file(live, a);
    live.add(Kind::kSegment, AnyId::from(derived));
    EXPECT_EQ(collect(live).rewritten_packs, 1u);
    for (Store* store : {other.get(), fresh.get()}) {
        expect_file(*store, kept);
        expect_segment(*store, chained);
        EXPECT_TRUE(has_file(*store, a));
    }
}

// Another process has seen an object that goes: it must not take it for there when it stores the same again.
TEST_F(CollectTest, AnotherProcessStoresWhatWent) {
    Buffer lost = noise(700'000, 2);
    FileRecord record = put_file(*store_, lost, 300'000);
    ASSERT_OK(store_->seal());
    auto other = open_another();
    EXPECT_TRUE(has_file(*other, record));
    collect(LiveSet());
    {
        auto session = other->session();
        ASSERT_OK(session);
        EXPECT_FALSE(has_file(*other, record));
        put_file(*other, lost, 300'000);
    }
    ASSERT_OK(other->sync());
    expect_file(*other, lost);
    reopen();
    expect_file(*store_, lost);
}

// A process that knows rows which are in no database (it cannot write one) and has opened no pack yet.
TEST_F(CollectTest, AReaderWhoseRowsAreOfBeforeLooksAgain) {
    Buffer kept = noise(300'000, 1), chained = kept;
    chained[100] ^= std::byte{1};
    FileRecord a = put_file(*store_, kept);
    SegmentId derived = put(*store_, chained, {}, {{a.segments[0], 0}});
    put_file(*store_, noise(700'000, 2));
    ASSERT_OK(store_->seal());
    StoreOptions options = options_;
    options.read_only = true;
    options.index_path = dir_.file("none/index.db");
    auto other = Store::open(real_os(), dir_.path(), repo_, options);
    ASSERT_OK(other);
    for (int n = 0; n < 150; ++n) {  // more packs than a process keeps open
        put(noise(70'000, 100 + static_cast<std::uint64_t>(n)));
        ASSERT_OK(store_->seal());
    }
    auto reader = Store::open(real_os(), dir_.path(), repo_, options);
    ASSERT_OK(reader);
    LiveSet live;
    keep_file(live, a);
    live.add(Kind::kSegment, AnyId::from(derived));
    EXPECT_GT(collect(live).removed_packs, 149u);
    for (Store* store : {other->get(), reader->get()}) {
        expect_segment(*store, chained);
        expect_file(*store, kept);
    }
}

// Killed between unlink and the index: the rows are there, the pack is not.
TEST_F(CollectTest, RowsOfAPackThatIsGoneDoNotCount) {
    Buffer lost = noise(700'000, 2);
    FileRecord record = put_file(*store_, lost, 300'000);
    ASSERT_OK(store_->seal());
    auto other = open_another();
    ASSERT_TRUE(has_file(*other, record));
    {
        SessionLock lock(real_os(), dir_.path(), {});
        auto alone = lock.alone(std::chrono::milliseconds(1000));
        ASSERT_OK(alone);
        ASSERT_OK(alone->count_removal());
        for (const std::string& pack : packs()) ASSERT_OK(real_os().remove(pack));
    }
    auto session = other->session();
    ASSERT_OK(session);
    EXPECT_FALSE(has_file(*other, record));
    put_file(*other, lost, 300'000);
    ASSERT_OK(other->sync());
    store_ = open_another();
    expect_file(*store_, lost);
    expect_clean(*store_);
}

TEST_F(CollectTest, WaitsForSessionsAndForWhatWaitsInMemory) {
    put_file(*store_, noise(700'000, 1));
    ASSERT_OK(store_->seal());
    auto other = open_another();
    CollectOptions impatient;
    impatient.patience = std::chrono::milliseconds(40);
    LiveSet live;
    {
        auto session = other->session();
        ASSERT_OK(session);
        auto refused = store_->collect(live, impatient);
        ASSERT_FALSE(refused.ok());
        EXPECT_EQ(refused.error().code, Errc::kBusy);
        EXPECT_NE(refused.error().message.find("sessions"), std::string::npos);
    }
    // A small segment waits in memory, and the FILE record with it: nobody else can see what it refers to. Whoever
    // waits to be alone gets it into a pack, if only somebody has an ear for it.
    Buffer text = noise(600, 3);
    FileRecord small = put_file(*other, text);
    auto refused = store_->collect(live, impatient);
    EXPECT_FALSE(refused.ok());
    std::atomic<bool> stop{false};
    std::thread ear([&] {
        while (!stop) (void)other->tidy();
    });
    bool seen = false;
    CollectOptions options;
    options.look_again = [&](LiveSet&) -> Status {
        seen = has_file(*store_, small);
        return {};
    };
    auto done = store_->collect(live, options);
    stop = true;
    ear.join();
    ASSERT_OK(done);
    EXPECT_TRUE(seen);
    EXPECT_GT(done->freed_bytes(), 600'000u);
    expect_file(*other, text);
}

TEST_F(CollectTest, WhatComesIntoUseMeanwhileStays) {
    Buffer base = noise(500'000, 1), next = base;
    for (std::size_t i = 0; i < 3000; ++i) next[i] = std::byte{7};
    Buffer dead = noise(900'000, 5);
    FileRecord a = put_file(*store_, base);
    ASSERT_OK(store_->seal());
    FileRecord b = put_file(*store_, dead);
    ASSERT_OK(store_->seal());
    std::unique_ptr<Store> other = open_another();
    CollectOptions options;
    options.look_again = [&](LiveSet& live) -> Status {
        live.add(Kind::kFile, AnyId::from(a.id));
        live.add(Kind::kSegment, AnyId::from(a.segments[0]));
        return {};
    };
    CollectReport report = collect(LiveSet(), options);
    EXPECT_EQ(report.removed_packs, 1u);
    ASSERT_EQ(report.kept.size(), 1u);
    EXPECT_NE(report.kept[0].find("use again"), std::string::npos);
    expect_file(*store_, base);
    EXPECT_FALSE(has_file(*store_, b));
    // The same through a base: somebody appends to a pack of his own what refers to a segment that was about to go.
    options.look_again = [&](LiveSet&) -> Status { return {}; };
    bool put_once = false;
    options.progress = [&](std::uint64_t, std::uint64_t) {
        if (!std::exchange(put_once, true)) put(*other, next, {}, {{a.segments[0], 0}}), other->sync().ok();
    };
    report = collect(LiveSet(), options);
    ASSERT_TRUE(put_once);
    EXPECT_EQ(report.removed_packs, 0u);
    other.reset();
    reopen();
    expect_segment(*store_, next);
}

TEST_F(CollectTest, PacksInUseYoungAndDamagedOnesStay) {
    FileRecord young = put_file(*store_, noise(700'000, 1));
    ASSERT_OK(store_->seal());
    CollectOptions options;
    options.keep_written_after = now_ns() - 3'600'000'000'000;
    EXPECT_EQ(collect(LiveSet(), options).young_packs, 1u);
    EXPECT_TRUE(has_file(*store_, young));
    // Somebody appends to it.
    auto other = open_another();
    put_file(*other, noise(300'000, 2));
    LiveSet live;
    keep_file(live, young);
    CollectReport report = collect(live);
    ASSERT_EQ(report.kept.size(), 1u);
    EXPECT_NE(report.kept[0].find("appends"), std::string::npos);
    other.reset();
    EXPECT_EQ(collect(live).removed_packs, 1u);
    // A live record that does not verify: its pack is evidence.
    put_file(*store_, noise(900'000, 3));
    Buffer small = noise(80'000, 4);
    FileRecord rotten = put_file(*store_, small);
    ASSERT_OK(store_->seal());
    auto info = store_->segment_info(rotten.segments[0]);
    ASSERT_OK(info);
    std::string path = dir_.file("packs/" + info->pack.text() + ".pack"), bytes = slurp(path);
    bytes[info->pack_offset + 2000] ^= 1;
    spill(path, bytes);
    reopen();
    keep_file(live, rotten);
    std::size_t count = packs().size();
    report = collect(live);
    ASSERT_EQ(report.kept.size(), 1u);
    EXPECT_NE(report.kept[0].find("checksum"), std::string::npos) << report.kept[0];
    EXPECT_GE(packs().size(), count);
    EXPECT_EQ(slurp(path), bytes);
}

// Of two records of one id the one that stays must be whole before the other goes.
TEST_F(CollectTest, DuplicatesAreReliedOnOnlyWhenWhole) {
    Buffer twice = noise(400'000, 1);
    auto other = open_another();
    SegmentId id = put(twice);
    put(noise(700'000, 9));
    ASSERT_OK(store_->seal());
    auto first = store_->segment_info(id);
    // As two processes do that store the same at once: the other one has not looked since.
    std::string hidden = dir_.file("packs/" + first->pack.text() + ".pack");
    boost::filesystem::rename(hidden, hidden + ".away");
    auto blind = open_another();
    put(*blind, twice);
    put(*blind, noise(100'000, 10));
    ASSERT_OK(blind->seal());
    auto second = blind->segment_info(id);
    ASSERT_OK(second);
    blind.reset();
    boost::filesystem::rename(hidden + ".away", hidden);
    std::string newer = dir_.file("packs/" + second->pack.text() + ".pack"), bytes = slurp(newer);
    bytes[second->pack_offset + 3000] ^= 1;
    spill(newer, bytes);
    other.reset();
    reopen();
    ASSERT_OK(store_->reindex({}));
    LiveSet live;
    live.add(Kind::kSegment, AnyId::from(id));
    CollectReport report = collect(live);
    EXPECT_GE(report.removed_packs + report.rewritten_packs, 1u);
    reopen();
    expect_segment(*store_, twice);
}

TEST_F(CollectTest, AFullDiskLosesNothing) {
    store_.reset();
    Buffer kept = noise(300'000, 1);
    {
        auto made = Store::open(os_, dir_.path(), repo_, options_);
        ASSERT_OK(made);
        store_ = std::move(*made);
    }
    FileRecord a = put_file(*store_, kept, 50'000);
    put_file(*store_, noise(700'000, 2));
    ASSERT_OK(store_->seal());
    LiveSet live;
    keep_file(live, a);
    os_.bytes_left = 120'000;
    CollectReport report = collect(live);
    os_.bytes_left = -1;
    EXPECT_EQ(report.removed_bytes, 0u);
    ASSERT_EQ(report.kept.size(), 1u);
    expect_file(*store_, kept);
    reopen();
    EXPECT_EQ(collect(live).rewritten_packs, 1u) << "and the next one does it";
    expect_file(*store_, kept);
    expect_clean(*store_);
}

TEST_F(CollectTest, InterruptedAtAnyRecord) {
    Buffer kept = noise(600'000, 1);
    FileRecord a = put_file(*store_, kept, 60'000);
    put_file(*store_, noise(2'000'000, 2), 70'000);
    ASSERT_OK(store_->seal());
    LiveSet live;
    keep_file(live, a);
    int calls = 0, limit = 0, interrupted = 0;
    CollectOptions options;
    options.patience = std::chrono::milliseconds(500);
    options.cancelled = [&] { return ++calls > limit; };
    for (limit = 1; limit < 60; limit += 4) {
        calls = 0;
        (void)store_->collect(live, options);
        interrupted += calls > limit;
        expect_file(*store_, kept);
    }
    EXPECT_GT(interrupted, 3);
    reopen();
    expect_clean(*store_);
    collect(live);
    EXPECT_LT(pack_bytes(), 700'000u) << "copies of interrupted runs went, too";
    expect_file(*store_, kept);
}

// Readers of two processes while packs come and go under them.
TEST_F(CollectTest, ReadersWhilePacksGo) {
    std::vector<Buffer> contents;
    std::vector<FileRecord> files;
    for (std::uint64_t n = 0; n < 6; ++n) {
        contents.push_back(noise(200'000, n));
        files.push_back(put_file(*store_, contents.back(), 40'000));
        put_file(*store_, noise(300'000, 50 + n), 90'000);
    }
    ASSERT_OK(store_->seal());
    options_.cache_bytes = 1u << 20;
    auto other = open_another();
    std::atomic<bool> stop{false};
    std::atomic<int> reads{0}, wrong{0};
    std::vector<std::thread> readers;
    for (std::size_t t = 0; t < 3; ++t) {
        readers.emplace_back([&, t] {
            for (std::size_t n = t; !stop; ++n) {
                Store& store = n % 2 ? *other : *store_;
                const Buffer& wanted = contents[n % contents.size()];
                auto record = store.file(files[n % contents.size()].id);
                Buffer got(wanted.size());
                auto read = record ? store.read_file(**record, 0, got) : Result<std::size_t>(record.error());
                if (!read || got != wanted) {
                    ++wrong;
                    ADD_FAILURE() << (read ? "other bytes" : read.error().message);
                }
                ++reads;
            }
        });
    }
    for (std::uint64_t round = 0; round < 8; ++round) {
        put_file(*store_, noise(900'000, 1000 + round), 100'000);
        LiveSet live;
        for (const FileRecord& file : files) keep_file(live, file);
        CollectOptions options;
        options.live_percent = 100;
        EXPECT_GT(collect(live, options).removed_bytes, 0u);
    }
    while (reads < 100) std::this_thread::yield();
    stop = true;
    for (auto& thread : readers) thread.join();
    EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace coral::store::test
