// SPDX-License-Identifier: Apache-2.0
#include "codec/float_cast.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

namespace coral::codec {
namespace {

template <class Out, class In>
Out cast_one(std::uint8_t from, In v, std::uint8_t to) {
    std::uint8_t in[sizeof v], out[sizeof(Out)];
    std::memcpy(in, &v, sizeof v);
    cast_floats(from, in, 1, to, out);
    Out r;
    std::memcpy(&r, out, sizeof r);
    return r;
}

// By the definition: the nearest multiple of the last place, ties to even.
double value_of_f16(std::uint16_t v) {
    int exponent = v >> 10 & 31, mantissa = v & 0x3ff;
    double size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return (v & 0x8000) != 0 ? -size : size;
}

std::uint16_t nearest_f16(float v) {
    std::uint16_t sign = std::signbit(v) ? 0x8000 : 0;
    double size = std::abs(static_cast<double>(v));
    int exponent = size == 0 ? -14 : std::max(-14, static_cast<int>(std::floor(std::log2(size))));
    double unit = std::ldexp(1.0, exponent - 10), rounded = std::nearbyint(size / unit) * unit;
    if (rounded >= 65536) return static_cast<std::uint16_t>(sign | 0x7c00);
    for (std::uint32_t near = 0; near < 0x7c00; near += 0x400) {  // its exponent, then its place
        if (rounded >= value_of_f16(static_cast<std::uint16_t>(near + 0x400)) && near + 0x400 < 0x7c00) continue;
        double step = near == 0 ? std::ldexp(1.0, -24) : std::ldexp(1.0, static_cast<int>(near >> 10) - 25);
        double place = (rounded - value_of_f16(static_cast<std::uint16_t>(near))) / step;
        return static_cast<std::uint16_t>(sign | (near + static_cast<std::uint32_t>(place)));
    }
    return sign;
}

TEST(FloatCast, HalvesToFloatsAndBackAreThemselves) {
    for (std::uint32_t i = 0; i < 65'536; ++i) {
        auto half = static_cast<std::uint16_t>(i);
        bool nan16 = (half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0;
        auto wide = cast_one<std::uint32_t>(kDtypeF16, half, kDtypeF32);
        if (!nan16) {
            ASSERT_EQ((cast_one<std::uint16_t>(kDtypeF32, wide, kDtypeF16)), half) << i;
            if ((half & 0x7c00) != 0x7c00) {
                ASSERT_EQ(std::bit_cast<float>(wide), value_of_f16(half)) << i;
            }
        } else {
            ASSERT_TRUE(std::isnan(std::bit_cast<float>(wide)));
        }
        auto widened = cast_one<std::uint32_t>(kDtypeBF16, half, kDtypeF32);
        ASSERT_EQ(widened, i << 16);
        if (!std::isnan(std::bit_cast<float>(widened))) {
            ASSERT_EQ((cast_one<std::uint16_t>(kDtypeF32, widened, kDtypeBF16)), half) << i;
        }
        // By way of floats.
        ASSERT_EQ((cast_one<std::uint16_t>(kDtypeF16, half, kDtypeBF16)),
                  (cast_one<std::uint16_t>(kDtypeF32, wide, kDtypeBF16)));
        ASSERT_EQ((cast_one<std::uint16_t>(kDtypeBF16, half, kDtypeF16)),
                  (cast_one<std::uint16_t>(kDtypeF32, widened, kDtypeF16)));
    }
}

TEST(FloatCast, RoundsToTheNearestTiesToEven) {
    std::mt19937 random(3);
    for (int i = 0; i < 400'000; ++i) {
        std::uint32_t bits = random();
        // Near the range of halves, many of them exactly between two.
        if (i % 2) bits = (bits & 0x807fffffu) | (100u + random() % 46u) << 23;
        if (i % 4 == 1) bits &= ~0xfffu;
        float v = std::bit_cast<float>(bits);
        if (std::isnan(v)) {
            ASSERT_TRUE(std::isnan(
                std::bit_cast<float>(std::uint32_t{cast_one<std::uint16_t>(kDtypeF32, bits, kDtypeBF16)} << 16)));
            continue;
        }
        if (!std::isinf(v)) {
            ASSERT_EQ((cast_one<std::uint16_t>(kDtypeF32, bits, kDtypeF16)), nearest_f16(v)) << v;
        }
        std::uint32_t down = bits & 0xffff0000u, up = down + 0x10000u, rest = bits & 0xffffu;
        std::uint32_t wanted = rest > 0x8000u || (rest == 0x8000u && (down >> 16 & 1) != 0) ? up : down;
        ASSERT_EQ((cast_one<std::uint16_t>(kDtypeF32, bits, kDtypeBF16)), wanted >> 16) << v;
    }
}

TEST(FloatCast, OnlyBetweenFloatsThatItKnows) {
    Hint bf16{2, Hint::Class::kFloat, false, kDtypeBF16};
    EXPECT_TRUE(can_cast(kDtypeF32, bf16));
    EXPECT_TRUE(can_cast(kDtypeF16, bf16));
    EXPECT_FALSE(can_cast(kDtypeBF16, bf16)) << "the same type is no cast";
    EXPECT_FALSE(can_cast(13, bf16));
    bf16.big_endian = true;
    EXPECT_FALSE(can_cast(kDtypeF32, bf16));
    Hint lying{4, Hint::Class::kFloat, false, kDtypeBF16};
    EXPECT_FALSE(can_cast(kDtypeF32, lying)) << "a width that is not the type's";
}

}  // namespace
}  // namespace coral::codec
