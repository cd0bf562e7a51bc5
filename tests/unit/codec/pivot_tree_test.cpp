// SPDX-License-Identifier: Apache-2.0
#include "codec/pivot_tree.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace coral::codec {
namespace {

std::vector<const Kernels*> paths() {
    std::vector<const Kernels*> all;
    for (const char* name : {"scalar", "avx2", "avx512"}) {
        if (const Kernels* k = kernels_named(name)) all.push_back(k);
    }
    return all;
}

Histogram count(const std::vector<std::uint8_t>& symbols, std::size_t n) {
    Histogram h{};
    for (std::size_t i = 0; i < n; ++i) ++h[symbols[i]];
    return h;
}

// Symbols of a shape: how fast their frequency falls, and how many kinds there are.
std::vector<std::uint8_t> draw(std::size_t n, unsigned kinds, double fall, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<double> weights;
    for (unsigned s = 0; s < kinds; ++s) weights.push_back(std::pow(fall, s));
    std::discrete_distribution<int> dice(weights.begin(), weights.end());
    std::vector<std::uint8_t> names(256);
    std::iota(names.begin(), names.end(), std::uint8_t{0});
    std::shuffle(names.begin(), names.end(), random);
    std::vector<std::uint8_t> out(n + kSlack);
    for (std::size_t i = 0; i < n; ++i) out[i] = names[static_cast<std::size_t>(dice(random))];
    return out;
}

Buffer encode(const Kernels& k, const PivotTree& tree, const std::vector<std::uint8_t>& symbols, std::size_t n) {
    Buffer out;
    BitWriter bits(out);
    tree.encode(k, symbols.data(), n, bits);
    bits.align();
    return out;
}

void round_trip(std::size_t n, unsigned kinds, double fall) {
    SCOPED_TRACE(testing::Message() << n << " symbols, " << kinds << " kinds, " << fall);
    auto symbols = draw(n, kinds, fall, static_cast<std::uint32_t>(n * 31 + kinds));
    Histogram counts = count(symbols, n);
    PivotTree made(code_lengths(counts), &counts);
    Buffer table;
    made.write(table);
    BitReader table_in(table);
    auto tree = PivotTree::read(table_in);
    ASSERT_TRUE(tree) << tree.error().message;
    EXPECT_TRUE(table_in.at_end());
    Buffer first = encode(kScalarKernels, made, symbols, n);
    for (const Kernels* k : paths()) {
        EXPECT_EQ(encode(*k, *tree, symbols, n), first) << k->name;
        std::vector<std::uint8_t> out(n + kSlack, 0xee);
        BitReader in(first);
        ASSERT_TRUE(tree->decode(*k, in, n, out.data())) << k->name;
        EXPECT_TRUE(in.at_end()) << k->name;
        EXPECT_TRUE(std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n), symbols.begin())) << k->name;
    }
}

TEST(PivotTree, RoundTripsOnEveryPath) {
    for (std::size_t n :
         {0u, 1u, 2u, 7u, 63u, 64u, 65u, 127u, 128u, 129u, 384u, 511u, 1000u, 4097u, 70'001u, 262'144u}) {
        for (unsigned kinds : {1u, 2u, 3u, 17u, 100u, 256u}) {
            for (double fall : {1.0, 0.9, 0.5, 0.05, 0.001}) round_trip(n, kinds, fall);
        }
    }
}

TEST(PivotTree, ComesCloseToTheEntropy) {
    for (double fall : {0.9, 0.5, 0.2, 0.05, 0.01, 0.002}) {
        std::size_t n = 200'000;
        auto symbols = draw(n, 40, fall, 5);
        Histogram counts = count(symbols, n);
        PivotTree tree(code_lengths(counts), &counts);
        double ideal = 0;
        for (std::uint64_t c : counts) {
            if (c) ideal += static_cast<double>(c) * std::log2(static_cast<double>(n) / static_cast<double>(c));
        }
        double bits = 8.0 * static_cast<double>(encode(kernels(), tree, symbols, n).size());
        EXPECT_LT(bits, 1.02 * ideal + 400) << fall;
    }
}

TEST(PivotTree, LengthsAreAPrefixCodeWithinTheLimit) {
    for (unsigned kinds : {2u, 5u, 256u}) {
        Histogram counts{};
        for (unsigned s = 0; s < kinds; ++s) counts[s] = std::uint64_t{1} << std::min(s, 50u);
        CodeLengths lengths = code_lengths(counts);
        unsigned kraft = 0;
        for (unsigned s = 0; s < kinds; ++s) {
            ASSERT_GE(lengths[s], 1u);
            ASSERT_LE(lengths[s], kMaxCodeLength);
            kraft += 1u << (kMaxCodeLength - lengths[s]);
        }
        EXPECT_EQ(kraft, 1u << kMaxCodeLength);
    }
}

TEST(PivotTree, AnythingIsAnErrorOrAnOutput) {
    std::mt19937 random(9);
    for (int round = 0; round < 20'000; ++round) {
        Buffer bytes(random() % 200);
        for (std::byte& b : bytes) b = static_cast<std::byte>(random() % (round % 2 ? 256 : 5));
        BitReader in(bytes);
        auto tree = PivotTree::read(in);
        if (!tree) continue;
        std::size_t n = random() % 3000;
        std::vector<std::uint8_t> out(n + kSlack);
        for (const Kernels* k : paths()) {
            BitReader again = in;
            (void)tree->decode(*k, again, n, out.data());
        }
    }
}

// What is counted on the way is what is copied: at any place, of any length, up to the reader's last bit.
TEST(BitReader, CountsWhatItTakes) {
    std::mt19937 random(1);
    Buffer bytes(1000);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    for (const Kernels* k : paths()) {
        for (int i = 0; i < 4000; ++i) {
            BitReader plain(bytes), counting(bytes);
            const std::size_t skipped = random() % 700, n = random() % (8 * bytes.size() - skipped + 1);
            std::vector<std::uint8_t> wanted(bytes.size() + kSlack), got(bytes.size() + 2 * kSlack, 0xaa);
            std::size_t ones = 0;
            ASSERT_TRUE(plain.take(skipped, wanted.data()) && plain.take(n, wanted.data()));
            ASSERT_TRUE(counting.take(skipped, got.data()) && counting.take_counted(*k, n, got.data(), ones));
            ASSERT_TRUE(
                std::equal(wanted.begin(), wanted.begin() + static_cast<std::ptrdiff_t>((n + 7) / 8), got.begin()))
                << k->name << ", " << n << " bits behind " << skipped;
            ASSERT_EQ(ones, k->popcount(wanted.data(), n)) << k->name;
            ASSERT_EQ(plain.at_end(), counting.at_end());
            const std::size_t left = 8 * bytes.size() - skipped - n;
            ASSERT_FALSE(counting.take_counted(*k, left + 1, got.data(), ones)) << "more than there is";
        }
    }
}

}  // namespace
}  // namespace coral::codec
