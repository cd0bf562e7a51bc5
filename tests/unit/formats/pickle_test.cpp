// SPDX-License-Identifier: Apache-2.0
// The pickle interpreter through the torch parser, opcode by opcode: whatever stands around it, the tensor is found.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

using namespace std::string_literals;

// The only tensor's name, "storage:0" when the pickle gave none, and "!" before it when its dtype is unknown.
std::string name_of(const Pickle& pickle) {
    auto layout = parse(torch_zip(pickle.stop(), {{"data/0", "abcd"}}));
    if (!layout || layout->tensors.size() != 1) return "?";
    const Tensor& tensor = layout->tensors[0];
    return (tensor.dtype == Dtype::kUnknown ? "!" : "") + tensor.name;
}

Pickle& add_tensor(Pickle& pickle) {
    return pickle.tensor("FloatStorage", "0", 1, {1});
}

// {"before": <value>, "w": tensor}
std::string name_after(const std::string& value) {
    Pickle pickle;
    add_tensor(pickle.raw("}(").text("before").raw(value).text("w")).raw("u");
    return name_of(pickle);
}

TEST(Pickle, EveryValueThatTorchWritesIsStepped) {
    const std::string text = "X" + le(2, 4) + "ab";
    const std::string numpy_scalar = "cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(" + text + "K\0K\1tR(K\3"s +
                                     text + "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbc_codecs\nencode\n("s + text +
                                     text + "tRtR";
    const std::vector<std::string> values{
        // constants and numbers
        "N"s, "\x88"s, "\x89"s, "K\1"s, "M\1\2"s, "J\1\2\3\4"s, "G" + std::string(8, 'd'), "\x8a\0"s, "\x8a\2\1\2"s,
        "\x8a\x20" + std::string(32, 'i'), "\x8b" + le(3, 4) + "abc", "\x8b" + le(300, 4) + std::string(300, 'i'),
        // texts and bytes
        text, "\x8c\3abc"s, "\x8d" + le(3, 8) + "abc", "T" + le(3, 4) + "abc", "U\3abc"s,
        "X" + le(70000, 4) + std::string(70000, 't'), "C\2ab"s, "B" + le(2, 4) + "ab", "\x8e" + le(2, 8) + "ab",
        "\x96" + le(2, 8) + "ab", "B" + le(200000, 4) + std::string(200000, 'b'),
        // containers
        ")"s, "]"s, "}"s, "\x8f"s, "(K\1t"s, "K\1\x85"s, "K\1K\2\x86"s, "K\1K\2K\3\x87"s, "(K\1l"s, "(K\1K\2d"s,
        "(K\1\x91"s, "\x8f(K\1\x90"s, "]K\1a"s, "](K\1K\2e"s, "}K\1K\2s"s, "}(K\1K\2u"s,
        // stack, memo, frames
        "K\1K\2\x30"s, "K\1(K\2\x31"s, "K\1(0"s, "K\1\x32\x30"s, "K\1q\0h\0\x30"s,
        "K\1r" + le(0, 4) + "j" + le(0, 4) + "0", "K\1\x94"s, "\x95" + le(1, 8) + "N", "\x80\4N"s,
        // globals and calls
        "cnumpy\nfloat64\n"s, "\x8c\5numpy\x8c\7\x66loat64\x93"s, numpy_scalar, "ccollections\nOrderedDict\n)R}b"s,
        "c__builtin__\nset\n(](K\1K\2etR"s, "cmy.module\nThing\n)\x81}b"s, "cmy.module\nThing\n)}\x92"s,
        "cmy.module\nList\n)\x81(K\1K\2e"s, "cmy.module\nDict\n)\x81(K\1K\2u"s, "NQ"s, "(K\1K\2K\3tQ"s,
        // what Python would refuse, but costs nothing here
        "K\1(K\2K\3u"s, "K\1(K\2e"s, "K\1Nb"s};
    for (const std::string& value : values) EXPECT_EQ(name_after(value), "w") << testing::PrintToString(value);
}

TEST(Pickle, WhatBreaksItEndsItQuietly) {
    const std::vector<std::string> values{
        // nothing to work on
        "t"s, "u"s, "e"s, "a"s, "R"s, "b"s, "Q"s, "0"s, "1"s, "2"s, "\x85"s, "\x93"s, "q\0"s, "."s,
        // places and lengths that are not there
        "h\0"s, "j\xff\xff\xff\xff"s, "r" + le(0xffffffff, 4), "X" + le(0xffffffff, 4), "\x8d" + le(~0ULL, 8),
        "\x8e" + le(1ULL << 63, 8), "\x8b" + le(0xffffffff, 4), "\x95" + le(~0ULL, 8), "c no newline"s,
        // opcodes that torch never wrote, and what is none
        "I1\n"s, "\x82\1"s, "\x97"s, "(i"s, "o"s, "P0\n"s, "\0"s, "\xff"s,
        // keys without values
        "}(K\1u"s, "(K\1d"s};
    for (const std::string& value : values) {
        EXPECT_EQ(name_of(Pickle().raw(value)), "!storage:0");
        Pickle inside;
        add_tensor(inside.raw("}(").text("w")).text("x").raw("(").raw(value);
        const std::string name = name_of(inside);
        EXPECT_TRUE(name == "w" || name == "storage:0" || name == "!storage:0") << name;
    }
}

// A global is a word, never a thing: what would run under Python leaves no trace and does not even stop the parser.
TEST(Pickle, NothingIsEverRun) {
    const std::string mark = testing::TempDir() + "coral-pickle-mark";
    std::remove(mark.c_str());
    for (const char* module : {"os", "posix", "subprocess", "builtins", "__builtin__", "torch._utils"}) {
        for (const char* name : {"system", "Popen", "eval", "exec", "call"}) {
            Pickle pickle;
            pickle.raw("}(").text("evil").global(module, name).raw("(").text("touch " + mark).raw("tR");
            add_tensor(pickle.text("w")).raw("u");
            EXPECT_EQ(name_of(pickle), "w");
        }
    }
    EXPECT_FALSE(std::ifstream(mark).good());
}

TEST(Pickle, MemoGivesTheSameObject) {
    Pickle pickle;  // w = T; list = [T]; a list that holds itself
    add_tensor(pickle.raw("}(").text("l").raw("]q").raw(le(0, 1)).raw("(h").raw(le(0, 1)));
    pickle.raw("q").raw(le(1, 1)).raw("e").text("w").raw("h").raw(le(1, 1)).raw("u");
    EXPECT_EQ(name_of(pickle), "l.1");
}

TEST(Pickle, WrappersAreSeenThrough) {
    auto wrapped = [](const std::string& module, const std::string& name, const std::string& rest) {
        Pickle pickle;
        add_tensor(pickle.raw("}").text("w").global(module, name).raw("(")).raw(rest).raw("tRs");
        return name_of(pickle);
    };
    EXPECT_EQ(wrapped("torch._utils", "_rebuild_parameter", "\x88}"), "w");
    EXPECT_EQ(wrapped("torch._utils", "_rebuild_parameter_with_state", "\x88}}"), "w");
    EXPECT_EQ(wrapped("torch.nn.parameter", "Parameter", "\x89"), "w");
    EXPECT_EQ(wrapped("builtins", "set", ""), "w");
    EXPECT_EQ(wrapped("my.module", "Wrapper", ""), "w.0");
    EXPECT_EQ(wrapped("torch._utils", "_rebuild_tensor_v2", "K\0"s), "w.0");  // not over a storage
}

TEST(Pickle, SubclassesAreRebuiltAsWhatTheyAre) {
    Pickle pickle;
    pickle.raw("}").text("w").global("torch._tensor", "_rebuild_from_type_v2").raw("(");
    pickle.global("torch._utils", "_rebuild_tensor").global("my", "Tensor").raw("(");
    pickle.storage("FloatStorage", "0", 1).integer(0).tuple({1}).tuple({1}).raw("t}tRs");
    EXPECT_EQ(name_of(pickle), "w");
    Pickle object;  // a subclass that is no tensor to us: its attributes are what it holds
    object.raw("}").text("w").global("torch._tensor", "_rebuild_from_type_v2").raw("(");
    object.global("my", "make").global("my", "Quantised").raw(")}").text("data");
    add_tensor(object).raw("stRs");
    EXPECT_EQ(name_of(object), "w.data");
}

TEST(Pickle, StatesWithSlotsAreAttributes) {
    Pickle pickle;
    pickle.global("my", "Thing").raw(")\x81N}").text("slot");
    add_tensor(pickle).raw(
        "s\x86"
        "b");
    EXPECT_EQ(name_of(pickle), "slot");
}

TEST(Pickle, BadTensorArgumentsCostOnlyTheShape) {
    auto with = [](const std::string& arguments) {
        Pickle pickle;
        pickle.raw("}").text("w").global("torch._utils", "_rebuild_tensor_v2").raw("(").storage("FloatStorage", "0", 1);
        pickle.raw(arguments).raw("tRs");
        return name_of(pickle);
    };
    for (const std::string& arguments : {""s, "K\0"s, "NNN"s, "K\0NN"s, "K\0(t)"s, "K\0(J\xff\xff\xff\xfft(K\1t"s,
                                         "K\0(K\1K\1t(K\1t"s, "K\0((tt(K\1t"s}) {
        EXPECT_EQ(with(arguments), "w");
    }
}

}  // namespace
}  // namespace coral::formats::test
