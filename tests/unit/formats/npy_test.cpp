// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

std::string header(const std::string& descr, const std::string& shape) {
    return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + shape + "), }  \n";
}

bool accepted(const std::string& text, const std::string& data) {
    return parse(npy(text, data)).has_value();
}

TEST(Npy, EveryDescr) {
    struct Case {
        const char* descr;
        Dtype dtype;
        std::uint64_t size;
        bool big_endian = false;
    };
    for (const Case& c :
         {Case{"|b1", Dtype::kBool, 1}, Case{"|i1", Dtype::kI8, 1}, Case{"|u1", Dtype::kU8, 1},
          Case{"<i2", Dtype::kI16, 2}, Case{"<u4", Dtype::kU32, 4}, Case{">u8", Dtype::kU64, 8, true},
          Case{"<f2", Dtype::kF16, 2}, Case{">f4", Dtype::kF32, 4, true}, Case{"<f8", Dtype::kF64, 8},
          Case{"<f16", Dtype::kF80, 16}, Case{"<c8", Dtype::kC64, 8}, Case{">c16", Dtype::kC128, 16, true},
          Case{"<M8[ns]", Dtype::kI64, 8}, Case{"<m8[25s]", Dtype::kI64, 8}, Case{"|S3", Dtype::kUnknown, 3},
          Case{"<U2", Dtype::kUnknown, 8}, Case{"|V5", Dtype::kUnknown, 5}, Case{">i1", Dtype::kI8, 1}}) {
        const std::string file = npy(header(c.descr, "3,"), std::string(3 * c.size, 'x'));
        Tensor tensor = find(parse(file), "npy");
        EXPECT_EQ(tensor, (Tensor{"npy", c.dtype, c.big_endian, {3}, file.size() - 3 * c.size, 3 * c.size})) << c.descr;
        EXPECT_FALSE(parse(npy(header(c.descr, "3,"), std::string(3 * c.size - 1, 'x')))) << c.descr;
    }
}

TEST(Npy, OtherDescrsAreRefused) {
    for (const char* descr : {"|O", "|O8", "O", "", "<", "<f", "4", "<x4", "<f4,<f4", "<f4 ", "<M8[ns", "f4[ns]",
                              "<f-4", "<f99999999999999999999", "<U9223372036854775807"}) {
        EXPECT_FALSE(accepted(header(descr, "0,"), "")) << descr;
    }
    EXPECT_FALSE(accepted("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,), }", ""));
    EXPECT_FALSE(accepted("{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (0,), }", ""));
}

TEST(Npy, VersionsAndLengths) {
    const std::string text = header("<f4", "1,");
    for (int major : {1, 2, 3}) {
        auto layout = parse(npy(text, "xxxx", major));
        ASSERT_TRUE(layout);
        EXPECT_EQ(layout->parser, Parser::kNpy);
    }
    EXPECT_FALSE(parse(npy(text, "xxxx", 0)));
    EXPECT_FALSE(parse(npy(text, "xxxx", 4)));
    EXPECT_FALSE(parse(npy(text, "xxxx", 1, 65535)));
    EXPECT_FALSE(parse(npy(text, "xxxx", 2, 0xffffffff)));
    EXPECT_FALSE(parse(npy(text, "xxxx", 1, text.size() + 5)));
    EXPECT_FALSE(parse(npy(text, "xxxx", 1, 10)));
    EXPECT_TRUE(parse(npy(text, "xxxx and another array")));
}

TEST(Npy, ShapesAndLies) {
    for (const auto& [shape, count] : std::vector<std::pair<std::string, std::uint64_t>>{
             {"", 1}, {"2, 3", 6}, {"2,3,", 6}, {"4L,", 4}, {"0, 5", 0}, {"1,1,1,1,1,1,1,1", 1}}) {
        EXPECT_EQ(find(parse(npy(header("|u1", shape), std::string(6, 'x'))), "npy").length, count) << shape;
    }
    for (const char* shape : {"3", "-1,", "1.5,", "x,", "1,,", ",", "18446744073709551616,", "4294967296, 4294967296",
                              "18446744073709551615, 2", "(1,),", "'1',"}) {
        EXPECT_FALSE(accepted(header("|u1", shape), std::string(6, 'x'))) << shape;
    }
    EXPECT_FALSE(accepted(header("<f8", "2305843009213693953,"), std::string(8, 'x')));  // times 8 wraps to 8
    std::string ones;
    for (int i = 0; i < 64; ++i) ones += "1,";
    EXPECT_TRUE(accepted(header("|u1", ones), "x"));
    EXPECT_FALSE(accepted(header("|u1", ones + "1,"), "x"));
}

TEST(Npy, TheLiteralIsReadAsPythonWould) {
    for (const char* text : {"{'descr':'<f4','fortran_order':False,'shape':()}",
                             "{ \"shape\" : ( ) , \"fortran_order\" : True , \"descr\" : \"<f4\" , }\n\n",
                             "{'shape': (1,), 'descr': '<f4', 'fortran_order': False}"}) {
        EXPECT_TRUE(accepted(text, "xxxx")) << text;
    }
    for (const char* text : {"", "{}", "{'descr': '<f4', 'fortran_order': False}", "{'descr': '<f4', 'shape': ()}",
                             "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
                             "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': ()",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
                             "{'descr': '<f4' 'fortran_order': False, 'shape': ()}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
                             "{'descr': '\\x3cf4', 'fortran_order': False, 'shape': ()}",
                             "{'descr': '<f4, 'fortran_order': False, 'shape': ()}", "{'descr"}) {
        EXPECT_FALSE(accepted(text, "xxxx")) << text;
    }
}

}  // namespace
}  // namespace coral::formats::test
