// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

using Shape = std::vector<std::uint64_t>;

// {"w": a tensor of 2 x 3 floats over data/0}
Pickle one_tensor() {
    return Pickle().raw("}").text("w").tensor("FloatStorage", "0", 6, {2, 3}).raw("s");
}
Member storage(const std::string& key, std::size_t size) {
    return {"data/" + key, std::string(size, 's')};
}

TEST(TorchZip, FindsAStorage) {
    for (int bits = 0; bits < 16; ++bits) {
        ZipOptions options;
        options.zip64_members = bits & 1;
        options.zip64_end = bits & 2;
        options.descriptors = bits & 4;
        options.align = bits & 8;
        const std::string file = torch_zip(one_tensor().stop(), {{"data/0", "abcdefghijklmnopqrstuvwx"}}, options);
        auto layout = parse(file);
        ASSERT_TRUE(layout);
        EXPECT_EQ(layout->parser, Parser::kTorchZip);
        ASSERT_EQ(layout->tensors.size(), 1U);
        Tensor tensor = find(layout, "w");
        EXPECT_EQ(bytes_of(file, tensor), "abcdefghijklmnopqrstuvwx");
        EXPECT_EQ(tensor.dtype, Dtype::kF32);
        EXPECT_EQ(tensor.shape, (Shape{2, 3}));
    }
}

TEST(TorchZip, TheArchiveHasAnyName) {
    for (const std::string name : {"archive", "my model.v2", "\xc3\xa9", "."}) {
        auto layout = parse(zip({{name + "/data.pkl", one_tensor().stop()}, {name + "/data/0", std::string(24, 'x')}}));
        EXPECT_EQ(find(layout, "w").length, 24U);
    }
    EXPECT_FALSE(parse(zip({{"data.pkl", one_tensor().stop()}, {"data/0", std::string(24, 'x')}})));
    EXPECT_FALSE(parse(zip({{"a/data.pk", "x"}, {"a/data/0", "x"}})));
    EXPECT_FALSE(parse(zip({{"other/x", "x"}, {"a/data.pkl", one_tensor().stop()}})));
}

TEST(TorchZip, TiedAndSlicedTensorsAreOneStorage) {
    Pickle pickle;
    pickle.raw("}(");
    pickle.text("part").tensor("HalfStorage", "0", 8, {2}, 3);
    pickle.text("strided").tensor("HalfStorage", "0", 8, {4, 2}, 0, {1, 4});
    pickle.text("first whole").tensor("HalfStorage", "0", 8, {4, 2});
    pickle.text("second whole").tensor("HalfStorage", "0", 8, {8});
    pickle.raw("u");
    auto layout = parse(torch_zip(pickle.stop(), {storage("0", 16)}));
    ASSERT_TRUE(layout);
    ASSERT_EQ(layout->tensors.size(), 1U);
    EXPECT_EQ(layout->tensors[0].name, "part");
    EXPECT_EQ(layout->tensors[0].shape, (Shape{4, 2}));
}

TEST(TorchZip, ShapeIsFlatWhereNoTensorCoversTheStorage) {
    struct Case {
        Shape shape;
        std::uint64_t offset;
        Shape stride;
        Shape expected;
    };
    for (const Case& c : {Case{{2, 3}, 0, {3, 1}, {2, 3}}, Case{{2, 3}, 0, {1, 2}, {6}}, Case{{2, 2}, 0, {}, {6}},
                          Case{{2, 3}, 1, {}, {6}}, Case{{6}, 0, {0}, {6}}, Case{{1, 6, 1}, 0, {9, 1, 7}, {1, 6, 1}},
                          Case{{3, 2}, 0, {3, 1}, {6}}, Case{{6, 1ULL << 40, 1ULL << 40}, 0, {1, 1, 1}, {6}}}) {
        Pickle pickle;
        pickle.raw("}").text("w").tensor("FloatStorage", "0", 6, c.shape, c.offset, c.stride).raw("s");
        EXPECT_EQ(find(parse(torch_zip(pickle.stop(), {storage("0", 24)})), "w").shape, c.expected);
    }
}

TEST(TorchZip, NestedContainersGiveThePath) {
    Pickle pickle;
    pickle.raw("}(").text("optimizer").raw("}(").text("state").raw("}").integer(7).raw("}");
    pickle.text("exp_avg").tensor("DoubleStorage", "1", 1, {}).raw("ss");
    pickle.text("list").raw("](").integer(1).tensor("LongStorage", "2", 1, {1}).raw("e");
    pickle.text("tuple").tensor("CharStorage", "3", 1, {1}).raw("\x85u");
    pickle.text("model").global("collections", "OrderedDict").raw(")R(");
    pickle.text("layer.0.weight").tensor("BFloat16Storage", "0", 1, {1}).raw("uu");
    auto layout = parse(torch_zip(pickle.stop(), {storage("0", 2), storage("1", 8), storage("2", 8), storage("3", 1)}));
    EXPECT_EQ(find(layout, "optimizer.state.7.exp_avg").dtype, Dtype::kF64);
    EXPECT_EQ(find(layout, "optimizer.list.1").dtype, Dtype::kI64);
    EXPECT_EQ(find(layout, "optimizer.tuple.0").dtype, Dtype::kI8);
    EXPECT_EQ(find(layout, "model.layer.0.weight").dtype, Dtype::kBF16);
}

TEST(TorchZip, BigEndianIsTold) {
    Pickle pickle;
    pickle.raw("}(")
        .text("w")
        .tensor("FloatStorage", "0", 1, {1})
        .text("b")
        .tensor("ByteStorage", "1", 1, {1})
        .raw("u");
    auto with = [&](const std::string& order) {
        return parse(
            torch_zip(pickle.stop(), {{"byteorder", order}, storage("0", 4), storage("1", 1), storage("2", 8)}));
    };
    EXPECT_TRUE(find(with("big"), "w").big_endian);
    EXPECT_FALSE(find(with("big"), "b").big_endian);
    EXPECT_FALSE(find(with("big"), "storage:2").big_endian);
    EXPECT_FALSE(find(with("little"), "w").big_endian);
    EXPECT_FALSE(find(with("wrong"), "w").big_endian);
}

TEST(TorchZip, UntypedStoragesTakeTheDtypeOfTheirTensor) {
    auto tensor = [](Pickle& pickle, const std::string& key, std::uint64_t bytes, Shape shape,
                     const std::string& dtype) {
        pickle.global("torch._utils", "_rebuild_tensor_v3").raw("((").text("storage");
        pickle.global("torch.storage", "UntypedStorage")
            .text(key)
            .text("cpu")
            .integer(static_cast<int>(bytes))
            .raw("tQ");
        pickle.integer(0).tuple(shape).raw("(");
        for (std::size_t i = 0; i < shape.size(); ++i)
            pickle.integer(i + 1 == shape.size() ? 1 : static_cast<int>(shape[i + 1]));
        pickle.raw("t\x89").raw("N").global("torch", dtype).raw("tR");
    };
    Pickle pickle;
    pickle.raw("}(").text("u16");
    tensor(pickle, "0", 12, {2, 3}, "uint16");
    pickle.text("f8");
    tensor(pickle, "1", 4, {4}, "float8_e5m2");
    pickle.text("f4");
    tensor(pickle, "2", 4, {2, 2}, "float4_e2m1fn_x2");
    pickle.text("odd");
    tensor(pickle, "3", 5, {2}, "uint16");
    pickle.text("strange");
    tensor(pickle, "4", 4, {4}, "bits8");
    pickle.raw("u");
    auto layout = parse(torch_zip(
        pickle.stop(), {storage("0", 12), storage("1", 4), storage("2", 4), storage("3", 5), storage("4", 4)}));
    EXPECT_EQ(find(layout, "u16").shape, (Shape{2, 3}));
    EXPECT_EQ(find(layout, "u16").dtype, Dtype::kU16);
    EXPECT_EQ(find(layout, "f8").dtype, Dtype::kF8E5M2);
    EXPECT_EQ(find(layout, "f4").dtype, Dtype::kF4);
    EXPECT_EQ(find(layout, "f4").shape, (Shape{2, 4}));
    EXPECT_EQ(find(layout, "odd").dtype, Dtype::kUnknown);
    EXPECT_EQ(find(layout, "strange").dtype, Dtype::kU8);
}

TEST(TorchZip, MembersThatDoNotFitAreOpaque) {
    Pickle pickle;
    pickle.raw("}(").text("good").tensor("FloatStorage", "0", 1, {1});
    pickle.text("short").tensor("FloatStorage", "1", 2, {2});
    pickle.text("missing").tensor("FloatStorage", "9", 2, {2});
    pickle.text("deflated").tensor("FloatStorage", "2", 1, {1});
    pickle.text("huge").tensor("FloatStorage", "3", (1ULL << 55) - 1, {1}).raw("u");
    auto layout =
        parse(torch_zip(pickle.stop(), {storage("0", 4), storage("1", 4), {"data/2", "zzzz", 8}, storage("3", 4)}));
    ASSERT_TRUE(layout);
    ASSERT_EQ(layout->tensors.size(), 1U);
    EXPECT_EQ(layout->tensors[0].name, "good");
}

TEST(TorchZip, WithoutAReadablePickleStoragesAreUnknown) {
    const std::string cut = one_tensor().bytes().substr(0, 12);
    const std::vector<Member> members{storage("0", 24), storage("k", 3), storage("sub/1", 2), {"data/dir/", ""}};
    for (const std::string& pickle : {std::string(), std::string("not a pickle"), cut, std::string(1, '\x80')}) {
        auto layout = parse(torch_zip(pickle, members));
        ASSERT_TRUE(layout);
        EXPECT_EQ(layout->tensors.size(), 3U);
        Tensor tensor = find(layout, "storage:0");
        EXPECT_EQ(tensor.dtype, Dtype::kUnknown);
        EXPECT_EQ(tensor.shape, (Shape{24}));
        EXPECT_EQ(find(layout, "storage:sub/1").length, 2U);
    }
    auto compressed = parse(zip({{"a/data.pkl", "deflate!", 8}, {"a/data/0", "x"}}));
    EXPECT_EQ(find(compressed, "storage:0").length, 1U);
}

TEST(TorchZip, APickleThatEndsEarlyKeepsWhatItFound) {
    Pickle pickle;
    pickle.raw("}(").text("model").raw("}(").text("w").tensor("FloatStorage", "0", 6, {2, 3}).text("x");
    pickle.raw("I1\n");  // an opcode of protocol 0
    auto layout = parse(torch_zip(pickle.stop(), {storage("0", 24), storage("1", 8)}));
    EXPECT_EQ(find(layout, "model.w").dtype, Dtype::kF32);
    EXPECT_EQ(find(layout, "storage:1").dtype, Dtype::kUnknown);
}

TEST(TorchZip, NamesFallBackToTheKey) {
    auto named = [](const std::string& key) {
        Pickle pickle;
        pickle.raw("}").text(key).tensor("ByteStorage", "0", 1, {1}).raw("s");
        auto layout = parse(torch_zip(pickle.stop(), {storage("0", 1)}));
        return layout && layout->tensors.size() == 1 ? layout->tensors[0].name : "?";
    };
    EXPECT_EQ(named("w"), "w");
    EXPECT_EQ(named(std::string(1024, 'w')), std::string(1024, 'w'));
    EXPECT_EQ(named(""), "storage:0");
    EXPECT_EQ(named("\xff"), "storage:0");
    EXPECT_EQ(named(std::string(1025, 'w')), "?0");  // too long to be kept as a text
    Pickle bare;
    bare.tensor("ByteStorage", "0", 1, {1});
    EXPECT_EQ(parse(torch_zip(bare.stop(), {storage("0", 1)}))->tensors[0].name, "storage:0");
}

TEST(TorchZip, TorchScriptHasConstantsToo) {
    Pickle module;
    module.global("__torch__.Net", "Net").raw(")\x81}(").text("training").raw("\x88");
    module.text("conv")
        .global("__torch__", "Conv")
        .raw(")\x81}(")
        .text("weight")
        .tensor("FloatStorage", "0", 1, {1})
        .raw("ub");
    module.text("table").global("torch.jit._pickle", "restore_type_tag").raw("}").text("x");
    module.tensor("FloatStorage", "1", 1, {1}).raw("s").text("Dict[str, Tensor]").raw("\x86Rub");
    Pickle constants;
    constants.raw("(").tensor("Float8_e4m3fnStorage", "0", 4, {4}).tensor("IntStorage", "1", 1, {}).raw("t");
    auto layout = parse(torch_zip(module.stop(), {storage("0", 4),
                                                  storage("1", 4),
                                                  {"code/__torch__.py", "zz", 8},
                                                  {"constants.pkl", constants.stop()},
                                                  {"constants/0", "abcd"},
                                                  {"constants/1", "abcd"},
                                                  {"constants/2", "abcd"}}));
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->tensors.size(), 5U);
    EXPECT_EQ(find(layout, "conv.weight").dtype, Dtype::kF32);
    EXPECT_EQ(find(layout, "table.x").dtype, Dtype::kF32);
    EXPECT_EQ(find(layout, "constants.0").dtype, Dtype::kF8E4M3);
    EXPECT_EQ(find(layout, "constants.1").dtype, Dtype::kI32);
    EXPECT_EQ(find(layout, "storage:constants/2").dtype, Dtype::kUnknown);
}

TEST(TorchZip, AModulePickledWholeHasTheNamesOfItsStateDict) {
    Pickle pickle;
    pickle.global("__main__", "Net").raw(")\x81}(").text("_parameters").raw("}").text("scale");
    pickle.tensor("FloatStorage", "0", 1, {1}).raw("s").text("_modules").raw("}").text("conv");
    pickle.global("torch.nn.modules.conv", "Conv2d").raw(")\x81}").text("_buffers").raw("}").text("b");
    pickle.tensor("FloatStorage", "1", 1, {1}).raw("ssbsub");
    auto layout = parse(torch_zip(pickle.stop(), {storage("0", 4), storage("1", 4)}));
    EXPECT_EQ(find(layout, "scale").length, 4U);
    EXPECT_EQ(find(layout, "conv.b").length, 4U);
    Pickle plain;  // the same keys in a dict of the user's are just keys
    plain.raw("}").text("_parameters").raw("}").text("x").tensor("FloatStorage", "0", 1, {1}).raw("ss");
    EXPECT_EQ(find(parse(torch_zip(plain.stop(), {storage("0", 4)})), "_parameters.x").length, 4U);
}

}  // namespace
}  // namespace coral::formats::test
