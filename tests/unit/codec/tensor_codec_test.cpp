// SPDX-License-Identifier: Apache-2.0
// The tensor coder: every bit pattern comes back, on every path, and all paths write the same bytes.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "codec/tensor_train.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {
namespace {

std::vector<const Kernels*> paths() {
    std::vector<const Kernels*> all;
    for (const char* name : {"scalar", "avx2", "avx512"}) {
        if (const Kernels* k = kernels_named(name)) all.push_back(k);
    }
    return all;
}

Hint hint_for(unsigned width, bool is_float, bool big_endian = false) {
    Hint hint;
    hint.width = static_cast<std::uint8_t>(width);
    hint.element = is_float ? Hint::Class::kFloat : Hint::Class::kInteger;
    hint.big_endian = big_endian;
    return hint;
}

void solo_round_trip(const Hint& hint, const Buffer& raw) {
    auto trained = train_solo(kScalarKernels, hint, raw, kChunkLog2, {0});
    Buffer first;
    bool pays = encode_solo(kScalarKernels, trained.model, hint, raw, first);
    for (const Kernels* k : paths()) {
        Buffer coded, out(raw.size());
        bool smaller = encode_solo(*k, trained.model, hint, raw, coded);
        EXPECT_EQ(smaller, pays) << k->name;
        if (!smaller) continue;
        EXPECT_EQ(coded, first) << k->name;
        Status done = decode_solo(*k, trained.model, hint, coded, out);
        ASSERT_TRUE(done) << k->name << ": " << done.error().message;
        EXPECT_EQ(out, raw) << k->name;
    }
}

// Returns the coded size; raw size when that is not larger.
std::size_t delta_round_trip(const Hint& hint, const Buffer& raw, const Buffer& base) {
    auto trained = train_delta(kScalarKernels, hint, raw, {base, {}, 0}, kChunkLog2, {0});
    TensorModel model;
    model.delta = trained.model;
    auto read = TensorModel::read(model.write(hint.width), hint, Coder::kTensor);
    EXPECT_TRUE(read) << read.error().message;
    if (!read) return 0;
    const DeltaModel& known = *(*read)->delta;
    EXPECT_EQ(known.extra_bytes, trained.model.extra_bytes);
    Buffer first;
    bool pays = encode_delta(kScalarKernels, known, hint, raw, {base, {}}, first);
    for (const Kernels* k : paths()) {
        Buffer coded, out(raw.size());
        bool smaller = encode_delta(*k, known, hint, raw, {base, {}}, coded);
        EXPECT_EQ(smaller, pays) << k->name;
        if (!smaller) continue;
        EXPECT_EQ(coded, first) << k->name;
        Status done = decode_delta(*k, known, hint, coded, {base, {}}, out);
        EXPECT_TRUE(done) << k->name << ": " << done.error().message;
        if (!done) return 0;
        EXPECT_EQ(out, raw) << k->name;
    }
    return pays ? first.size() : raw.size();
}

template <class T>
Buffer bytes_of(const std::vector<T>& values) {
    Buffer out(values.size() * sizeof(T));
    std::memcpy(out.data(), values.data(), out.size());
    return out;
}

// Weights and a small update, as 16 bits of a float, or all 32.
std::pair<Buffer, Buffer> update(std::size_t n, unsigned width, double step, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Buffer raw, base;
    for (std::size_t i = 0; i < n; ++i) {
        float b = 0.05f * normal(random), a = b + static_cast<float>(step) * normal(random);
        auto put = [&](Buffer& out, float v) {
            auto bits = std::bit_cast<std::uint32_t>(v);
            for (unsigned byte = 4 - width; byte < 4; ++byte) out.push_back(static_cast<std::byte>(bits >> (8 * byte)));
        };
        put(raw, a);
        put(base, b);
    }
    return {raw, base};
}

TEST(TensorCodec, SmallUpdatesOfAllSizes) {
    for (unsigned width : {2u, 4u}) {
        for (std::size_t n : {1u, 2u, 31u, 63u, 64u, 65u, 255u, 256u, 257u, 384u, 1000u, 5000u, 65'536u}) {
            for (double step : {0.0, 1e-6, 1e-4, 1e-2}) {
                SCOPED_TRACE(testing::Message() << n << " elements of " << width << ", step " << step);
                auto [raw, base] = update(n, width, step, 3);
                delta_round_trip(hint_for(width, true), raw, base);
                solo_round_trip(hint_for(width, true), raw);
                // An odd tail.
                raw.push_back(std::byte{7});
                base.push_back(std::byte{9});
                delta_round_trip(hint_for(width, true), raw, base);
                solo_round_trip(hint_for(width, true), raw);
            }
        }
    }
}

// Every 16-bit pattern against bases of every exponent, NaN payloads, infinities and both zeros among them.
TEST(TensorCodec, EveryPatternOf16BitsAgainstEveryExponent) {
    std::vector<std::uint16_t> all(65'536), base(65'536);
    for (std::uint32_t i = 0; i < 65'536; ++i) all[i] = static_cast<std::uint16_t>(i);
    for (std::uint32_t exponent = 0; exponent < 256; exponent += 5) {
        for (std::uint32_t i = 0; i < 65'536; ++i) {
            base[i] = static_cast<std::uint16_t>((i * 40'503u & 0x807f) | exponent << 7);
        }
        for (bool is_float : {true, false}) delta_round_trip(hint_for(2, is_float), bytes_of(all), bytes_of(base));
    }
    solo_round_trip(hint_for(2, true), bytes_of(all));
    solo_round_trip(hint_for(2, false), bytes_of(all));
}

TEST(TensorCodec, AdversarialPatternsOfEveryWidth) {
    std::mt19937_64 random(11);
    for (unsigned width : {1u, 2u, 4u, 8u}) {
        for (int kind = 0; kind < 7; ++kind) {
            SCOPED_TRACE(testing::Message() << "width " << width << ", kind " << kind);
            Buffer raw(width * 6000 + kind % 3), base(raw.size());
            for (std::size_t i = 0; i < raw.size(); ++i) {
                std::byte noise = static_cast<std::byte>(random());
                const std::byte choices[] = {noise,
                                             std::byte{0},
                                             std::byte{0xff},
                                             i % 2 ? std::byte{0xff} : std::byte{0},
                                             static_cast<std::byte>(i / width % 7),
                                             std::byte{0x7f},
                                             std::byte{0x80}};
                raw[i] = choices[kind];
                base[i] =
                    kind % 2 ? static_cast<std::byte>(random()) : raw[i] ^ static_cast<std::byte>(random() % 50 == 0);
            }
            for (bool is_float : {true, false}) {
                for (bool big_endian : {false, true}) {
                    if (big_endian && width == 1) continue;
                    delta_round_trip(hint_for(width, is_float, big_endian), raw, base);
                    delta_round_trip(hint_for(width, is_float, big_endian), base, raw);
                    solo_round_trip(hint_for(width, is_float, big_endian), raw);
                }
            }
        }
    }
}

TEST(TensorCodec, WeightDecayIsAFactor) {
    auto [ignored, base] = update(60'000, 4, 0, 1);
    std::vector<float> decayed(60'000);
    std::memcpy(decayed.data(), base.data(), base.size());
    for (float& v : decayed) v *= 0.99973f;
    EXPECT_LT(delta_round_trip(hint_for(4, true), bytes_of(decayed), base), base.size() / 100);
}

TEST(TensorCodec, PrunedWeightsCostAMask) {
    auto [raw, base] = update(60'000, 4, 0, 2);
    std::mt19937 random(4);
    for (std::size_t i = 0; i < raw.size(); i += 4) {
        if (random() % 2) std::memset(raw.data() + i, 0, 4);
    }
    EXPECT_LT(delta_round_trip(hint_for(4, true), raw, base), 60'000 / 8 * 11 / 10);
}

TEST(TensorCodec, PrunedWeightsAloneCostAMaskAndTheOthers) {
    auto [raw, ignored] = update(60'000, 4, 0.02, 6);
    std::mt19937 random(4);
    for (std::size_t i = 0; i < raw.size(); i += 4) {
        if (random() % 2) std::memset(raw.data() + i, 0, 4);
    }
    Hint hint = hint_for(4, true);
    solo_round_trip(hint, raw);
    auto trained = train_solo(kScalarKernels, hint, raw, kChunkLog2, {0});
    Buffer coded;
    ASSERT_TRUE(encode_solo(kScalarKernels, trained.model, hint, raw, coded));
    EXPECT_LT(coded.size(), 60'000 / 8 * (1 + 26.8 / 2) * 1.01);
    // A value with a zero exponent and other bits ends that: nothing may get lost.
    raw[4 * 1000] = std::byte{1};
    raw[4 * 1000 + 3] = std::byte{0x80};
    solo_round_trip(hint, raw);
}

// What readers meet in a damaged pack: no crash, no write beyond the output (under ASan), whatever the bytes are.
TEST(TensorCodec, AnythingIsAnErrorOrAnOutput) {
    auto [raw, base] = update(3000, 2, 1e-4, 8);
    Hint hint = hint_for(2, true);
    TensorModel model;
    model.delta = train_delta(kScalarKernels, hint, raw, {base, {}, 0}, kChunkLog2, {0}).model;
    model.solo = train_solo(kScalarKernels, hint, raw, kChunkLog2, {0}).model;
    Buffer tables = model.write(2), delta, solo;
    ASSERT_TRUE(encode_delta(kScalarKernels, *model.delta, hint, raw, {base, {}}, delta));
    ASSERT_TRUE(encode_solo(kScalarKernels, *model.solo, hint, raw, solo));
    std::mt19937 random(5);
    auto damaged = [&](Buffer bytes) {
        if (random() % 3 == 0) bytes.resize(random() % (bytes.size() + 1));
        for (unsigned i = random() % 5; i > 0 && !bytes.empty(); --i) {
            bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        }
        return bytes;
    };
    Buffer out(raw.size());
    for (int round = 0; round < 3000; ++round) {
        auto other = TensorModel::read(random() % 2 ? damaged(tables) : tables, hint, Coder::kTensor);
        if (!other) continue;
        for (const Kernels* k : paths()) {
            if ((*other)->delta) (void)decode_delta(*k, *(*other)->delta, hint, damaged(delta), {base, {}}, out);
            if ((*other)->solo) (void)decode_solo(*k, *(*other)->solo, hint, damaged(solo), out);
        }
    }
}

}  // namespace
}  // namespace coral::codec
