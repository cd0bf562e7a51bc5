// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, std::uint64_t begin,
                  std::uint64_t end) {
    return '"' + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" + shape + R"(],"data_offsets":[)" +
           std::to_string(begin) + ',' + std::to_string(end) + "]}";
}

bool accepted(const std::string& header, const std::string& data) {
    return parse(safetensors(header, data)).has_value();
}

TEST(Safetensors, FindsTensorsInAnyHeaderOrder) {
    const std::string header = "{" + entry("b", "F32", "2,3", 4, 28) + "," + entry("a", "BF16", "2", 0, 4) + "}   \n";
    const std::string file = safetensors(header, std::string(28, 'x'));
    auto layout = parse(file);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->parser, Parser::kSafetensors);
    const std::uint64_t data = 8 + header.size();
    EXPECT_EQ(layout->tensors, (std::vector<Tensor>{{"a", Dtype::kBF16, false, {2}, data, 4},
                                                    {"b", Dtype::kF32, false, {2, 3}, data + 4, 24}}));
}

TEST(Safetensors, KeysOfATensorComeInAnyOrderWithUnknownOnesBetween) {
    EXPECT_TRUE(accepted(R"({ "a" : {"data_offsets":[ 0 , 1 ], "later":{"x":[1,-2.5e3,null,true,{}]},"shape":[],)"
                         R"("dtype":"U8"}, "__metadata__": {"format":"pt","n":"1"}})",
                         "x"));
}

TEST(Safetensors, EmptyAndZeroDimensionalTensors) {
    const std::string header = "{" + entry("z1", "F32", "0,4", 0, 0) + "," + entry("s", "F64", "", 0, 8) + "," +
                               entry("z2", "F32", "3,0", 8, 8) + "}";
    auto layout = parse(safetensors(header, std::string(8, 'x')));
    ASSERT_TRUE(layout);
    ASSERT_EQ(layout->tensors.size(), 3U);
    EXPECT_EQ(layout->tensors[0].name, "z1");
    EXPECT_EQ(layout->tensors[1].shape, std::vector<std::uint64_t>{});
    EXPECT_EQ(layout->tensors[2].name, "z2");
    EXPECT_TRUE(accepted("{}", ""));
}

TEST(Safetensors, EveryDtypeOfTheFormat) {
    for (const char* name : {"BOOL", "U8",  "I8",  "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                             "U16",  "I16", "F16", "BF16",    "U32",     "I32",     "F32",         "U64",
                             "I64",  "F64", "C64", "F4",      "F6_E2M3", "F6_E3M2"}) {
        const std::uint64_t bytes = 8 * dtype_bits(*dtype_from_name(name)) / 8;
        auto layout = parse(safetensors("{" + entry("t", name, "2,4", 0, bytes) + "}", std::string(bytes, 'x')));
        EXPECT_EQ(dtype_name(find(layout, "t").dtype), name);
        EXPECT_FALSE(accepted("{" + entry("t", name, "2,4", 0, bytes + 1) + "}", std::string(bytes + 1, 'x'))) << name;
    }
}

TEST(Safetensors, PackedTensorsEndOnAByte) {
    EXPECT_TRUE(accepted("{" + entry("t", "F4", "2", 0, 1) + "}", "x"));
    EXPECT_FALSE(accepted("{" + entry("t", "F4", "3", 0, 2) + "}", "xx"));
    EXPECT_FALSE(accepted("{" + entry("t", "F4", "3", 0, 1) + "}", "x"));
    EXPECT_TRUE(accepted("{" + entry("t", "F6_E2M3", "4", 0, 3) + "}", "xxx"));
    EXPECT_FALSE(accepted("{" + entry("t", "F6_E2M3", "2", 0, 2) + "}", "xx"));
}

TEST(Safetensors, ADtypeOfTheFutureIsUnknownBytes) {
    Tensor tensor = find(parse(safetensors("{" + entry("t", "F2_E1M0", "8", 0, 2) + "}", "xx")), "t");
    EXPECT_EQ(tensor.dtype, Dtype::kUnknown);
    EXPECT_EQ(tensor.length, 2U);
    EXPECT_EQ(find(parse(safetensors("{" + entry("t", "QUANTISED", "2", 0, 2) + "}", "xx")), "t").dtype,
              Dtype::kUnknown);
}

TEST(Safetensors, NamesAreDecoded) {
    EXPECT_EQ(find(parse(safetensors(
                       R"({"a\"\\\/\n\u00e9\ud83d\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x")),
                   "a\"\\/\n\xc3\xa9\xf0\x9f\x98\x80")
                  .length,
              1U);
    EXPECT_TRUE(accepted("{" + entry("", "U8", "1", 0, 1) + "}", "x"));
    EXPECT_TRUE(accepted("{" + entry("\xe2\x82\xac", "U8", "1", 0, 1) + "}", "x"));
}

TEST(Safetensors, GapsOverlapsAndTrailingBytesAreRefused) {
    const std::string a = entry("a", "U8", "2", 0, 2);
    EXPECT_TRUE(accepted("{" + a + "," + entry("b", "U8", "2", 2, 4) + "}", "xxxx"));
    EXPECT_FALSE(accepted("{" + a + "," + entry("b", "U8", "2", 1, 3) + "}", "xxx"));
    EXPECT_FALSE(accepted("{" + a + "," + entry("b", "U8", "2", 0, 2) + "}", "xx"));
    EXPECT_FALSE(accepted("{" + a + "," + entry("b", "U8", "2", 3, 5) + "}", "xxxxx"));
    EXPECT_FALSE(accepted("{" + a + "}", "xxx"));
    EXPECT_FALSE(accepted("{" + a + "}", "x"));
    EXPECT_FALSE(accepted("{" + entry("a", "U8", "2", 1, 3) + "}", "xxx"));
    EXPECT_FALSE(accepted("{}", "x"));
}

TEST(Safetensors, NumbersThatLieAreRefused) {
    const std::string max = "18446744073709551615";
    auto with = [](const std::string& shape, const std::string& offsets) {
        return R"({"a":{"dtype":"F32","shape":[)" + shape + R"(],"data_offsets":[)" + offsets + "]}}";
    };
    EXPECT_TRUE(accepted(with("1", "0,4"), "xxxx"));
    EXPECT_FALSE(accepted(with("1", "4,0"), "xxxx"));
    EXPECT_FALSE(accepted(with("2", "0,4"), "xxxx"));
    EXPECT_FALSE(accepted(with(max, "0,4"), "xxxx"));
    EXPECT_FALSE(accepted(with("4611686018427387905", "0,4"), "xxxx"));  // times 4 wraps to 4
    EXPECT_FALSE(accepted(with("4294967296,4294967296", "0,0"), ""));    // wraps to 0
    EXPECT_FALSE(accepted(with("4294967296,4294967296,0", "0,0"), ""));
    EXPECT_FALSE(accepted(with("1", max + ',' + max), "xxxx"));
    EXPECT_FALSE(accepted(with("1", "0,18446744073709551616"), "xxxx"));
    EXPECT_FALSE(accepted(with("0", max + ',' + max), ""));
    for (const char* bad : {"-1", "1.0", "1e0", "01", "+1", "\"1\"", "true", "null", "[1]", "1,"}) {
        EXPECT_FALSE(accepted(with(bad, "0,4"), "xxxx")) << bad;
    }
    EXPECT_FALSE(accepted(with("1", "0"), "xxxx"));
    EXPECT_FALSE(accepted(with("1", "0,4,4"), "xxxx"));
}

TEST(Safetensors, HeaderLengthsThatLieAreRefused) {
    const std::string header = "{" + entry("a", "U8", "2", 0, 2) + "}";
    ASSERT_TRUE(parse(safetensors(header, "xx")));
    for (std::uint64_t length :
         {std::uint64_t{0}, std::uint64_t{1}, header.size() - 1, header.size() + 1, header.size() + 2,
          header.size() + 3, std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0},
          ~std::uint64_t{0} - 7, ~std::uint64_t{0} - 8}) {
        EXPECT_FALSE(parse(safetensors(header, "xx", length))) << length;
    }
}

TEST(Safetensors, DuplicatesAreRefused) {
    const std::string empty = entry("a", "U8", "0", 0, 0);
    EXPECT_TRUE(accepted("{" + empty + "}", ""));
    EXPECT_FALSE(accepted("{" + empty + "," + empty + "}", ""));
    EXPECT_FALSE(accepted("{" + empty + R"(,"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", ""));
    EXPECT_FALSE(accepted(R"({"__metadata__":{},"__metadata__":{}})", ""));
    EXPECT_FALSE(accepted(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", ""));
    EXPECT_FALSE(accepted(R"({"a":{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}})", ""));
    EXPECT_FALSE(accepted(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"data_offsets":[0,0]}})", ""));
}

TEST(Safetensors, BrokenJsonIsRefused) {
    const std::string good = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    ASSERT_TRUE(accepted("{" + good + "}", ""));
    for (const std::string& header : {"{" + good,
                                      "{" + good + ",}",
                                      "{" + good + "}}",
                                      "{" + good + "} x",
                                      "{," + good + "}",
                                      "{" + good + good + "}",
                                      std::string("{\"a\"}"),
                                      std::string("{\"a\":}"),
                                      std::string("{\"a\":1}"),
                                      std::string("{\"a\":[]}"),
                                      std::string("{\"a\":{}}"),
                                      std::string("{a:1}"),
                                      std::string("[]"),
                                      std::string("{'a':1}"),
                                      std::string(R"({"a":{"dtype":"U8","shape":[0]}})"),
                                      std::string(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})"),
                                      std::string(R"({"a":{"shape":[0],"data_offsets":[0,0]}})"),
                                      std::string(R"({"a":{"dtype":1,"shape":[0],"data_offsets":[0,0]}})"),
                                      "{" + good + R"(,"__metadata__":{"a":tru}})",
                                      "{" + good + R"(,"__metadata__":{"a":-}})",
                                      "{" + good + R"(,"__metadata__":{"a":1.}})",
                                      "{" + good + R"(,"__metadata__":{"a":1e}})",
                                      "{" + good + R"(,"__metadata__":{"a":[1}})",
                                      "{" + good + R"(,"__metadata__":[1}])"}) {
        EXPECT_FALSE(accepted(header, "")) << header;
    }
}

TEST(Safetensors, BadTextIsRefused) {
    auto with = [](const std::string& name) { return "{" + entry(name, "U8", "0", 0, 0) + "}"; };
    EXPECT_TRUE(accepted(with("a\\u0000b"), ""));
    for (const std::string& name :
         {std::string("\x80"), std::string("\xc0\x80"), std::string("\xed\xa0\x80"), std::string("\xf4\x90\x80\x80"),
          std::string("\xf0\x8f\xbf\xbf"), std::string("\xe2\x82"), std::string("\xff"), std::string("a\0b", 3),
          std::string("a\nb"), std::string("\\x"), std::string("\\u12"), std::string("\\u12g4"), std::string("\\ud800"),
          std::string("\\ud800x"), std::string("\\ud800\\n"), std::string("\\ud800\\u0041"), std::string("\\udc00"),
          std::string("\xc3\\n")}) {
        EXPECT_FALSE(accepted(with(name), "")) << name;
        EXPECT_FALSE(accepted(R"({"__metadata__":{"k":")" + name + "\"}}", "")) << name;
    }
}

TEST(Safetensors, NestingAndLengthsAreBounded) {
    auto nested = [](std::size_t depth) {
        return R"({"__metadata__":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
    };
    EXPECT_TRUE(accepted(nested(4), ""));
    EXPECT_TRUE(accepted(R"({"__metadata__":{"a":{"b":[[]]}}})", ""));
    EXPECT_FALSE(accepted(nested(6), ""));
    EXPECT_FALSE(accepted(nested(1'000'000), ""));
    EXPECT_TRUE(accepted("{" + entry(std::string(1024, 'n'), "U8", "0", 0, 0) + "}", ""));
    EXPECT_FALSE(accepted("{" + entry(std::string(1025, 'n'), "U8", "0", 0, 0) + "}", ""));
    EXPECT_TRUE(accepted(R"({"__metadata__":{"a":")" + std::string(300'000, 'v') + "\"}}", ""));
    std::string ones = "1";
    for (int i = 1; i < 64; ++i) ones += ",1";
    EXPECT_TRUE(accepted("{" + entry("a", "U8", ones, 0, 1) + "}", "x"));
    EXPECT_FALSE(accepted("{" + entry("a", "U8", ones + ",1", 0, 1) + "}", "x"));
}

}  // namespace
}  // namespace coral::formats::test
