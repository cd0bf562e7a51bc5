// SPDX-License-Identifier: Apache-2.0
// What coder 4 adds: a step of Adam from three bases, and palettes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "codec/adam_fit.hpp"
#include "codec/palette.hpp"
#include "codec/tensor_train.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {
namespace {

constexpr Hint kF32{4, Hint::Class::kFloat, false, 12};

std::vector<const Kernels*> paths() {
    std::vector<const Kernels*> out;
    for (const char* name : {"scalar", "avx2", "avx512"}) {
        if (const Kernels* k = kernels_named(name)) out.push_back(k);
    }
    return out;
}

SegmentId id(unsigned n) {
    SegmentId out;
    out.bytes[0] = static_cast<std::byte>(n);
    return out;
}

Base base_of(unsigned n, const Buffer& raw) {
    Base base;
    base.id = id(n);
    base.raw = raw;
    return base;
}

Encoded encoded(const Buffer& raw, const Hint& hint, const std::vector<Base>& bases) {
    auto e = encode_segment(raw, hint, bases);
    EXPECT_TRUE(e.ok());
    return std::move(*e);
}

// As the store does: header and payload through bytes, bases by their names.
Buffer decoded(const Encoded& e, const std::vector<Buffer>& by_id) {
    Buffer bytes;
    write_header(e.header, bytes);
    auto header = read_header(bytes, e.payload.size());
    EXPECT_TRUE(header.ok()) << header.error().message;
    if (!header) return {};
    BaseReader reader = [&](std::uint8_t slot, std::uint64_t begin, MutableBytes out) -> Status {
        const Buffer& base = by_id.at(static_cast<std::size_t>(header->bases.at(slot).id.bytes[0]) - 1);
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = begin + i < base.size() ? base[begin + i] : std::byte{0};
        return {};
    };
    Buffer out(header->raw_length);
    for (std::uint32_t c = 0; c < header->chunk_count(); ++c) {
        std::uint32_t begin = header->chunk_stored_begin(c);
        Bytes stored = Bytes(e.payload).subspan(begin, header->chunks[c].stored_end - begin);
        MutableBytes part =
            MutableBytes(out).subspan(std::size_t{c} << header->chunk_log2, header->chunk_raw_length(c));
        Status done = decode_chunk(*header, c, stored, reader, part);
        EXPECT_TRUE(done) << done.error().message;
    }
    return out;
}

void put(Buffer& out, float v) {
    const std::size_t at = out.size();
    out.resize(at + 4);
    std::memcpy(out.data() + at, &v, 4);
}

// Two states of a parameter and its moments, a step of AdamW apart.
struct Training {
    Buffer w0, m0, v0, w1, m1, v1;
};
Training training(std::size_t n) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    Training t;
    for (std::size_t i = 0; i < n; ++i) {
        const float scale = std::exp2(normal(random)) * 1e-3f, g = scale * normal(random);
        const float w = 0.03f * normal(random), m = 0.3f * scale * normal(random), v = scale * scale * 0.5f;
        const float m1 = m + 0.1f * (g - m), v1 = 0.999f * v + 0.001f * g * g;
        const float w1 = w * (1 - 6e-5f) - 5e-4f * m1 / (std::sqrt(v1) / 0.3f + 1e-8f);
        for (auto [to, value] : {std::pair{&t.w0, w}, {&t.m0, m}, {&t.v0, v}, {&t.w1, w1}, {&t.m1, m1}, {&t.v1, v1}}) {
            put(*to, value);
        }
    }
    return t;
}

std::vector<Base> three(const Buffer& base, const Buffer& first, const Buffer& second, Formula formula) {
    std::vector<Base> bases{base_of(1, base), base_of(2, first), base_of(3, second)};
    bases[0].inputs = Base::Inputs{formula, 1, 2};
    return bases;
}

TEST(Adam, AStepCostsNextToNothing) {
    Training t = training(200'001);
    Encoded weights = encoded(t.w1, kF32, three(t.w0, t.m1, t.v1, Formula::kAdamWeights));
    Encoded variance = encoded(t.v1, kF32, three(t.v0, t.m1, t.m0, Formula::kAdamVariance));
    for (const Encoded* e : {&weights, &variance}) {
        EXPECT_EQ(e->header.coder, Coder::kTensor4);
        EXPECT_EQ(e->header.bases.size(), 3u);
        EXPECT_LT(e->payload.size() + e->header.tables.size(), t.w1.size() / 50);
    }
    EXPECT_EQ(decoded(weights, {t.w0, t.m1, t.v1}), t.w1);
    EXPECT_EQ(decoded(variance, {t.v0, t.m1, t.m0}), t.v1);
}

TEST(Adam, DepthIsOfTheDeepest) {
    Training t = training(20'000);
    std::vector<Base> bases = three(t.w0, t.m1, t.v1, Formula::kAdamWeights);
    bases[2].depth = 4;
    EXPECT_EQ(encoded(t.w1, kF32, bases).header.depth, 5);
    bases[2].depth = kMaxDepth;  // too deep: without it
    Encoded e = encoded(t.w1, kF32, bases);
    EXPECT_EQ(e.header.bases.size(), 1u);
    EXPECT_EQ(decoded(e, {t.w0}), t.w1);
}

TEST(Adam, IsNotTakenInVain) {
    Training t = training(50'000);
    std::mt19937 random(8);
    Buffer stranger;
    for (std::size_t i = 0; i < 50'000; ++i) put(stranger, static_cast<float>(random()) * 1e-12f);
    for (Formula formula : {Formula::kAdamWeights, Formula::kAdamVariance}) {
        Encoded e = encoded(t.w1, kF32, three(t.w0, stranger, stranger, formula));
        EXPECT_EQ(e.header.bases.size(), 1u);
        EXPECT_EQ(e.header.coder, Coder::kTensor);
        EXPECT_EQ(decoded(e, {t.w0}), t.w1);
    }
    // Of no use: integers, and inputs that are too short.
    Hint integers{4, Hint::Class::kInteger, false, 0};
    EXPECT_LE(encoded(t.w1, integers, three(t.w0, t.m1, t.v1, Formula::kAdamWeights)).header.bases.size(), 2u);
    Buffer part(t.m1.begin(), t.m1.begin() + 4000);
    Encoded e = encoded(t.w1, kF32, three(t.w0, part, t.v1, Formula::kAdamWeights));
    EXPECT_EQ(decoded(e, {t.w0, part, t.v1}), t.w1);
}

// Moments that end earlier than the base, and are of no use: behind their end, differences are of other sizes.
TEST(Adam, WhatTheMomentsDoNotReach) {
    constexpr std::size_t kReach = 4 * 100'000 + 2, kElements = 300'000;
    std::mt19937 random(13);
    Buffer base = training(kElements).w0, raw = base, stranger;
    for (std::size_t i = 0; i < kElements; ++i) put(stranger, static_cast<float>(random()) * 1e-12f);
    for (std::size_t i = 0; i < raw.size(); i += 4) {
        raw[i] ^= static_cast<std::byte>(random() & 15);
        if (i >= kReach) raw[i + 1] ^= static_cast<std::byte>(random());
    }
    const Buffer cut(stranger.begin(), stranger.begin() + kReach);
    for (Formula formula : {Formula::kAdamWeights, Formula::kAdamVariance}) {
        for (bool first : {true, false}) {
            const Encoded e = encoded(raw, kF32, three(base, first ? cut : stranger, first ? stranger : cut, formula));
            ASSERT_EQ(e.header.bases.size(), 1u);
            for (const Chunk& chunk : e.header.chunks) EXPECT_EQ(chunk.mode, Mode::kDelta);
            EXPECT_EQ(decoded(e, {base}), raw);
        }
    }
}

// A formula does without the state before the base, which ends earlier than the moments do.
TEST(Adam, ReachesFurtherThanTheStateBefore) {
    constexpr std::size_t kReach = 4 * 100'000 + 1;
    Training t = training(300'000);
    std::mt19937 random(14);
    for (std::size_t i = kReach / 4 + 1; i < 300'000; ++i) t.w1[4 * i + 1] ^= static_cast<std::byte>(random());
    const Buffer before(t.w0.begin(), t.w0.begin() + kReach);
    std::vector<Base> bases = three(t.w0, t.m1, t.v1, Formula::kAdamWeights);
    bases.push_back(base_of(4, before));
    bases[0].before = 3;
    const Encoded e = encoded(t.w1, kF32, bases);
    ASSERT_TRUE(e.header.by_formula());
    for (const Chunk& chunk : e.header.chunks) EXPECT_EQ(chunk.mode, Mode::kDelta);
    EXPECT_EQ(decoded(e, {t.w0, t.m1, t.v1}), t.w1);
}

TEST(Adam, CopiesBesideIt) {
    Training t = training(300'000);
    std::memcpy(t.w1.data(), t.w0.data(), kChunkSize);                            // frozen
    std::memcpy(t.w1.data() + kChunkSize, t.m1.data() + kChunkSize, kChunkSize);  // who knows why
    Encoded e = encoded(t.w1, kF32, three(t.w0, t.m1, t.v1, Formula::kAdamWeights));
    EXPECT_EQ(e.header.bases.size(), 3u);
    EXPECT_EQ(e.header.chunks[0].mode, Mode::kCopy);
    EXPECT_EQ(e.header.chunks[1].mode, Mode::kCopy);
    EXPECT_EQ(e.header.chunks[1].base_slot, 1);
    EXPECT_EQ(e.header.chunks[2].mode, Mode::kDelta);
    EXPECT_EQ(decoded(e, {t.w0, t.m1, t.v1}), t.w1);
}

// NaNs, infinities, denormals, negative second moments: all paths make the same of them.
TEST(Adam, EveryPathTheSame) {
    std::mt19937_64 random(11);
    for (int round = 0; round < 200; ++round) {
        const std::size_t n = 1 + random() % 700;
        std::vector<std::uint8_t> in[3], first(4 * n + kSlack), out(4 * n + kSlack);
        for (auto& array : in) {
            array.resize(4 * n + kSlack);
            for (std::size_t i = 0; i < n; ++i) {
                auto bits = static_cast<std::uint32_t>(random());
                const unsigned kind = random() % 8;
                if (kind == 0) bits &= 0x80000000u;
                if (kind == 1) bits &= 0x807fffffu;
                if (kind == 2) bits |= 0x7f800000u;
                if (kind > 5) bits = (bits & 0x807fffffu) | 0x3c000000u;
                std::memcpy(array.data() + 4 * i, &bits, 4);
            }
        }
        auto number = [&] {
            return std::ldexp(static_cast<float>(random() % 1000) - 500, static_cast<int>(random() % 60) - 40);
        };
        const AdamStep step{round % 2 ? Formula::kAdamWeights : Formula::kAdamVariance, number(), number(), number()};
        kScalarKernels.adam(step, in[0].data(), in[1].data(), in[2].data(), n, first.data());
        for (const Kernels* k : paths()) {
            k->adam(step, in[0].data(), in[1].data(), in[2].data(), n, out.data());
            EXPECT_EQ(std::memcmp(out.data(), first.data(), 4 * n), 0) << k->name;
        }
    }
}

Buffer few_values(std::size_t n, unsigned width, unsigned count, bool skewed) {
    std::mt19937_64 random(count);
    std::vector<std::uint64_t> values(count);
    for (auto& v : values) v = random();
    std::geometric_distribution<unsigned> low(0.2);
    Buffer out(n * width);
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t v = values[i < count ? i : (skewed ? std::min(low(random), count - 1) : random() % count)];
        for (unsigned b = 0; b < width; ++b) out[i * width + b] = static_cast<std::byte>(v >> (8 * b));
    }
    return out;
}

TEST(Palette, CostsTheNumbersOfItsValues) {
    for (unsigned width : {2u, 4u, 8u}) {
        for (unsigned count : {2u, 16u, 200u, 256u}) {
            for (bool skewed : {false, true}) {
                for (Hint::Class element : {Hint::Class::kFloat, Hint::Class::kInteger}) {
                    SCOPED_TRACE(testing::Message() << width << " " << count << " " << skewed);
                    Hint hint{static_cast<std::uint8_t>(width), element, false, 0};
                    Buffer raw = few_values(150'000, width, count, skewed);
                    raw.resize(raw.size() + width / 2);  // an odd tail
                    Encoded e = encoded(raw, hint, {});
                    EXPECT_EQ(e.header.coder, Coder::kTensor4);
                    EXPECT_EQ(e.header.chunks[0].mode, Mode::kPalette);
                    const double bits = skewed ? 3.7 : std::log2(count);  // of the geometric distribution: 3.61
                    EXPECT_LT(static_cast<double>(e.payload.size()), 150'000 / 8.0 * bits * 1.03 + 1000);
                    EXPECT_EQ(decoded(e, {}), raw);
                    hint.big_endian = true;
                    EXPECT_EQ(decoded(encoded(raw, hint, {}), {}), raw);
                }
            }
        }
    }
}

TEST(Palette, OneValueMoreIsNone) {
    Buffer raw = few_values(150'000, 4, 256, false);
    raw[4 * 149'999] ^= std::byte{1};
    Encoded e = encoded(raw, kF32, {});
    EXPECT_EQ(e.header.coder, Coder::kTensor);
    EXPECT_EQ(decoded(e, {}), raw);
    EXPECT_NE(encoded(Buffer(40'000, std::byte{7}), kF32, {}).header.coder, Coder::kTensor4) << "one value alone";
}

TEST(Palette, ADifferenceThatIsSmallerIsTaken) {
    Buffer base = few_values(150'000, 4, 256, false), raw = base;
    for (std::size_t i = 0; i < 150'000; i += 5000) std::memcpy(raw.data() + 4 * i, base.data(), 4);
    Encoded e = encoded(raw, kF32, {base_of(1, base)});
    EXPECT_EQ(e.header.chunks[0].mode, Mode::kDelta);
    EXPECT_EQ(decoded(e, {base}), raw);
}

TEST(Palette, EveryPathTheSame) {
    for (unsigned width : {2u, 4u, 8u}) {
        Hint hint{static_cast<std::uint8_t>(width), Hint::Class::kFloat, false, 0};
        for (std::size_t n : {1u, 63u, 257u, 30'000u}) {
            Buffer raw = few_values(n, width, 40, true);
            auto trained = train_palette(hint, raw, 18, {0});
            if (n == 1) {
                EXPECT_TRUE(trained.model.values.empty());
                continue;
            }
            ASSERT_FALSE(trained.model.values.empty());
            Buffer first, out(raw.size());
            bool pays = encode_palette(kScalarKernels, trained.model, hint, raw, first);
            for (const Kernels* k : paths()) {
                Buffer coded;
                EXPECT_EQ(encode_palette(*k, trained.model, hint, raw, coded), pays);
                EXPECT_EQ(coded, first) << k->name;
                if (!pays) continue;
                ASSERT_TRUE(decode_palette(*k, trained.model, hint, coded, out)) << k->name;
                EXPECT_EQ(out, raw) << k->name;
            }
        }
    }
}

Buffer blocks_of(std::size_t n, unsigned block, std::size_t length) {
    std::mt19937 random(block);
    std::normal_distribution<float> normal(0, 20);
    Buffer out;
    for (std::size_t i = 0; i < n; ++i) {
        out.push_back(static_cast<std::byte>(random()));
        out.push_back(static_cast<std::byte>(0x1c + random() % 4));
        for (unsigned b = 2; b < block; ++b) out.push_back(static_cast<std::byte>(static_cast<int>(normal(random))));
    }
    out.resize(length);
    return out;
}

TEST(Columns, ScalesAndQuantsHaveTablesOfTheirOwn) {
    constexpr Hint kQuantised{1, Hint::Class::kInteger, false, 24}, kI8{1, Hint::Class::kInteger, false, 3};
    for (unsigned block : {18u, 34u}) {
        for (std::size_t length : {40'000u, 262'144u, 700'001u}) {
            SCOPED_TRACE(testing::Message() << block << " " << length);
            Buffer raw = blocks_of(1 + length / block, block, length);
            Encoded e = encoded(raw, kQuantised, {}), plain = encoded(raw, kI8, {});
            EXPECT_EQ(e.header.coder, Coder::kTensor4);
            ASSERT_TRUE(e.header.model->solo->columns);
            EXPECT_EQ(e.header.model->solo->columns->table_of.size(), block);
            EXPECT_LT(e.payload.size() + e.header.tables.size(), plain.payload.size() + plain.header.tables.size());
            EXPECT_EQ(decoded(e, {}), raw);
            for (const Kernels* k : paths()) {
                Buffer coded, out(std::min<std::size_t>(length, kChunkSize));
                Bytes chunk = Bytes(raw).first(out.size());
                ASSERT_TRUE(encode_solo(*k, *e.header.model->solo, kQuantised, chunk, coded, 5)) << k->name;
                ASSERT_TRUE(decode_solo(*k, *e.header.model->solo, kQuantised, coded, out, 5)) << k->name;
                EXPECT_TRUE(std::equal(out.begin(), out.end(), chunk.begin())) << k->name;
            }
        }
    }
    Buffer alike(100'000);
    std::mt19937 random(2);
    for (std::byte& b : alike) b = static_cast<std::byte>(random() % 100);
    EXPECT_EQ(encoded(alike, kQuantised, {}).header.coder, Coder::kTensor) << "no blocks";
}

// Weights that nothing but their decay moved, step by step, and some that a gradient did.
std::vector<Buffer> decays(std::size_t n, std::size_t states) {
    std::mt19937 random(15);
    std::normal_distribution<float> normal;
    std::vector<Buffer> out(states);
    for (std::size_t i = 0; i < n; ++i) {
        float w = 0.05f * normal(random);
        const bool moved = i / 384 % 5 == 0;
        for (Buffer& to : out) {
            put(to, w);
            for (int step = 0; step < 6; ++step) w *= 1 - 2.1e-7f;
            if (moved) w += 1e-5f * normal(random);
        }
    }
    return out;
}

TEST(Mantissa, TellsWhatRoundingMadeOfTheDecay) {
    std::vector<Buffer> states = decays(150'000, 3);
    Encoded first = encoded(states[1], kF32, {base_of(1, states[0])});
    EXPECT_EQ(first.header.coder, Coder::kTensor4);
    ASSERT_TRUE(first.header.model->delta->step);
    EXPECT_EQ(first.header.model->delta->step->by, LastStep::By::kMantissa);
    EXPECT_EQ(first.header.bases.size(), 1u);
    EXPECT_EQ(decoded(first, {states[0]}), states[1]);
    std::vector<Base> bases{base_of(1, states[1]), base_of(2, states[0])};
    bases[0].before = 1;
    Encoded second = encoded(states[2], kF32, bases);
    EXPECT_EQ(decoded(second, {states[1], states[0]}), states[2]);
    EXPECT_LE(second.payload.size(), first.payload.size());
}

TEST(Mantissa, EveryPathTheSame) {
    std::mt19937_64 random(5);
    for (unsigned width : {2u, 4u, 8u}) {
        for (LastStep::By by : {LastStep::By::kMantissa, LastStep::By::kStepsAndMantissa}) {
            for (std::size_t n : {1u, 63u, 257u, 20'000u}) {
                SCOPED_TRACE(testing::Message() << width << " " << static_cast<int>(by) << " " << n);
                Hint hint{static_cast<std::uint8_t>(width), Hint::Class::kFloat, false, 0};
                Buffer raw(n * width), base(raw.size()), before(raw.size());
                for (std::size_t i = 0; i < raw.size(); ++i) {
                    base[i] = static_cast<std::byte>(random());
                    raw[i] = base[i] ^ static_cast<std::byte>(i % width ? 0 : random());
                    before[i] = base[i] ^ static_cast<std::byte>(i % width ? 0 : random());
                }
                DeltaModel model;
                model.buckets = {3, 1};
                LastStep step;
                step.by = by;
                step.again = by == LastStep::By::kMantissa ? 0 : 9;
                for (unsigned b = 0; b < 7; ++b) step.bounds[b] = static_cast<std::uint8_t>(4 * b + 3);
                for (unsigned key = 0; key < 256; ++key) step.class_of[key] = static_cast<std::uint8_t>(key % 3);
                model.step = step;
                Histogram flat;
                flat.fill(1);
                for (unsigned s = alphabet(model.buckets, width); s < kZeroSymbol; ++s) flat[s] = 0;
                for (std::uint8_t c = 0; c < 3; ++c) {
                    model.last.push_back(c);
                    model.classes.emplace_back(code_lengths(flat), &flat);
                }
                model.derive(width);
                TensorModel whole;
                whole.delta = model;
                EXPECT_FALSE(TensorModel::read(whole.write(width), hint, Coder::kTensor3).ok());
                auto read = TensorModel::read(whole.write(width), hint, Coder::kTensor4);
                ASSERT_TRUE(read.ok()) << read.error().message;
                Buffer first, out(raw.size());
                bool pays = encode_delta(kScalarKernels, *(*read)->delta, hint, raw, {base, before}, first);
                for (const Kernels* k : paths()) {
                    Buffer coded;
                    EXPECT_EQ(encode_delta(*k, *(*read)->delta, hint, raw, {base, before}, coded), pays) << k->name;
                    EXPECT_EQ(coded, first) << k->name;
                    if (!pays) continue;
                    ASSERT_TRUE(decode_delta(*k, *(*read)->delta, hint, coded, {base, before}, out)) << k->name;
                    EXPECT_EQ(out, raw) << k->name;
                }
            }
        }
    }
}

TEST(Coder4, TablesThatLieAreRefused) {
    Training t = training(20'000);
    Encoded adam = encoded(t.w1, kF32, three(t.w0, t.m1, t.v1, Formula::kAdamWeights));
    auto refused = [](SegmentHeader header, const Buffer& payload) {
        Buffer bytes;
        write_header(header, bytes);
        return !read_header(bytes, payload.size()).ok();
    };
    EXPECT_FALSE(refused(adam.header, adam.payload));
    for (Coder older : {Coder::kTensor, Coder::kTensor3}) {
        SegmentHeader header = adam.header;
        header.coder = older;
        EXPECT_TRUE(refused(header, adam.payload));
    }
    SegmentHeader two = adam.header;
    two.bases.pop_back();
    EXPECT_TRUE(refused(two, adam.payload));
    SegmentHeader other = adam.header;
    other.chunks[0].base_slot = 1;
    EXPECT_TRUE(refused(other, adam.payload));
    Encoded palette = encoded(few_values(20'000, 4, 9, false), kF32, {});
    ASSERT_EQ(palette.header.chunks[0].mode, Mode::kPalette);
    SegmentHeader twice = palette.header;  // the second value as the first
    std::copy_n(twice.tables.begin() + 2, 4, twice.tables.begin() + 6);
    EXPECT_TRUE(refused(twice, palette.payload));
    SegmentHeader fewer = palette.header;
    fewer.tables[1] = std::byte{7};
    EXPECT_TRUE(refused(fewer, palette.payload));
}

// Tables and chunks as a damaged pack shows them: no crash, no write beyond the output (under ASan).
TEST(Coder4, AnythingIsAnErrorOrAnOutput) {
    Training t = training(20'000);
    Encoded all[] = {encoded(t.w1, kF32, three(t.w0, t.m1, t.v1, Formula::kAdamWeights)),
                     encoded(t.v1, kF32, three(t.v0, t.m1, t.m0, Formula::kAdamVariance)),
                     encoded(few_values(20'000, 2, 100, true), {2, Hint::Class::kFloat, false, 0}, {}),
                     encoded(blocks_of(2000, 34, 60'000), {1, Hint::Class::kInteger, false, 24}, {})};
    std::mt19937 random(6);
    BaseReader reader = [&](std::uint8_t, std::uint64_t, MutableBytes out) -> Status {
        for (std::byte& b : out) b = static_cast<std::byte>(random());
        return {};
    };
    for (const Encoded& e : all) {
        ASSERT_EQ(e.header.coder, Coder::kTensor4);
        Buffer header;
        write_header(e.header, header);
        for (int round = 0; round < 1000; ++round) {
            Buffer bytes = header, payload = e.payload;
            for (unsigned i = random() % 4; i > 0; --i)
                bytes[random() % bytes.size()] = static_cast<std::byte>(random());
            for (unsigned i = random() % 4; i > 0; --i)
                payload[random() % payload.size()] = static_cast<std::byte>(random());
            auto read = read_header(bytes, payload.size());
            if (!read) continue;
            for (std::uint32_t c = 0; c < read->chunk_count(); ++c) {
                std::uint32_t begin = read->chunk_stored_begin(c);
                Buffer out(read->chunk_raw_length(c));
                (void)decode_chunk(*read, c, Bytes(payload).subspan(begin, read->chunks[c].stored_end - begin), reader,
                                   out);
            }
        }
    }
}

}  // namespace
}  // namespace coral::codec
