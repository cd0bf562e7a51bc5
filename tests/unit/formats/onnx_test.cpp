// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

using namespace std::string_literals;

constexpr std::uint64_t kFloat = 1, kInt64 = 7, kDouble = 11, kUint4 = 21, kFloat4 = 23;

std::string initializer(const std::string& tensor) {
    return proto(5, tensor);
}

std::string node(const std::string& fields) {
    return proto(1, fields);
}

// Packed floats: field 4 of a tensor, or doubles: field 10.
std::string typed(std::uint64_t type, std::uint64_t field, const std::string& data) {
    return proto(1, 2) + proto(2, type) + proto(field, data) + proto(8, "t"s);
}

bool accepted(const std::string& graph) {
    return parse(onnx(graph)).has_value();
}

std::size_t tensors_in(const std::string& graph) {
    auto layout = parse(onnx(graph));
    EXPECT_TRUE(layout);
    return layout ? layout->tensors.size() : 0;
}

TEST(Onnx, InitializersByName) {
    const std::string file = onnx(initializer(onnx_tensor("w", kFloat, {2, 1}, "abcdefgh")) +
                                  initializer(onnx_tensor("s", kInt64, {}, "12345678")));
    auto layout = parse(file);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->parser, Parser::kOnnx);
    ASSERT_EQ(layout->tensors.size(), 2U);
    const Tensor w = find(layout, "w");
    EXPECT_EQ(w, (Tensor{"w", Dtype::kF32, false, {2, 1}, file.find("abcdefgh"), 8}));
    EXPECT_EQ(bytes_of(file, find(layout, "s")), "12345678");
}

TEST(Onnx, EveryType) {
    const std::vector<std::pair<Dtype, std::size_t>> types{
        {Dtype::kUnknown, 7},    {Dtype::kF32, 32},      {Dtype::kU8, 8},         {Dtype::kI8, 8},
        {Dtype::kU16, 16},       {Dtype::kI16, 16},      {Dtype::kI32, 32},       {Dtype::kI64, 64},
        {Dtype::kUnknown, 7},    {Dtype::kBool, 8},      {Dtype::kF16, 16},       {Dtype::kF64, 64},
        {Dtype::kU32, 32},       {Dtype::kU64, 64},      {Dtype::kC64, 64},       {Dtype::kC128, 128},
        {Dtype::kBF16, 16},      {Dtype::kF8E4M3, 8},    {Dtype::kF8E4M3Fnuz, 8}, {Dtype::kF8E5M2, 8},
        {Dtype::kF8E5M2Fnuz, 8}, {Dtype::kQuantised, 4}, {Dtype::kQuantised, 4},  {Dtype::kF4, 4},
        {Dtype::kF8E8M0, 8},     {Dtype::kQuantised, 2}, {Dtype::kQuantised, 2},  {Dtype::kUnknown, 7}};
    for (std::uint64_t type = 0; type < types.size(); ++type) {
        const std::string data(types[type].second, 'x');
        auto layout = parse(onnx(initializer(onnx_tensor("t", type, {8}, data))));
        const Tensor t = find(layout, "t");
        EXPECT_EQ(t.dtype, types[type].first) << type;
        EXPECT_EQ(t.length, data.size()) << type;
        const bool known = types[type].first != Dtype::kUnknown;
        EXPECT_EQ(tensors_in(initializer(onnx_tensor("t", type, {8}, data + "y"))), known ? 0U : 1U) << type;
    }
}

TEST(Onnx, HalvesOfABytesFillTheLastOneUp) {
    EXPECT_EQ(find(parse(onnx(initializer(onnx_tensor("t", kUint4, {3}, "xx")))), "t").length, 2U);
    EXPECT_EQ(find(parse(onnx(initializer(onnx_tensor("t", kFloat4, {3}, "xx")))), "t").dtype, Dtype::kQuantised);
    EXPECT_EQ(tensors_in(initializer(onnx_tensor("t", kUint4, {3}, "x"))), 0U);
}

TEST(Onnx, PackedFloatsAndDoubles) {
    EXPECT_EQ(find(parse(onnx(initializer(typed(kFloat, 4, "abcdefgh")))), "t").length, 8U);
    EXPECT_EQ(find(parse(onnx(initializer(typed(kDouble, 10, std::string(16, 'x'))))), "t").dtype, Dtype::kF64);
    EXPECT_EQ(tensors_in(initializer(typed(kInt64, 7, "\x01\x02"))), 0U);   // varints
    EXPECT_EQ(tensors_in(initializer(typed(kDouble, 4, "abcdefgh"))), 0U);  // floats that are to be doubles
    EXPECT_EQ(tensors_in(initializer(typed(kFloat, 10, "abcdefgh"))), 0U);
    EXPECT_FALSE(accepted(initializer(typed(kFloat, 4, "abcdefg"))));  // no whole number of floats
    const std::string two_pieces = typed(kFloat, 4, "abcd") + proto(4, "efgh"s);
    EXPECT_EQ(tensors_in(initializer(two_pieces)), 0U);
    const std::string one_by_one = proto(1, 1) + proto(2, kFloat) + varint(4 << 3 | 5) + "abcd";
    EXPECT_EQ(tensors_in(initializer(one_by_one)), 0U);
    EXPECT_EQ(tensors_in(initializer(typed(kFloat, 4, "abcdefgh") + proto(9, "abcdefgh"s))), 0U);  // which of them?
}

TEST(Onnx, ElementsElsewhereAreNotHere) {
    const std::string tensor = onnx_tensor("w", kFloat, {1}, "abcd");
    EXPECT_EQ(tensors_in(initializer(tensor + proto(14, 0))), 1U);
    EXPECT_EQ(tensors_in(initializer(tensor + proto(14, 1))), 0U);
    EXPECT_EQ(tensors_in(initializer(tensor + proto(3, ""s))), 0U);  // a segment
    EXPECT_EQ(tensors_in(initializer(proto(1, 1) + proto(2, kFloat))), 0U);
    EXPECT_FALSE(accepted(initializer(tensor + proto(9, "abcd"s))));
}

TEST(Onnx, TensorsInNodesAndTheirNames) {
    const std::string named = onnx_constant("out", onnx_tensor("in.tensor", kFloat, {1}, "aaaa"));
    const std::string nameless = onnx_constant("out2", onnx_tensor("", kFloat, {1}, "bbbb"));
    const std::string of_nothing = onnx_constant("", onnx_tensor("", kFloat, {1}, "cccc"));
    const std::string other = proto(2, "y"s) + proto(3, "node"s) +
                              proto(5, proto(1, "scales"s) + proto(5, onnx_tensor("", kFloat, {1}, "dddd")));
    const std::string list =
        proto(3, "n"s) + proto(5, proto(1, "ts"s) + proto(10, onnx_tensor("", kFloat, {1}, "eeee")) +
                                      proto(10, onnx_tensor("", kFloat, {1}, "ffff")));
    const std::string file = onnx(node(named) + node(nameless) + node(of_nothing) + node(other) + node(list));
    auto layout = parse(file);
    for (const auto& [name, data] : std::vector<std::pair<std::string, std::string>>{{"in.tensor", "aaaa"},
                                                                                     {"out2", "bbbb"},
                                                                                     {"tensor:0", "cccc"},
                                                                                     {"y.scales", "dddd"},
                                                                                     {"n.ts.0", "eeee"},
                                                                                     {"n.ts.1", "ffff"}}) {
        EXPECT_EQ(bytes_of(file, find(layout, name)), data);
    }
}

std::string branch(const std::string& attribute, const std::string& graph) {
    return proto(5, proto(1, attribute) + proto(6, graph) + proto(20, 5));
}

TEST(Onnx, GraphsInNodesHaveTheirPath) {
    const std::string inner = initializer(onnx_tensor("w", kFloat, {1}, "aaaa")) +
                              node(onnx_constant("c", onnx_tensor("", kFloat, {1}, "bbbb")));
    const std::string body =
        node(proto(2, "deep"s) + branch("body", initializer(onnx_tensor("w", kFloat, {1}, "cccc"))));
    const std::string with_list = node(proto(3, "L"s) + proto(5, proto(1, "gs"s) + proto(11, ""s) + proto(11, inner)));
    const std::string file =
        onnx(node(proto(2, "y"s) + proto(3, "If_0"s) + branch("then_branch", inner) + branch("else_branch", body)) +
             with_list);
    auto layout = parse(file);
    EXPECT_EQ(bytes_of(file, find(layout, "If_0.then_branch.w")), "aaaa");
    EXPECT_EQ(bytes_of(file, find(layout, "If_0.then_branch.c")), "bbbb");
    EXPECT_EQ(bytes_of(file, find(layout, "If_0.else_branch.deep.body.w")), "cccc");
    EXPECT_EQ(bytes_of(file, find(layout, "L.gs.1.w")), "aaaa");
}

TEST(Onnx, SparseTensorsFunctionsAndTraining) {
    const std::string values = proto(1, onnx_tensor("sparse", kFloat, {1}, "vvvv"));
    const std::string indices = proto(2, onnx_tensor("", kInt64, {1}, "iiiiiiii"));
    const std::string graph = proto(15, values + indices + proto(3, 5));
    const std::string function = proto(1, "F"s) + proto(7, onnx_constant("z", onnx_tensor("", kFloat, {1}, "ffff")));
    const std::string training = proto(1, initializer(onnx_tensor("w", kFloat, {1}, "tttt")));
    const std::string file = onnx(graph) + proto(20, training) + proto(25, function);
    auto layout = parse(file);
    EXPECT_EQ(bytes_of(file, find(layout, "sparse")), "vvvv");
    EXPECT_EQ(bytes_of(file, find(layout, "tensor:0")), "iiiiiiii");
    EXPECT_EQ(bytes_of(file, find(layout, "F.z")), "ffff");
    EXPECT_EQ(bytes_of(file, find(layout, "initialization.w")), "tttt");
}

TEST(Onnx, DimensionsMayBePacked) {
    const std::string packed = proto(1, "\x02\x01"s) + proto(2, kFloat) + proto(8, "t"s) + proto(9, "abcdefgh"s);
    EXPECT_EQ(find(parse(onnx(initializer(packed))), "t").shape, (std::vector<std::uint64_t>{2, 1}));
    const std::string cut = proto(1, "\x82"s) + proto(2, kFloat) + proto(9, "abcdefgh"s);
    EXPECT_FALSE(accepted(initializer(cut)));
    EXPECT_EQ(tensors_in(initializer(onnx_tensor("t", kFloat, {~0ULL}, "abcd"))), 0U);
    EXPECT_EQ(tensors_in(initializer(onnx_tensor("t", kFloat, {1ULL << 62, 4}, ""))), 0U);
    EXPECT_EQ(tensors_in(initializer(onnx_tensor("t", kFloat, {0, 5}, ""))), 1U);
    EXPECT_EQ(tensors_in(initializer(onnx_tensor("t", 2, std::vector<std::uint64_t>(64, 1), "x"))), 1U);
    EXPECT_FALSE(accepted(initializer(onnx_tensor("t", 2, std::vector<std::uint64_t>(65, 1), "x"))));
}

// Many files are protobuf, and many more can be taken for it.
TEST(Onnx, WhatIsNotAWholeModelIsNone) {
    const std::string graph = initializer(onnx_tensor("w", kFloat, {1}, "abcd")), opset = proto(8, ""s);
    EXPECT_TRUE(parse(proto(1, 8) + proto(7, graph) + opset));
    EXPECT_FALSE(parse(proto(1, 8) + proto(7, graph)));  // no opset
    EXPECT_TRUE(parse(proto(1, 2) + proto(7, graph)));   // before there were any
    EXPECT_FALSE(parse(proto(1, 8) + opset));            // no graph
    EXPECT_FALSE(parse(proto(7, graph) + opset));        // no ir_version
    EXPECT_FALSE(parse(proto(1, 0) + proto(7, graph) + opset));
    EXPECT_FALSE(parse(proto(1, 1001) + proto(7, graph) + opset));
    EXPECT_FALSE(parse(onnx(graph) + proto(7, graph)));      // two graphs
    EXPECT_FALSE(parse(onnx(graph) + "\x08"));               // a field that ends early
    EXPECT_FALSE(parse(onnx(graph) + '\0'));                 // field 0
    EXPECT_FALSE(parse(onnx(graph) + varint(30 << 3 | 3)));  // a group
    EXPECT_FALSE(parse(onnx(graph) + varint(30 << 3 | 6)));
    EXPECT_TRUE(parse(onnx(graph) + proto(30, 1)));         // a field of a later version
    EXPECT_FALSE(parse(onnx(graph) + varint(1ULL << 35)));  // a number that no field has
    for (std::uint64_t field : {2, 3, 4, 6, 8, 14, 20, 25}) EXPECT_FALSE(parse(onnx(graph) + proto(field, 1))) << field;
    for (std::uint64_t field : {1, 2, 5, 10, 11, 12, 13, 15}) EXPECT_FALSE(accepted(proto(field, 1))) << field;
    for (std::uint64_t field : {1, 2, 3, 4, 5, 6, 7}) EXPECT_FALSE(accepted(node(proto(field, 1)))) << field;
    for (std::uint64_t field : {2, 14}) EXPECT_FALSE(accepted(initializer(proto(field, "x"s)))) << field;
    EXPECT_FALSE(parse(std::string(1000, '\x08')));
}

TEST(Onnx, VarintsHaveTenBytesAtMost) {
    const std::string graph = initializer(onnx_tensor("w", kFloat, {1}, "abcd"));
    const std::string most = std::string(9, '\xff') + "\x01", more = std::string(9, '\xff') + "\x02";
    EXPECT_TRUE(parse(onnx(graph) + varint(5 << 3) + most));
    EXPECT_FALSE(parse(onnx(graph) + varint(5 << 3) + more));
    EXPECT_FALSE(parse(onnx(graph) + varint(5 << 3) + std::string(10, '\x80') + "\x01"));
}

// Each length in turn is one more, one less, huge.
TEST(Onnx, EveryLengthCountsItsOwnBytes) {
    const std::string tensor = onnx_tensor("w", kFloat, {1}, "abcd");
    for (std::uint64_t lie : {0ULL, 1ULL, 3ULL, 5ULL, 1000ULL, 1ULL << 31, 1ULL << 32, (1ULL << 63) - 1, ~0ULL - 1}) {
        const std::string lying = proto(1, 1) + proto(2, kFloat) + proto(9, "abcd"s, lie);
        EXPECT_FALSE(accepted(initializer(lying))) << lie;
        if (lie != 0) {
            EXPECT_FALSE(accepted(proto(5, tensor, lie))) << lie;
            EXPECT_FALSE(parse(proto(1, 8) + proto(8, ""s) + proto(7, proto(5, tensor), lie))) << lie;
        }
    }
}

TEST(Onnx, EveryPrefixOfAModel) {
    const std::string file = proto(1, 8) + proto(8, ""s) + proto(7, initializer(onnx_tensor("w", kFloat, {1}, "abcd")));
    ASSERT_TRUE(parse(file));
    for (std::size_t n = 0; n < file.size(); ++n) EXPECT_FALSE(parse(file.substr(0, n))) << n;
}

TEST(Onnx, NamesThatAreNone) {
    for (const std::string& name : {""s, std::string(1025, 'n'), "\xff"s}) {
        EXPECT_EQ(find(parse(onnx(initializer(onnx_tensor(name, kFloat, {1}, "abcd")))), "tensor:0").length, 4U);
    }
    const std::string longest(1024, 'n');
    EXPECT_EQ(find(parse(onnx(initializer(onnx_tensor(longest, kFloat, {1}, "abcd")))), longest).length, 4U);
    const std::string inside = branch("b", initializer(onnx_tensor("w", kFloat, {1}, "abcd")));
    EXPECT_EQ(find(parse(onnx(node(proto(3, longest) + inside))), "tensor:0").length, 4U);
}

}  // namespace
}  // namespace coral::formats::test
