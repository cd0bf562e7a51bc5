// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

constexpr int kLast = static_cast<int>(Dtype::kF80);

TEST(Dtype, NamesAreUniqueAndRoundTrip) {
    std::set<std::string_view> names;
    for (int i = 0; i <= kLast; ++i) {
        const auto dtype = static_cast<Dtype>(i);
        EXPECT_TRUE(names.insert(dtype_name(dtype)).second) << i;
        EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
        EXPECT_EQ(8 % dtype_width(dtype), 0U);
    }
    EXPECT_FALSE(dtype_from_name(""));
    EXPECT_FALSE(dtype_from_name("f32"));
}

TEST(Dtype, TableHoldsTheFacts) {
    struct Fact {
        Dtype dtype;
        std::string_view name;
        std::uint32_t bits, width;
        bool is_float;
    };
    for (const Fact& fact :
         {Fact{Dtype::kUnknown, "UNKNOWN", 0, 1, false}, Fact{Dtype::kBool, "BOOL", 8, 1, false},
          Fact{Dtype::kI64, "I64", 64, 8, false}, Fact{Dtype::kF16, "F16", 16, 2, true},
          Fact{Dtype::kBF16, "BF16", 16, 2, true}, Fact{Dtype::kF64, "F64", 64, 8, true},
          Fact{Dtype::kC64, "C64", 64, 4, true}, Fact{Dtype::kC128, "C128", 128, 8, true},
          Fact{Dtype::kF8E4M3, "F8_E4M3", 8, 1, true}, Fact{Dtype::kF8E8M0, "F8_E8M0", 8, 1, false},
          Fact{Dtype::kF4, "F4", 4, 1, false}, Fact{Dtype::kF6E3M2, "F6_E3M2", 6, 1, false},
          Fact{Dtype::kQuantised, "QUANTISED", 0, 1, false}, Fact{Dtype::kF80, "F80", 128, 8, false}}) {
        EXPECT_EQ(dtype_name(fact.dtype), fact.name);
        EXPECT_EQ(dtype_bits(fact.dtype), fact.bits) << fact.name;
        EXPECT_EQ(dtype_width(fact.dtype), fact.width) << fact.name;
        EXPECT_EQ(dtype_is_float(fact.dtype), fact.is_float) << fact.name;
    }
}

// File records are read back into this enum.
TEST(Dtype, NumbersFromNowhereAreUnknown) {
    const auto nowhere = static_cast<Dtype>(200);
    EXPECT_EQ(dtype_name(nowhere), "UNKNOWN");
    EXPECT_EQ(dtype_bits(nowhere), 0U);
    EXPECT_EQ(dtype_width(nowhere), 1U);
}

TEST(MemorySource, ReadsExactlyOrFails) {
    MemorySource source(as_bytes("abcdef"));
    std::array<std::byte, 3> out;
    EXPECT_TRUE(source.read_at(3, out).ok());
    EXPECT_EQ(as_text(out), "def");
    EXPECT_FALSE(source.read_at(4, out).ok());
    EXPECT_FALSE(source.read_at(~0ULL, out).ok());
    EXPECT_TRUE(source.read_at(6, {}).ok());
}

TEST(ParseLayout, UnknownBytesHaveNone) {
    for (const std::string& file : {std::string(), std::string("x"), std::string("PK\3\4"), std::string("\x93NUMPY"),
                                    std::string(7, '\0'), std::string(100, '\0'), std::string(100, '\xff'),
                                    std::string("GGUF\3\0\0\0", 8), std::string("{\"json\": true}")}) {
        EXPECT_FALSE(parse(file));
    }
}

// Fails at the n-th read, as a disk does.
class FailingSource final : public ByteSource {
  public:
    FailingSource(const std::string& file, int good) : memory_(as_bytes(file)), good_(good) {}
    std::uint64_t size() const override { return memory_.size(); }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        if (good_-- <= 0) return make_error(Errc::kIo, "the disk said no");
        return memory_.read_at(offset, out);
    }

  private:
    MemorySource memory_;
    mutable int good_;
};

TEST(ParseLayout, AFailingSourceIsAnError) {
    const std::string tensors = safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abcd");
    const std::string torch =
        torch_zip(Pickle().raw("}").text("a").tensor("ByteStorage", "0", 4, {4}).raw("s").stop(),
                  {{"byteorder", "big"}, {"constants.pkl", Pickle().raw(")").stop()}, {"data/0", "abcd"}});
    const std::string array = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4,), }", "abcd");
    for (const std::string& file : {tensors, torch, array}) {
        int good = 0;
        for (;; ++good) {
            ASSERT_LT(good, 100);
            auto layout = parse_layout(FailingSource(file, good));
            if (layout.ok()) {
                EXPECT_TRUE(layout->has_value());
                break;
            }
            EXPECT_EQ(layout.error().message, "the disk said no");
        }
        EXPECT_GE(good, 3);
    }
}

}  // namespace
}  // namespace coral::formats::test
