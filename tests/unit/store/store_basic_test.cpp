// SPDX-License-Identifier: Apache-2.0
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

TEST_F(StoreTest, SegmentsOfEverySizeComeBack) {
    const std::size_t sizes[] = {1,      64,     65,     4096,    65535,         65536,          65537,
                                 262143, 262144, 262145, 1 << 20, (1 << 20) + 1, (16 << 20) - 1, 16 << 20};
    std::vector<Buffer> all;
    for (std::size_t size : sizes) all.push_back(noise(size, 1));
    for (const Buffer& raw : all) put(raw);
    for (const Buffer& raw : all) expect_segment(*store_, raw);
    ASSERT_OK(store_->sync());
    for (const Buffer& raw : all) expect_segment(*store_, raw);
    reopen();
    for (const Buffer& raw : all) expect_segment(*store_, raw);
    for (const Buffer& raw : all) {
        auto again = store_->put_segment(segment_id(raw), raw, {}, {});
        ASSERT_OK(again);
        EXPECT_TRUE(again->existed);
    }
    auto problems = store_->verify(true, nullptr);
    ASSERT_OK(problems);
    for (const Problem& p : *problems) ADD_FAILURE() << p.what;
}

TEST_F(StoreTest, FilesComeBackAtEveryOffset) {
    Buffer content = noise(700'001, 3);
    FileRecord record = put_file(*store_, content, 90'000);
    for (int round = 0; round < 2; ++round) {
        for (std::size_t at : {0, 1, 89'999, 90'000, 90'001, 262'144, 500'000, 700'000}) {
            for (std::size_t length : {1, 2, 4096, 90'000, 300'000}) {
                Buffer out(length);
                auto got = store_->read_file(record, at, out);
                ASSERT_OK(got);
                ASSERT_EQ(*got, std::min(length, content.size() - at));
                EXPECT_TRUE(std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*got),
                                       content.begin() + static_cast<std::ptrdiff_t>(at)));
            }
        }
        Buffer out(4);
        EXPECT_EQ(*store_->read_file(record, content.size(), out), 0u);
        EXPECT_EQ(*store_->read_file(record, ~std::uint64_t{0}, out), 0u);
        ASSERT_OK(store_->sync());
        reopen();
    }
    expect_file(*store_, content);
}

TEST_F(StoreTest, HistoryObjectsAreCheckedAgainstTheirNames) {
    for (Kind kind : {Kind::kTree, Kind::kCommit, Kind::kTag}) {
        Buffer raw = noise(5000, static_cast<std::uint64_t>(kind));
        AnyId id = object_id(kind, raw);
        ASSERT_OK(store_->put_object(kind, id, raw));
        EXPECT_TRUE(store_->put_object(kind, id, raw)->existed);
        auto got = store_->object(kind, id);
        ASSERT_OK(got);
        EXPECT_EQ(*got, raw);
    }
    Buffer raw = noise(100, 9);
    AnyId wrong = object_id(Kind::kTag, raw);
    ASSERT_OK(store_->put_object(Kind::kTree, wrong, raw));
    auto got = store_->object(Kind::kTree, wrong);
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code, Errc::kCorrupt);
    EXPECT_EQ(store_->object(Kind::kTree, AnyId{}).error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace coral::store::test
