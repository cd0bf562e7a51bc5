// SPDX-License-Identifier: Apache-2.0
#include "coral/base/hash.hpp"

#include <gtest/gtest.h>

#include <random>

#include "coral/base/bytes.hpp"

namespace coral {
namespace {

Buffer noise(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    Buffer out(size);
    for (std::byte& b : out) b = static_cast<std::byte>(random());
    return out;
}

std::string sha256(std::string_view text) {
    return Sha256::of(as_bytes(text)).hex();
}

TEST(Hash, Sha256Vectors) {  // FIPS 180-4, NIST examples
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(sha256(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Hash, Sha256InPieces) {
    Buffer data = noise(100'003, 1);
    AnyId whole = Sha256::of(data);
    for (std::size_t step : {1u, 63u, 64u, 65u, 4096u, 99'999u}) {
        Sha256 hash;
        for (std::size_t at = 0; at < data.size(); at += step) {
            hash.update(Bytes(data).subspan(at, std::min(step, data.size() - at)));
        }
        EXPECT_EQ(hash.finish(), whole) << step;
    }
    Sha256 moved_from;
    moved_from.update("ab");
    Sha256 moved = std::move(moved_from);
    EXPECT_EQ(moved.update("c").finish(), Sha256::of(as_bytes("abc")));
}

TEST(Hash, Crc32Vectors) {
    EXPECT_EQ(crc32({}), 0u);
    EXPECT_EQ(crc32(as_bytes("123456789")), 0xCBF43926u);
    EXPECT_EQ(crc32(as_bytes("The quick brown fox jumps over the lazy dog")), 0x414FA339u);
    EXPECT_EQ(crc32(Buffer(32)), 0x190A55ADu);
}

TEST(Hash, Crc32ContinuesAndCombines) {
    Buffer data = noise(70'001, 2);
    std::uint32_t whole = crc32(data);
    for (std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, std::size_t{65'537}, data.size()}) {
        Bytes a = Bytes(data).first(cut), b = Bytes(data).subspan(cut);
        EXPECT_EQ(crc32(b, crc32(a)), whole) << cut;
        EXPECT_EQ(crc32_combine(crc32(a), crc32(b), b.size()), whole) << cut;
    }
}

TEST(Hash, Crc32CombinesAcrossHugeLengths) {
    // A zero block's CRC combined with itself must agree with its double, up to lengths beyond 32 bits.
    std::uint64_t length = 1u << 20;
    std::uint32_t zeros = crc32(Buffer(length));
    for (; length < (std::uint64_t{1} << 36); length *= 2) zeros = crc32_combine(zeros, zeros, length);
    std::uint32_t again = crc32(Buffer(1u << 20));
    std::uint32_t sum = again;
    for (int i = 1; i < 65'536; ++i) sum = crc32_combine(sum, again, 1u << 20);
    EXPECT_EQ(sum, zeros);
}

TEST(Hash, Xxh3Vectors) {
    EXPECT_EQ(xxh3_64({}), 0x2D06800538D394C2u);
    EXPECT_NE(xxh3_64(as_bytes("abc")), xxh3_64(as_bytes("abc"), 1));
    EXPECT_EQ(xxh3_64(as_bytes("abc")), 0x78AF5F94892F3950u);
}

}  // namespace
}  // namespace coral
