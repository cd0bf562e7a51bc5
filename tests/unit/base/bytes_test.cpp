// SPDX-License-Identifier: Apache-2.0
#include "coral/base/bytes.hpp"

#include <gtest/gtest.h>

namespace coral {
namespace {

TEST(Bytes, LittleEndianWhateverTheMachine) {
    Buffer out;
    ByteWriter(out).u8(0x01).u16(0x2345).u32(0x6789abcd).u64(0x0123456789abcdef).i64(-2);
    EXPECT_EQ(to_hex(out),
              "01"
              "4523"
              "cdab8967"
              "efcdab8967452301"
              "feffffffffffffff");
    ByteReader in(out);
    EXPECT_EQ(in.u8(), 0x01);
    EXPECT_EQ(in.u16(), 0x2345);
    EXPECT_EQ(in.u32(), 0x6789abcdu);
    EXPECT_EQ(in.u64(), 0x0123456789abcdefu);
    EXPECT_EQ(in.i64(), -2);
    EXPECT_TRUE(in.ok());
    EXPECT_TRUE(in.at_end());
    EXPECT_EQ(in.left(), 0u);
}

TEST(Bytes, IdsAndText) {
    Buffer out;
    FileId id;
    id.bytes[0] = std::byte{7};
    Uuid uuid = Uuid::random();
    std::string long_text(65'535, 'x');
    ByteWriter(out).id(id).uuid(uuid).text16("name").text16("").text16(long_text).text("tail");
    ByteReader in(out);
    EXPECT_EQ(in.id<FileId>(), id);
    EXPECT_EQ(in.uuid(), uuid);
    EXPECT_EQ(in.text16(), "name");
    EXPECT_EQ(in.text16(), "");
    EXPECT_EQ(in.text16(), long_text);
    EXPECT_EQ(as_text(in.take(4)), "tail");
    EXPECT_TRUE(in.at_end());
}

TEST(Bytes, ReadingPastTheEndFailsForGood) {
    Buffer out;
    ByteWriter(out).u32(0xffffffff).u16(0xffff);
    ByteReader in(out);
    EXPECT_EQ(in.u32(), 0xffffffffu);
    EXPECT_EQ(in.u32(), 0u);  // two bytes are left: none are taken
    EXPECT_FALSE(in.ok());
    EXPECT_EQ(in.pos(), 4u);
    EXPECT_EQ(in.u16(), 0);  // would fit, but the reader has failed
    EXPECT_FALSE(in.at_end());
    EXPECT_EQ(in.left(), 0u);
    EXPECT_TRUE(in.id<FileId>().is_zero());
    EXPECT_TRUE(in.uuid().is_zero());
}

TEST(Bytes, LengthsThatLie) {
    Buffer out;
    ByteWriter(out).u16(500).text("short");
    ByteReader in(out);
    EXPECT_EQ(in.text16(), "");
    EXPECT_FALSE(in.ok());
    ByteReader huge(out);
    EXPECT_TRUE(huge.take(~std::uint64_t{0}).empty());
    EXPECT_FALSE(huge.ok());
    ByteReader all(out);
    EXPECT_EQ(all.take(out.size()).size(), out.size());
    EXPECT_TRUE(all.take(0).empty());
    EXPECT_TRUE(all.ok());
    ByteReader nothing{Bytes()};
    EXPECT_TRUE(nothing.at_end());
    EXPECT_EQ(nothing.u8(), 0);
    EXPECT_FALSE(nothing.ok());
}

TEST(Bytes, CheckedArithmetic) {
    std::uint64_t out = 5;
    EXPECT_TRUE(checked_add(out, 6, out));
    EXPECT_EQ(out, 11u);
    std::uint64_t kept = 0;
    EXPECT_FALSE(checked_add(~std::uint64_t{0}, 1, kept));
    EXPECT_FALSE(checked_mul(std::uint64_t{1} << 33, std::uint64_t{1} << 31, kept));
    EXPECT_TRUE(checked_mul(std::uint64_t{1} << 32, std::uint64_t{1} << 31, kept));
    EXPECT_EQ(kept, std::uint64_t{1} << 63);
    std::uint32_t small = 0;
    EXPECT_FALSE(checked_add(std::uint32_t{0xffffffff}, 1, small));
}

}  // namespace
}  // namespace coral
