// SPDX-License-Identifier: Apache-2.0
#include "vfs/plain_cache.hpp"

#include "coral/base/hash.hpp"
#include "vfs_fixture.hpp"

namespace coral::vfs {
namespace {

class PlainCacheTest : public test::VfsTest {
  protected:
    std::shared_ptr<const store::FileRecord> stored(const std::string& content) {
        auto record = std::make_shared<store::FileRecord>();
        const auto segment = SegmentId::from(Sha256::of(as_bytes(content)));
        record->id = FileId::from(Sha256::of(as_bytes(content)));
        record->size = content.size();
        record->segments = {segment};
        record->extents = {{0, 0, content.size()}};
        record->positions = {0};
        EXPECT_OK(repo_->store().put_segment(segment, as_bytes(content), codec::Hint{}, {}));
        EXPECT_OK(repo_->store().put_file(*record));
        return record;
    }
    std::atomic<bool> stop_{false};
};

TEST_F(PlainCacheTest, NeverMoreCopiesThanDescriptorsAreForThem) {
    PlainCache cache(*repo_, 1u << 20, 2);
    const auto a = stored("a"), b = stored("b"), c = stored("c");
    EXPECT_OK(cache.make(a, stop_));
    EXPECT_OK(cache.make(b, stop_));
    EXPECT_TRUE(cache.find(a->id)) << "used later than b";
    auto held = cache.make(c, stop_);
    ASSERT_OK(held);
    EXPECT_FALSE(cache.find(b->id)) << "unused longest";
    EXPECT_EQ(cache.bytes(), 2u);
    auto other = cache.find(a->id);
    ASSERT_TRUE(other);
    EXPECT_ERRC(cache.make(b, stop_), Errc::kNoSpace) << "both are in use";
    EXPECT_EQ(cache.bytes(), 2u);
    other.reset();
    EXPECT_OK(cache.make(b, stop_));
    EXPECT_FALSE(cache.find(a->id));
    EXPECT_TRUE(cache.find(c->id));
}

TEST_F(PlainCacheTest, MostDescriptorsAreLeftToOthers) {
    EXPECT_GE(most_plain_copies(), 1u);
    EXPECT_LT(most_plain_copies(), 1u << 20);
}

}  // namespace
}  // namespace coral::vfs
