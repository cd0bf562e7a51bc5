// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

using namespace std::string_literals;

const std::string kFloats = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";

std::string array(const std::string& data = "abcdefgh") {
    return npy(kFloats, data);
}

TEST(Npz, EveryStoredArrayUnderItsName) {
    const std::string file = zip({{"w.npy", array()}, {"layer/b.npy", array("12345678")}, {"readme.txt", "text"}});
    auto layout = parse(file);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->parser, Parser::kNpz);
    ASSERT_EQ(layout->tensors.size(), 2U);
    EXPECT_EQ(bytes_of(file, find(layout, "w")), "abcdefgh");
    EXPECT_EQ(bytes_of(file, find(layout, "layer/b")), "12345678");
    EXPECT_EQ(find(layout, "w").dtype, Dtype::kF32);
    EXPECT_EQ(find(layout, "w").shape, std::vector<std::uint64_t>{2});
}

TEST(Npz, Zip64AsNumpyWritesIt) {
    ZipOptions options;
    options.zip64_members = options.zip64_end = true;
    EXPECT_EQ(find(parse(zip({{"w.npy", array()}}, options)), "w").length, 8U);
}

TEST(Npz, WhatIsNoStoredArrayStaysBytes) {
    const std::string truth = array();
    auto layout = parse(zip({{"a.npy", truth}, {"b.npy", truth, 8}, {"c.npy", truth, 0, 1}, {"d.npy", "no array"}}));
    ASSERT_TRUE(layout);
    ASSERT_EQ(layout->tensors.size(), 1U);
    EXPECT_EQ(layout->tensors[0].name, "a");
    EXPECT_FALSE(parse(zip({{"b.npy", truth, 8}})));
    EXPECT_FALSE(parse(zip({{"a.txt", truth}})));
    EXPECT_FALSE(parse(zip({{"readme.txt", "x"}, {"a.npy", truth}})));
}

// An array may end before its member does, never behind it.
TEST(Npz, AnArrayStaysInItsMember) {
    EXPECT_TRUE(parse(zip({{"a.npy", array() + "more"}, {"b.npy", array()}})));
    for (std::size_t n = 0; n < array().size(); ++n) {
        auto layout = parse(zip({{"a.npy", array().substr(0, n)}, {"b.npy", array()}}));
        ASSERT_TRUE(layout);
        EXPECT_EQ(layout->tensors.size(), 1U) << n;
    }
}

TEST(Npz, NamesThatAreNone) {
    EXPECT_EQ(find(parse(zip({{".npy", array()}})), "array:0").length, 8U);
    EXPECT_EQ(find(parse(zip({{"\xff.npy", array()}})), "array:0").length, 8U);
    EXPECT_EQ(find(parse(zip({{std::string(2000, 'n') + ".npy", array()}})), "array:0").length, 8U);
}

TEST(Npz, ATorchArchiveIsNone) {
    EXPECT_EQ(parse(torch_zip(Pickle().raw("}").stop(), {{"x.npy", array()}}))->parser, Parser::kTorchZip);
}

}  // namespace
}  // namespace coral::formats::test
