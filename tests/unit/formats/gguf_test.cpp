// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

using namespace std::string_literals;

constexpr std::uint32_t kF32 = 0, kQ4_0 = 2, kQ8_0 = 8, kI8 = 24, kNobodysType = 999;
constexpr std::uint32_t kU8 = 0, kU32 = 4, kText = 8, kArray = 9, kF64 = 12;

std::string array(std::uint32_t type, std::uint64_t count, const std::string& values) {
    return gguf_number(type, 4) + gguf_number(count, 8) + values;
}

const std::string kData(64, 'd');

bool accepted(const std::vector<std::string>& pairs) {
    return parse(gguf(pairs, {{"w", {4}, kF32, 0}}, kData)).has_value();
}

TEST(Gguf, TensorsOfBothVersionsAndByteOrders) {
    for (std::uint32_t version : {2U, 3U}) {
        for (bool big : {false, true}) {
            GgufOptions options;
            options.version = version;
            options.big_endian = big;
            const std::string file = gguf({gguf_pair("a", kU32, gguf_number(1, 4, options), options)},
                                          {{"w", {4, 2}, kF32, 0}, {"b", {3}, kI8, 32}}, kData, options);
            auto layout = parse(file);
            ASSERT_TRUE(layout);
            EXPECT_EQ(layout->parser, Parser::kGguf);
            const std::uint64_t data = file.size() - kData.size();
            EXPECT_EQ(find(layout, "w"), (Tensor{"w", Dtype::kF32, big, {2, 4}, data, 32}));
            EXPECT_EQ(find(layout, "b"), (Tensor{"b", Dtype::kI8, false, {3}, data + 32, 3}));
        }
    }
    for (std::uint32_t version : {0U, 1U, 4U, 1U << 16, 5U << 24}) {
        GgufOptions options;
        options.version = version;
        EXPECT_FALSE(parse(gguf({}, {{"w", {4}, kF32, 0}}, kData, options))) << version;
    }
}

TEST(Gguf, EveryType) {
    struct Case {
        std::uint32_t type;
        std::uint64_t block, bytes;
        Dtype dtype = Dtype::kQuantised;
    };
    for (const Case& c : {Case{0, 1, 4, Dtype::kF32},
                          Case{1, 1, 2, Dtype::kF16},
                          Case{2, 32, 18},
                          Case{3, 32, 20},
                          Case{6, 32, 22},
                          Case{7, 32, 24},
                          Case{8, 32, 34},
                          Case{9, 32, 36},
                          Case{10, 256, 84},
                          Case{11, 256, 110},
                          Case{12, 256, 144},
                          Case{13, 256, 176},
                          Case{14, 256, 210},
                          Case{15, 256, 292},
                          Case{16, 256, 66},
                          Case{17, 256, 74},
                          Case{18, 256, 98},
                          Case{19, 256, 50},
                          Case{20, 32, 18},
                          Case{21, 256, 110},
                          Case{22, 256, 82},
                          Case{23, 256, 136},
                          Case{24, 1, 1, Dtype::kI8},
                          Case{25, 1, 2, Dtype::kI16},
                          Case{26, 1, 4, Dtype::kI32},
                          Case{27, 1, 8, Dtype::kI64},
                          Case{28, 1, 8, Dtype::kF64},
                          Case{29, 256, 56},
                          Case{30, 1, 2, Dtype::kBF16},
                          Case{34, 256, 54},
                          Case{35, 256, 66},
                          Case{39, 32, 17},
                          Case{40, 64, 36},
                          Case{41, 128, 18}}) {
        const std::vector<GgufTensor> one{{"t", {c.block, 3}, c.type, 0}};
        const Tensor t = find(parse(gguf({}, one, std::string(3 * c.bytes, 'x'))), "t");
        EXPECT_EQ(t.dtype, c.dtype) << c.type;
        EXPECT_EQ(t.length, 3 * c.bytes) << c.type;
        EXPECT_FALSE(parse(gguf({}, one, std::string(3 * c.bytes - 1, 'x')))) << c.type;
        if (c.block == 1) continue;
        EXPECT_FALSE(parse(gguf({}, {{"t", {c.block / 2, 4}, c.type, 0}}, std::string(999, 'x')))) << c.type;
        EXPECT_FALSE(parse(gguf({}, {{"t", {}, c.type, 0}}, std::string(999, 'x')))) << c.type;
    }
}

TEST(Gguf, AnUnknownTypeGoesOnToTheNextTensor) {
    const std::vector<GgufTensor> tensors{
        {"last", {7}, kNobodysType, 64}, {"first", {5}, kNobodysType, 0}, {"w", {4}, kF32, 32}};
    auto layout = parse(gguf({}, tensors, std::string(100, 'x')));
    EXPECT_EQ(find(layout, "first").length, 32U);
    EXPECT_EQ(find(layout, "first").dtype, Dtype::kUnknown);
    EXPECT_EQ(find(layout, "w").length, 16U);
    EXPECT_EQ(find(layout, "last").length, 36U);
    EXPECT_EQ(find(parse(gguf({}, {{"t", {7}, kNobodysType, 0}}, "")), "t").length, 0U);
    EXPECT_FALSE(parse(gguf({}, {{"a", {5}, kNobodysType, 0}, {"b", {5}, kNobodysType, 0}}, kData)));
}

TEST(Gguf, EveryTypeOfValue) {
    std::vector<std::string> pairs;
    const std::vector<std::size_t> bytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    for (std::uint32_t type = 0; type < bytes.size(); ++type) {
        if (type == kText || type == kArray) continue;
        pairs.push_back(gguf_pair("k" + std::to_string(type), type, std::string(bytes[type], 'v')));
        pairs.push_back(
            gguf_pair("a" + std::to_string(type), kArray, array(type, 3, std::string(3 * bytes[type], 'v'))));
    }
    pairs.push_back(gguf_pair("text", kText, gguf_text("value")));
    pairs.push_back(gguf_pair("long", kText, gguf_text(std::string(100'000, 'v'))));
    pairs.push_back(gguf_pair("texts", kArray, array(kText, 2, gguf_text("a") + gguf_text(""))));
    pairs.push_back(
        gguf_pair("nested", kArray, array(kArray, 2, array(kU8, 1, "x") + array(kText, 1, gguf_text("y")))));
    EXPECT_TRUE(accepted(pairs));
    EXPECT_FALSE(accepted({gguf_pair("k", 13, "")}));
    EXPECT_FALSE(accepted({gguf_pair("k", kArray, array(13, 0, ""))}));
}

TEST(Gguf, ArraysInArraysEndSomewhere) {
    std::string value = array(kU8, 1, "x");
    for (int depth = 1; depth <= 6; ++depth) {
        EXPECT_EQ(accepted({gguf_pair("k", kArray, value)}), depth <= 4) << depth;
        value = array(kArray, 1, value);
    }
}

TEST(Gguf, Alignment) {
    GgufOptions options;
    for (std::uint64_t alignment : {1, 8, 64, 4096}) {
        options.alignment = alignment;
        const std::string pair = gguf_pair("general.alignment", kU32, gguf_number(alignment, 4));
        const std::string file =
            gguf({pair}, {{"w", {2}, kF32, alignment}}, std::string(alignment, '-') + "abcdefgh", options);
        EXPECT_EQ(bytes_of(file, find(parse(file), "w")), "abcdefgh") << alignment;
    }
    for (std::uint64_t alignment : {0, 3, 48}) {
        EXPECT_FALSE(accepted({gguf_pair("general.alignment", kU32, gguf_number(alignment, 4))})) << alignment;
    }
    EXPECT_FALSE(accepted({gguf_pair("general.alignment", kF64, gguf_number(32, 8))}));
    EXPECT_FALSE(parse(gguf({}, {{"w", {2}, kF32, 8}}, kData)));
}

TEST(Gguf, CountsAndLengthsThatLie) {
    for (std::uint64_t lie : {1000ULL, 1ULL << 20, 1ULL << 32, 1ULL << 63, ~0ULL - 1}) {
        GgufOptions options;
        options.tensors_lie = lie;
        EXPECT_FALSE(parse(gguf({}, {{"w", {4}, kF32, 0}}, kData, options))) << lie;
        options = {};
        options.pairs_lie = lie;
        EXPECT_FALSE(parse(gguf({gguf_pair("k", kU8, "x")}, {{"w", {4}, kF32, 0}}, kData, options))) << lie;
        EXPECT_FALSE(accepted({gguf_number(lie + 100, 8) + "k" + gguf_number(kU8, 4) + "x"})) << lie;
        EXPECT_FALSE(accepted({gguf_pair("k", kText, gguf_number(lie + 100, 8) + "x")})) << lie;
        EXPECT_FALSE(accepted({gguf_pair("k", kArray, array(kF64, lie + 100, "x"))})) << lie;
        EXPECT_FALSE(accepted({gguf_pair("k", kArray, array(kText, lie + 100, ""))})) << lie;
        EXPECT_FALSE(parse(gguf({}, {{"w", {lie + 100}, kF32, 0}}, kData))) << lie;
    }
    for (std::uint64_t offset : {64ULL, 96ULL, 1ULL << 40, 1ULL << 63, ~31ULL}) {
        EXPECT_FALSE(parse(gguf({}, {{"w", {4}, kF32, offset}}, kData))) << offset;
    }
    EXPECT_FALSE(parse(gguf({}, {{"w", {1ULL << 62, 16}, kF32, 0}}, kData)));
    EXPECT_FALSE(parse(gguf({}, {{"w", {1ULL << 62}, kF32, 0}}, kData)));  // times 4 is 0
    EXPECT_FALSE(parse(gguf({}, {{"w", std::vector<std::uint64_t>(65, 1), kF32, 0}}, kData)));
    EXPECT_FALSE(parse(gguf({}, {{"a", {8}, kF32, 0}, {"b", {1}, kF32, 0}}, kData)));  // they overlap
}

TEST(Gguf, NoTensorsAndEmptyOnes) {
    EXPECT_TRUE(parse(gguf({}, {}, "")));
    EXPECT_EQ(find(parse(gguf({}, {{"e", {0, 3}, kF32, 0}}, "")), "e").length, 0U);
    EXPECT_EQ(find(parse(gguf({}, {{"s", {}, kF32, 0}}, kData)), "s").length, 4U);
    EXPECT_FALSE(parse(gguf({}, {{"", {1}, kF32, 0}}, kData)));
    EXPECT_FALSE(accepted({gguf_pair("", kU8, "x")}));
    EXPECT_TRUE(accepted({gguf_pair(std::string(5000, 'k'), kU8, "x")}));
    EXPECT_EQ(find(parse(gguf({}, {{"\xff", {1}, kF32, 0}}, kData)), "tensor:0").length, 4U);
    EXPECT_EQ(find(parse(gguf({}, {{std::string(1025, 'n'), {1}, kF32, 0}}, kData)), "tensor:0").length, 4U);
}

TEST(Gguf, EveryPrefix) {
    const std::string file = gguf({gguf_pair("k", kArray, array(kText, 1, gguf_text("v")))},
                                  {{"w", {32}, kQ8_0, 0}, {"v", {32}, kQ4_0, 64}}, std::string(64 + 18, 'x'));
    ASSERT_TRUE(parse(file));
    for (std::size_t n = 0; n < file.size(); ++n) EXPECT_FALSE(parse(file.substr(0, n))) << n;
}

}  // namespace
}  // namespace coral::formats::test
