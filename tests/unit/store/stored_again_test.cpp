// SPDX-License-Identifier: Apache-2.0
// What nothing needed lost a part of what it takes to be read, and came back: its old records are still there.
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

class StoredAgainTest : public StoreTest {
  protected:
    void SetUp() override {
        options_.pack_bytes = 4u << 20;
        create();
    }
    static Buffer changed(Buffer bytes, std::uint64_t seed) {
        for (std::size_t i = 0; i < 3000; ++i) bytes[i * 7 + seed * 30'000] ^= std::byte{0x55};
        return bytes;
    }
    // A FILE record of `content` without its first segment, in a pack that stays.
    void lose_first_segment(const Buffer& content) {
        SegmentId first = put(Bytes(content).first(300'000));
        ASSERT_OK(store_->seal());
        FileRecord kept = put_file(*store_, noise(1'500'000, 1));
        FileRecord record = put_file(*store_, content, 300'000);
        ASSERT_EQ(record.segments[0], first);
        LiveSet live;
        keep_file(live, kept);
        ASSERT_EQ(collect(live).removed_packs, 1u);
        auto rows = store_->find_prefix(Kind::kFile, record.id.hex(), 2);
        ASSERT_OK(rows);
        ASSERT_EQ(rows->size(), 1u) << "the test is about a record that is still there";
        ASSERT_FALSE(has_file(*store_, record));
    }
};

// The cut depends on what is stored. The pack with the old record is newer than the one that gets the new record.
TEST_F(StoredAgainTest, AFileIsReadByTheRecordThatIsWhole) {
    Buffer content = noise(600'000, 2);
    auto other = open_another();
    put(*other, noise(2'000'000, 3));  // nobody needs it, so that its pack is written anew in the end
    lose_first_segment(content);
    FileRecord again = put_file(*other, content, 200'000);
    ASSERT_OK(other->sync());
    expect_file(*other, content);
    EXPECT_TRUE(has_file(*store_, again)) << "which remembers the record of before";
    expect_file(*store_, content);
    expect_file(*open_another(), content);
    // It is that record which gc goes by, and copies.
    ASSERT_OK(other->seal());
    other.reset();
    CollectOptions options;
    options.mark = [&](LiveSet& live) -> Status {
        CORAL_TRY(auto record, store_->file(again.id));
        keep_file(live, *record);
        return {};
    };
    CollectReport report = collect(LiveSet(), options);
    EXPECT_GE(report.rewritten_packs, 1u);
    reopen();
    expect_file(*store_, content);
    expect_clean(*store_);
}

// A process stores it again after gc has marked what is in use, with a segment that was there and that nothing needed.
TEST_F(StoredAgainTest, AFileThatIsStoredAgainWhileGcRunsKeepsItsNewCut) {
    Buffer content = noise(600'000, 2);
    lose_first_segment(content);
    auto other = open_another();
    SegmentId shared = put(Bytes(content).first(200'000));
    ASSERT_OK(store_->seal());
    const auto id = FileId::from(Sha256::of(content));
    CollectOptions options;
    options.mark = [&](LiveSet& live) -> Status {
        CORAL_TRY(auto record, store_->file(id));
        keep_file(live, *record);
        FileRecord again = put_file(*other, content, 200'000);
        EXPECT_EQ(again.segments[0], shared);
        return other->sync();
    };
    CollectReport report = collect(LiveSet(), options);
    reopen();
    expect_file(*store_, content);
    auto there = store_->contains(Kind::kSegment, AnyId::from(shared));
    ASSERT_OK(there);
    EXPECT_TRUE(*there);
}

TEST_F(StoredAgainTest, ASegmentWithoutItsBaseDoesNotHideOneThatIsWhole) {
    Buffer bytes = noise(500'000, 1), base = changed(bytes, 1), root = changed(bytes, 2), second = changed(root, 3);
    SegmentId base_id = put(base);
    ASSERT_OK(store_->seal());
    FileRecord kept = put_file(*store_, noise(1'500'000, 4));
    SegmentId root_id = put(root), second_id = put(*store_, second, {}, {{root_id, 0}});
    SegmentId id = put(*store_, bytes, {}, {{base_id, 0}}), on_it = put(*store_, changed(bytes, 5), {}, {{id, 0}});
    ASSERT_EQ(store_->segment_info(on_it)->depth, 2);
    LiveSet live;
    keep_file(live, kept);
    live.add(Kind::kSegment, AnyId::from(second_id));
    ASSERT_EQ(collect(live).removed_packs, 1u);
    // Stored again it is deeper than the record that has lost its base, which is looked at first.
    put(*store_, noise(2'000'000, 5));
    put(*store_, bytes, {}, {{second_id, 0}});
    ASSERT_EQ(store_->segment_info(id)->depth, 2);
    ASSERT_OK(store_->sync());
    auto there = store_->contains(Kind::kSegment, AnyId::from(id));
    ASSERT_OK(there);
    EXPECT_TRUE(*there);
    there = store_->contains(Kind::kSegment, AnyId::from(on_it));
    ASSERT_OK(there);
    EXPECT_FALSE(*there) << "it needs the record that has lost its base";
    Buffer next = changed(bytes, 4);
    SegmentId next_id = put(*store_, next, {}, {{id, 0}});
    EXPECT_EQ(store_->segment_info(next_id)->depth, 3) << "it serves as a base";
    live.add(Kind::kSegment, AnyId::from(next_id));
    EXPECT_GE(collect(live).rewritten_packs, 1u);
    reopen();
    expect_segment(*store_, bytes);
    expect_segment(*store_, next);
}

// A record that waited for its base to come back, and it came back deeper: nobody may take the segment for there.
TEST_F(StoredAgainTest, ABaseThatComesBackTooDeepIsNone) {
    Buffer bytes = noise(500'000, 1), base = changed(bytes, 1), root = changed(bytes, 2), second = changed(root, 3);
    SegmentId base_id = put(base);
    ASSERT_OK(store_->seal());
    FileRecord kept = put_file(*store_, noise(1'500'000, 4));
    SegmentId root_id = put(root), second_id = put(*store_, second, {}, {{root_id, 0}});
    SegmentId id = put(*store_, bytes, {}, {{base_id, 0}});
    ASSERT_EQ(store_->segment_info(id)->depth, 1);
    LiveSet live;
    keep_file(live, kept);
    live.add(Kind::kSegment, AnyId::from(second_id));
    ASSERT_EQ(collect(live).removed_packs, 1u);
    put(*store_, base, {}, {{second_id, 0}});
    ASSERT_EQ(store_->segment_info(base_id)->depth, 2);
    auto there = store_->contains(Kind::kSegment, AnyId::from(id));
    ASSERT_OK(there);
    EXPECT_FALSE(*there) << "nobody could read it";
    expect_clean(*store_);
    put(bytes);
    expect_segment(*store_, bytes);
    reopen();
    expect_segment(*store_, bytes);
    expect_clean(*store_);
}

// While another process repacks there is a deeper record of a base, too, and it is the one of which a reader has heard
// last: what is coded against the other one is read all the same.
TEST_F(StoredAgainTest, ADeeperRecordOfABaseDoesNotStandBeforeTheOther) {
    Buffer base = noise(500'000, 1), root = noise(500'000, 2), second = changed(base, 2), next = changed(base, 3);
    std::copy_n(base.begin(), 262'144, root.begin());  // one chunk of it; the other one only `second` has
    SegmentId root_id = put(root), second_id = put(*store_, second, {}, {{root_id, 0}}), base_id = put(base);
    ASSERT_OK(store_->seal());
    auto repacker = open_another(), reader = open_another();
    auto limits = repacker->rewrite_limits();
    ASSERT_OK(limits);
    SegmentId id = put(*store_, next, {}, {{base_id, 0}});  // which the limits know nothing of
    ASSERT_EQ(store_->segment_info(id)->depth, 1);
    auto done =
        repacker->rewrite_segment(base_id, base, {}, std::vector<BaseCandidate>{{second_id, 0}}, *limits, false);
    ASSERT_OK(done);
    ASSERT_TRUE(done->better);
    ASSERT_EQ(done->depth, 2);
    ASSERT_OK(
        reader->find_prefix(Kind::kSegment, base_id.hex(), 2));  // looks for news, and hears of the deeper one alone
    expect_segment(*reader, base);                               // which is remembered
    ASSERT_EQ(reader->segment_info(base_id)->depth, 2);
    auto there = reader->contains(Kind::kSegment, AnyId::from(id));
    ASSERT_OK(there);
    EXPECT_TRUE(*there);
    expect_segment(*reader, next);
    expect_clean(*reader);
}

// A base that the disk does not give: another record does without it, and nobody takes what it is needed for as gone.
TEST_F(StoredAgainTest, ABaseOnABadSectorIsGoneRoundAndNotTakenForGone) {
    Buffer bytes = noise(500'000, 1), base = noise(500'000, 2), root = noise(500'000, 3), second = changed(bytes, 2);
    for (Buffer* half : {&base, &root}) std::copy_n(bytes.begin(), 262'144, half->begin());
    SegmentId base_id = put(base);
    ASSERT_OK(store_->seal());
    SegmentId root_id = put(root), second_id = put(*store_, second, {}, {{root_id, 0}});
    SegmentId id = put(*store_, bytes, {}, {{base_id, 0}}), alone = put(*store_, changed(base, 4), {}, {{base_id, 0}});
    auto limits = store_->rewrite_limits();
    ASSERT_OK(limits);
    auto done = store_->rewrite_segment(id, bytes, {}, std::vector<BaseCandidate>{{second_id, 0}}, *limits, false);
    ASSERT_OK(done);
    ASSERT_TRUE(done->better && done->depth == 2) << "the other record is looked at first";
    auto bad = store_->segment_info(base_id);
    ASSERT_OK(bad);
    ASSERT_OK(store_->seal());
    reopen(os_);
    os_.unreadable = dir_.file("packs/" + bad->pack.text() + ".pack");
    expect_segment(*store_, bytes);
    auto there = store_->contains(Kind::kSegment, AnyId::from(alone));
    EXPECT_FALSE(there.ok()) << "neither there nor gone";
    os_.unreadable.clear();
    there = store_->contains(Kind::kSegment, AnyId::from(alone));
    EXPECT_TRUE(there.ok() && *there);
    store_.reset();
}

// fsck beside a process that adds second records of what is there.
TEST_F(StoredAgainTest, RecordsThatComeWhileItIsVerifiedAreNoProblem) {
    constexpr std::uint64_t kSegments = 12;
    Buffer base = noise(200'000, 1);
    SegmentId base_id = put(base);
    std::vector<Buffer> all;
    for (std::uint64_t n = 0; n < kSegments; ++n) {
        all.push_back(changed(base, n % 4));
        all.back()[n] ^= std::byte{1};
        put(all.back());
        ASSERT_OK(store_->seal());
    }
    auto other = open_another();
    auto limits = other->rewrite_limits();
    ASSERT_OK(limits);
    put(*other, noise(100'000, 9));
    std::size_t rewritten = 0;
    auto problems = store_->verify(false, [&](std::uint64_t, std::uint64_t) {
        if (rewritten == all.size()) return;
        const Buffer& raw = all[rewritten++];
        auto done =
            other->rewrite_segment(segment_id(raw), raw, {}, std::vector<BaseCandidate>{{base_id, 0}}, *limits, false);
        ASSERT_OK(done);
        EXPECT_TRUE(done->better);
    });
    ASSERT_OK(problems);
    EXPECT_EQ(rewritten, all.size());
    for (const Problem& problem : *problems) EXPECT_TRUE(problem.if_used) << problem.what;
}

}  // namespace
}  // namespace coral::store::test
