// SPDX-License-Identifier: Apache-2.0
// Store::rewrite_segment, and collect with `replace`: which record stays, and what it must never do to those that
// depend on it.
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

class RewriteTest : public StoreTest {
  protected:
    void SetUp() override {
        options_.pack_bytes = 4u << 20;
        create();
    }
    // `steps` times a few bytes of `noise` are others.
    static Buffer version(std::uint64_t steps) {
        Buffer out = noise(400'000, 1);
        for (std::uint64_t step = 1; step <= steps; ++step) {
            Buffer other = noise(1'000, 100 + step);
            std::copy(other.begin(), other.end(), out.begin() + static_cast<std::ptrdiff_t>(step * 20'000));
        }
        return out;
    }
    FileRecord file_of(const std::vector<Buffer>& segments) {
        FileRecord record;
        Buffer all;
        for (const Buffer& raw : segments) {
            record.extents.push_back({static_cast<std::uint32_t>(record.segments.size()), 0, raw.size()});
            record.segments.push_back(segment_id(raw));
            all.insert(all.end(), raw.begin(), raw.end());
        }
        record.size = all.size();
        record.id = FileId::from(Sha256::of(all));
        auto put = store_->put_file(record);
        EXPECT_TRUE(put.ok()) << put.error().message;
        live_.add(Kind::kFile, AnyId::from(record.id));
        for (const SegmentId& id : record.segments) live_.add(Kind::kSegment, AnyId::from(id));
        return record;
    }
    Rewrite rewrite(Bytes raw, std::vector<BaseCandidate> bases, bool dry_run = false) {
        auto limits = store_->rewrite_limits();
        EXPECT_TRUE(limits.ok()) << limits.error().message;
        auto done = store_->rewrite_segment(segment_id(raw), raw, {}, bases, *limits, dry_run);
        EXPECT_TRUE(done.ok()) << done.error().message;
        return done ? *done : Rewrite{};
    }
    CollectReport collect(CollectOptions options = {}) {
        EXPECT_OK(store_->seal());
        options.replace = true;
        options.keep_written_after = 0;  // all is young
        options.patience = std::chrono::milliseconds(2000);
        LiveSet live = live_;
        auto done = store_->collect(live, options);
        EXPECT_TRUE(done.ok()) << done.error().message;
        return done ? *done : CollectReport{};
    }
    std::uint64_t pack_bytes() {
        auto stats = store_->stats();
        return stats ? stats->pack_bytes : 0;
    }
    std::uint8_t depth_of(Bytes raw, Store& store) {
        auto info = store.segment_info(segment_id(raw));
        EXPECT_TRUE(info.ok());
        return info ? info->depth : std::uint8_t{255};
    }
    void expect_clean() {
        for (bool fresh : {false, true}) {
            if (fresh) reopen();
            auto problems = store_->verify(true, {});
            ASSERT_OK(problems);
            for (const Problem& p : *problems) ADD_FAILURE() << p.what;
        }
    }
    static void damage(const std::string& path, std::uint64_t at) {
        boost::filesystem::permissions(path, boost::filesystem::owner_read | boost::filesystem::owner_write);
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(static_cast<std::streamoff>(at));
        char byte = static_cast<char>(file.get() ^ 0x40);
        file.seekp(static_cast<std::streamoff>(at));
        file.put(byte);
    }
    LiveSet live_;
};

TEST_F(RewriteTest, TheSmallerRecordStays) {
    Buffer a = version(0), b = version(1);
    put(a), put(b);
    file_of({a, b});
    ASSERT_OK(store_->seal());
    std::uint64_t before = pack_bytes();
    EXPECT_TRUE(rewrite(b, {{segment_id(a)}}, true).better);
    EXPECT_EQ(pack_bytes(), before) << "a dry run";
    Rewrite done = rewrite(b, {{segment_id(a)}});
    EXPECT_TRUE(done.better);
    EXPECT_EQ(done.depth, 1);
    EXPECT_FALSE(rewrite(b, {{segment_id(a)}}).better) << "a second time, though readers still take the first record";
    expect_segment(*store_, b);
    auto other = open_another();
    expect_segment(*other, b);
    EXPECT_GT(collect().freed_bytes(), 300'000u);
    EXPECT_LT(pack_bytes(), before - 300'000);
    EXPECT_EQ(depth_of(b, *store_), 1);
    expect_segment(*store_, b);
    expect_segment(*other, b);
    expect_segment(*other, a);
    expect_clean();
}

TEST_F(RewriteTest, NothingComesToLieAsDeepAsWhatRefersToIt) {
    Buffer a = version(0), b = version(1), c = version(2);
    put(a), put(b);
    put(*store_, c, {}, {{segment_id(b)}});  // depth 1: b must stay at 0
    file_of({a, b, c});
    ASSERT_OK(store_->seal());
    EXPECT_FALSE(rewrite(b, {{segment_id(a)}}).better);
    EXPECT_FALSE(rewrite(b, {{segment_id(c)}}).better) << "c depends on b";
    EXPECT_EQ(collect().freed_bytes(), 0u);
    expect_segment(*store_, c);
    expect_clean();
}

// What refers to it was stored when it was known already what refers to what.
TEST_F(RewriteTest, ARecordThatCameTooLateDoesNotStay) {
    Buffer a = version(0), b = version(1), c = version(2);
    put(a), put(b);
    file_of({a, b});
    ASSERT_OK(store_->seal());
    auto limits = store_->rewrite_limits();
    ASSERT_OK(limits);
    auto other = open_another();
    put(*other, c, {}, {{segment_id(b)}});
    ASSERT_EQ(depth_of(c, *other), 1);
    ASSERT_OK(other->seal());
    auto done =
        store_->rewrite_segment(segment_id(b), b, {}, std::vector<BaseCandidate>{{segment_id(a)}}, *limits, false);
    ASSERT_TRUE(done.ok() && done->better && done->depth == 1);
    file_of({c});
    collect();
    for (const Buffer* raw : {&a, &b, &c}) expect_segment(*store_, *raw);
    EXPECT_EQ(depth_of(b, *store_), 0);
    expect_clean();
}

// The same between the choice and the removal, by one who had not seen the new record.
TEST_F(RewriteTest, WhatIsStoredDuringItCounts) {
    Buffer a = version(0), b = version(1), c = version(2);
    put(a), put(b);
    file_of({a, b});
    ASSERT_OK(store_->seal());
    std::vector<std::string> known = packs();
    put(*store_, c, {}, {{segment_id(b)}});
    ASSERT_EQ(depth_of(c, *store_), 1);
    ASSERT_OK(store_->seal());
    std::string late;
    for (const std::string& path : packs()) {
        if (std::find(known.begin(), known.end(), path) == known.end()) late = path;
    }
    ASSERT_FALSE(late.empty());
    boost::filesystem::rename(late, dir_.file("not there yet"));
    reopen();
    ASSERT_TRUE(rewrite(b, {{segment_id(a)}}).better);
    CollectOptions options;
    bool came = false;
    options.progress = [&](std::uint64_t, std::uint64_t) {
        if (!std::exchange(came, true)) boost::filesystem::rename(dir_.file("not there yet"), late);
    };
    options.look_again = [&](LiveSet& live) -> Status {
        live.add(Kind::kSegment, AnyId::from(segment_id(c)));
        return {};
    };
    EXPECT_EQ(collect(options).removed_bytes, 0u);
    ASSERT_TRUE(came);
    for (const Buffer* raw : {&a, &b, &c}) expect_segment(*store_, *raw);
    EXPECT_EQ(depth_of(b, *store_), 0);
    expect_clean();
}

TEST_F(RewriteTest, ADamagedReplacementReplacesNothing) {
    Buffer a = version(0), b = version(1);
    put(a), put(b);
    file_of({a, b});
    ASSERT_OK(store_->seal());
    ASSERT_TRUE(rewrite(b, {{segment_id(a)}}).better);
    ASSERT_OK(store_->seal());
    std::string pack;
    for (const std::string& path : packs()) {
        if (boost::filesystem::file_size(path) < 300'000) pack = path;
    }
    ASSERT_FALSE(pack.empty());
    damage(pack, boost::filesystem::file_size(pack) / 3);  // in the payload of its only record
    collect();
    expect_segment(*store_, b);
    reopen();
    expect_segment(*store_, b);
    EXPECT_EQ(depth_of(b, *store_), 0);
}

TEST_F(RewriteTest, WhoHoldsTheOldCutOfAFileReadsOn) {
    Buffer first = noise(150'000, 5), second = noise(250'000, 6), all = first;
    all.insert(all.end(), second.begin(), second.end());
    FileRecord old = put_file(*store_, all);
    put(noise(1'500'000, 9));  // something else in the pack
    live_.add(Kind::kSegment, AnyId::from(segment_id(noise(1'500'000, 9))));
    ASSERT_OK(store_->seal());
    auto other = open_another();
    auto held = other->file(old.id);
    ASSERT_OK(held);
    FileRecord cut = old;
    cut.parser = 1;
    cut.parser_version = 1;
    cut.segments = {put(first), put(second)};
    cut.extents = {{0, 0, first.size()}, {1, 0, second.size()}};
    auto done = store_->put_file(cut);
    ASSERT_OK(done);
    ASSERT_FALSE(done->existed);
    live_.add(Kind::kFile, AnyId::from(cut.id));
    for (const SegmentId& id : cut.segments) live_.add(Kind::kSegment, AnyId::from(id));
    EXPECT_GT(collect().freed_bytes(), 390'000u) << "the old cut is gone, however young";
    for (const auto& record : {*held, std::make_shared<const FileRecord>(old)}) {
        Buffer got(all.size());
        auto length = other->read_file(*record, 0, got);
        ASSERT_OK(length);
        EXPECT_EQ(got, all);
    }
    expect_file(*store_, all);
    EXPECT_FALSE(*store_->contains(Kind::kSegment, AnyId::from(old.segments.front())));
    expect_clean();
}

}  // namespace
}  // namespace coral::store::test
