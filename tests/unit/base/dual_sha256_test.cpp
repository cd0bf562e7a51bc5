// SPDX-License-Identifier: Apache-2.0
// Against OpenSSL (Sha256), on both paths. Without SHA-NI, Path::kBest is OpenSSL, too, and these tests say little.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "base/sha256_blocks.hpp"
#include "coral/base/bytes.hpp"
#include "coral/base/hash.hpp"

namespace coral {
namespace {

Buffer noise(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    Buffer out(size);
    for (std::byte& b : out) b = static_cast<std::byte>(random());
    return out;
}

class DualSha256Paths : public testing::TestWithParam<DualSha256::Path> {
  protected:
    // What update_both() says of the part, which is nothing or right.
    static void both(DualSha256& hash, Bytes part) {
        const auto alone = hash.update_both(part);
        EXPECT_TRUE(!alone || *alone == Sha256::of(part)) << part.size() << " bytes";
    }
};

TEST_P(DualSha256Paths, Vectors) {  // FIPS 180-4, NIST examples
    auto hex = [](std::string_view text) {
        DualSha256 hash(GetParam());
        hash.update(as_bytes(text));
        return hash.finish().hex();
    };
    EXPECT_EQ(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(hex(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// A part of every length at every place in a block, and more behind it.
TEST_P(DualSha256Paths, EveryLengthAtEveryOffset) {
    const Buffer data = noise(1000, 1);
    for (std::size_t before = 0; before < 2 * sha256::kBlock; ++before) {
        for (std::size_t length = 0; length <= 300; ++length) {
            DualSha256 hash(GetParam());
            hash.update(Bytes(data).first(before));
            both(hash, Bytes(data).subspan(before, length));
            const std::size_t after = length % 67;
            hash.update(Bytes(data).subspan(before + length, after));
            ASSERT_EQ(hash.finish(), Sha256::of(Bytes(data).first(before + length + after))) << before << " " << length;
        }
    }
}

TEST_P(DualSha256Paths, AnyPieces) {
    const Buffer data = noise(300'000, 2);
    std::mt19937 random(3);
    for (int round = 0; round < 100; ++round) {
        DualSha256 hash(GetParam());
        const std::size_t longest = std::size_t{1} << (1 + round % 17);
        for (std::size_t at = 0; at < data.size();) {
            const std::size_t length = std::min<std::size_t>(random() % (longest + 1), data.size() - at);
            const Bytes part = Bytes(data).subspan(at, length);
            if (random() % 3)
                both(hash, part);
            else
                hash.update(part);
            at += length;
        }
        ASSERT_EQ(hash.finish(), Sha256::of(data)) << longest;
    }
}

// The length in bits needs more than 32 of them.
TEST_P(DualSha256Paths, LongStream) {
    const Buffer part = noise((16u << 20) + 8, 4);
    const AnyId alone = Sha256::of(part);
    DualSha256 hash(GetParam());
    Sha256 expected;
    for (int i = 0; i < 34; ++i) {
        const auto told = hash.update_both(part);
        EXPECT_TRUE(!told || *told == alone) << i;
        expected.update(part);
    }
    EXPECT_EQ(hash.finish(), expected.finish());
}

TEST_P(DualSha256Paths, Moves) {
    DualSha256 from(GetParam());
    from.update(as_bytes("ab"));
    DualSha256 to = std::move(from);
    to.update(as_bytes("c"));
    EXPECT_EQ(to.finish(), Sha256::of(as_bytes("abc")));
}

INSTANTIATE_TEST_SUITE_P(Both, DualSha256Paths, testing::Values(DualSha256::Path::kBest, DualSha256::Path::kOpenSsl),
                         [](const auto& path) { return path.param == DualSha256::Path::kBest ? "Best" : "OpenSsl"; });

// Or the tests above would compare OpenSSL with itself unnoticed.
TEST(DualSha256, TellsPartsWhereTheProcessorCan) {
    const bool forced = std::getenv("CORAL_SHA256_PATH") != nullptr;
    EXPECT_EQ(DualSha256().update_both(as_bytes("abc")).has_value(), sha256::has_sha_ni() && !forced);
    EXPECT_FALSE(DualSha256(DualSha256::Path::kOpenSsl).update_both(as_bytes("abc")).has_value());
}

}  // namespace
}  // namespace coral
