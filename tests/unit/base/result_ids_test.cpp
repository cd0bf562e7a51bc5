// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <unordered_set>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral {
namespace {

Result<int> half(int v) {
    if (v % 2 != 0) return make_error(Errc::kInvalid, "odd");
    return v / 2;
}
Result<int> quarter(int v) {
    CORAL_TRY(int h, half(v));
    return half(h);
}
Status check_even(int v) {
    CORAL_CHECK(half(v));
    return {};
}

TEST(Result, CarriesValueOrError) {
    EXPECT_EQ(*quarter(8), 2);
    auto bad = quarter(6);
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().code, Errc::kInvalid);
    EXPECT_EQ(bad.error().message, "odd");
    EXPECT_EQ(bad.value_or(7), 7);
    EXPECT_TRUE(check_even(2).ok());
    EXPECT_FALSE(check_even(3).ok());
}

TEST(Result, MovesWhatCannotBeCopied) {
    Result<std::unique_ptr<int>> r = std::make_unique<int>(5);
    ASSERT_TRUE(r);
    std::unique_ptr<int> taken = *std::move(r);
    EXPECT_EQ(*taken, 5);
}

TEST(Result, ContextGoesInFront) {
    Error e = make_error(Errc::kIo, "bad sector").with("pack 7");
    EXPECT_EQ(e.message, "pack 7: bad sector");
    EXPECT_EQ(e.code, Errc::kIo);
}

TEST(Result, EveryCategoryHasAnErrnoAndAName) {
    for (int i = 0; i <= static_cast<int>(Errc::kInternal); ++i) {
        auto code = static_cast<Errc>(i);
        EXPECT_GT(to_errno(code), 0) << i;
        EXPECT_NE(to_string(code), "error") << i;
        // There and back is the same errno, though several categories share EIO.
        EXPECT_EQ(to_errno(from_errno(to_errno(code))), to_errno(code)) << i;
    }
    EXPECT_EQ(to_errno(Errc::kNotFound), ENOENT);
    EXPECT_EQ(to_errno(Errc::kCorrupt), EIO);
    EXPECT_EQ(from_errno(EIO), Errc::kIo);
    EXPECT_EQ(from_errno(EDQUOT), Errc::kNoSpace);
    EXPECT_EQ(from_errno(ENOSYS), Errc::kUnsupported);
    EXPECT_EQ(from_errno(99999), Errc::kIo);
    EXPECT_EQ(errno_error(ENOSPC, "x").code, Errc::kNoSpace);
    EXPECT_EQ(errno_error(ENOSPC, "x").message, "x: No space left on device");
}

TEST(Ids, HexThereAndBack) {
    CommitId id;
    for (std::size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<std::byte>(i * 9);
    std::string hex = id.hex();
    EXPECT_EQ(hex.size(), 64u);
    EXPECT_EQ(hex.substr(0, 6), "000912");
    EXPECT_EQ(CommitId::from_hex(hex), id);
    std::string upper = hex;
    for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    EXPECT_EQ(CommitId::from_hex(upper), id);
    EXPECT_FALSE(CommitId::from_hex(hex.substr(1)));
    EXPECT_FALSE(CommitId::from_hex(hex + "00"));
    hex[5] = 'g';
    EXPECT_FALSE(CommitId::from_hex(hex));
    EXPECT_TRUE(CommitId{}.is_zero());
    EXPECT_FALSE(id.is_zero());
}

TEST(Ids, FromBytesWantsTheRightLength) {
    std::array<std::byte, 33> raw{};
    EXPECT_TRUE(FileId::from_bytes(Bytes(raw).first(32)));
    EXPECT_FALSE(FileId::from_bytes(Bytes(raw)));
    EXPECT_FALSE(FileId::from_bytes({}));
    EXPECT_EQ(TreeId::from(*AnyId::from_bytes(Bytes(raw).first(32))), TreeId{});
}

TEST(Ids, OrderAndHash) {
    FileId a, b;
    b.bytes[31] = std::byte{1};
    EXPECT_LT(a, b);
    std::unordered_set<FileId> set{a, b, a};
    EXPECT_EQ(set.size(), 2u);
}

TEST(Uuids, TextThereAndBack) {
    std::unordered_set<Uuid> seen;
    for (int i = 0; i < 100; ++i) {
        Uuid id = Uuid::random();
        std::string text = id.text();
        ASSERT_EQ(text.size(), 36u);
        EXPECT_EQ(text[14], '4');  // version
        EXPECT_TRUE(text[19] == '8' || text[19] == '9' || text[19] == 'a' || text[19] == 'b') << text;
        EXPECT_EQ(Uuid::parse(text), id);
        seen.insert(id);
    }
    EXPECT_EQ(seen.size(), 100u);
}

TEST(Uuids, RefusesOtherText) {
    std::string good = Uuid::random().text();
    EXPECT_FALSE(Uuid::parse(""));
    EXPECT_FALSE(Uuid::parse(good.substr(1)));
    EXPECT_FALSE(Uuid::parse(good + "0"));
    for (std::size_t i : {0u, 8u, 13u, 20u, 35u}) {
        std::string bad = good;
        bad[i] = bad[i] == '-' ? '0' : '-';
        EXPECT_FALSE(Uuid::parse(bad)) << bad;
    }
    EXPECT_FALSE(Uuid::from_bytes({}));
}

}  // namespace
}  // namespace coral
