// SPDX-License-Identifier: Apache-2.0
// What coder 3 adds: bases of another float type, the last step as a second base, planes in two parts.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "codec/float_cast.hpp"
#include "codec/tensor_train.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {
namespace {

constexpr Hint kF32{4, Hint::Class::kFloat, false, kDtypeF32};
constexpr Hint kBF16{2, Hint::Class::kFloat, false, kDtypeBF16};
constexpr Hint kF16{2, Hint::Class::kFloat, false, kDtypeF16};

std::vector<const Kernels*> paths() {
    std::vector<const Kernels*> out;
    for (const char* name : {"scalar", "avx2", "avx512"}) {
        if (const Kernels* k = kernels_named(name)) out.push_back(k);
    }
    return out;
}

Buffer weights(std::size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.05f);
    Buffer out(4 * n);
    for (std::size_t i = 0; i < n; ++i) {
        float w = normal(random);
        std::memcpy(out.data() + 4 * i, &w, 4);
    }
    return out;
}

Buffer cast(const Buffer& in, std::uint8_t from, std::uint8_t to) {
    std::size_t n = in.size() / cast_width(from);
    Buffer out(n * cast_width(to));
    cast_floats(from, reinterpret_cast<const std::uint8_t*>(in.data()), n, to,
                reinterpret_cast<std::uint8_t*>(out.data()));
    return out;
}

// As the store does: header and payload through bytes, base bytes beyond the end are zeros.
Buffer decoded(const Encoded& e, const std::vector<Buffer>& by_slot) {
    Buffer bytes;
    write_header(e.header, bytes);
    auto header = read_header(bytes, e.payload.size());
    EXPECT_TRUE(header.ok()) << header.error().message;
    if (!header) return {};
    BaseReader reader = [&](std::uint8_t slot, std::uint64_t begin, MutableBytes out) -> Status {
        const Buffer& base = by_slot.at(slot);
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

SegmentId id(unsigned n) {
    SegmentId out;
    out.bytes[0] = static_cast<std::byte>(n);
    return out;
}

Base base_of(unsigned n, const Buffer& raw, std::uint8_t dtype = 0, std::uint64_t offset = 0) {
    Base base;
    base.id = id(n);
    base.raw = raw;
    base.dtype = dtype;
    base.offset = offset;
    return base;
}

Encoded encoded(const Buffer& raw, const Hint& hint, const std::vector<Base>& bases) {
    auto e = encode_segment(raw, hint, bases);
    EXPECT_TRUE(e.ok());
    return std::move(*e);
}

TEST(Cast, ACopyInAnotherTypeCostsAlmostNothing) {
    Buffer master = weights(300'001, 1);
    for (const Hint& hint : {kBF16, kF16}) {
        Buffer copy = cast(master, kDtypeF32, hint.detail);
        Encoded e = encoded(copy, hint, {base_of(1, master, kDtypeF32)});
        EXPECT_EQ(e.header.coder, Coder::kTensor3);
        EXPECT_LT(e.payload.size() + e.header.tables.size(), copy.size() / 1000);
        EXPECT_EQ(decoded(e, {master}), copy);
        // One value that is no cast of the master's.
        copy[777] ^= std::byte{0x15};
        EXPECT_EQ(decoded(encoded(copy, hint, {base_of(1, master, kDtypeF32)}), {master}), copy);
    }
}

TEST(Cast, AMasterCostsWhatItsCopyLacks) {
    Buffer master = weights(300'000, 1), copy = cast(master, kDtypeF32, kDtypeBF16);
    Encoded e = encoded(master, kF32, {base_of(1, copy, kDtypeBF16)});
    EXPECT_LT(static_cast<double>(e.payload.size()), 0.52 * static_cast<double>(master.size()));
    EXPECT_EQ(decoded(e, {copy}), master);
    Buffer from_half = cast(cast(master, kDtypeF32, kDtypeF16), kDtypeF16, kDtypeF32);
    Buffer half = cast(master, kDtypeF32, kDtypeF16);
    Encoded exact = encoded(from_half, kF32, {base_of(1, half, kDtypeF16)});
    EXPECT_LT(exact.payload.size(), from_half.size() / 1000);
    EXPECT_EQ(decoded(exact, {half}), from_half);
}

TEST(Cast, ABaseOfTwoSegments) {
    const std::size_t n = kMaxSegment / 4 + 200'000;
    Buffer master = weights(n, 1), copy = cast(master, kDtypeF32, kDtypeBF16);
    Buffer first(master.begin(), master.begin() + kMaxSegment), second(master.begin() + kMaxSegment, master.end());
    std::vector<Base> bases{base_of(1, first, kDtypeF32), base_of(2, second, kDtypeF32)};
    bases[0].next = 1;
    Encoded e = encoded(copy, kBF16, bases);
    ASSERT_EQ(e.header.bases.size(), 2u);
    EXPECT_LT(e.payload.size(), copy.size() / 1000);
    EXPECT_EQ(decoded(e, {first, second}), copy);
    // Without what follows, only the first half is known.
    Encoded half = encoded(copy, kBF16, {base_of(1, first, kDtypeF32)});
    EXPECT_EQ(decoded(half, {first}), copy);
    EXPECT_LT(half.payload.size(), copy.size() / 3);
}

TEST(Cast, FromTheMiddleOfABase) {
    Buffer master = weights(400'000, 1), copy = cast(master, kDtypeF32, kDtypeBF16);
    Buffer tail(master.begin() + 4 * 131'072, master.end());
    Encoded e = encoded(tail, kF32, {base_of(1, copy, kDtypeBF16, 2 * 131'072)});
    EXPECT_LT(static_cast<double>(e.payload.size()), 0.52 * static_cast<double>(tail.size()));
    EXPECT_EQ(decoded(e, {copy}), tail);
}

TEST(Cast, TheBetterOfTwoBases) {
    Buffer master = weights(100'000, 1), copy = cast(master, kDtypeF32, kDtypeBF16), other = weights(100'000, 2);
    Encoded e = encoded(copy, kBF16, {base_of(1, cast(other, kDtypeF32, kDtypeBF16)), base_of(2, master, kDtypeF32)});
    ASSERT_EQ(e.header.bases.size(), 1u);
    EXPECT_EQ(e.header.bases[0].id, id(2));
    EXPECT_EQ(decoded(e, {master}), copy);
}

// Three states of a training with momentum.
struct Series {
    Buffer before, base, raw;
};
Series series(std::size_t n, float momentum, unsigned width = 4) {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    Series out;
    for (std::size_t i = 0; i < n; ++i) {
        float w0 = 0.05f * normal(random), size = std::exp2(normal(random) * 3) * 1e-5f;
        float step = size * normal(random);
        float w1 = w0 + step, w2 = w1 + momentum * step + 0.2f * size * normal(random);
        for (auto [to, v] : {std::pair{&out.before, w0}, {&out.base, w1}, {&out.raw, w2}}) {
            auto bits = std::bit_cast<std::uint32_t>(v);
            for (unsigned b = 4 - width; b < 4; ++b) to->push_back(static_cast<std::byte>(bits >> (8 * b)));
        }
    }
    return out;
}

TEST(LastStep, TellsAboutTheNext) {
    for (float momentum : {0.0f, 0.8f}) {
        Series s = series(200'000, momentum);
        std::vector<Base> bases{base_of(1, s.base), base_of(2, s.before)};
        Encoded plain = encoded(s.raw, kF32, {bases[0]});
        bases[0].before = 1;
        Encoded e = encoded(s.raw, kF32, bases);
        EXPECT_EQ(e.header.coder, Coder::kTensor3);
        EXPECT_LT(static_cast<double>(e.payload.size()),
                  (momentum > 0 ? 0.85 : 0.95) * static_cast<double>(plain.payload.size()));
        EXPECT_EQ(decoded(e, {s.base, s.before}), s.raw);
        EXPECT_EQ(decoded(plain, {s.base}), s.raw);
    }
}

TEST(LastStep, IsNotTakenInVain) {
    Series s = series(100'000, 0);
    Buffer stranger = weights(100'000, 77);
    std::vector<Base> bases{base_of(1, s.base), base_of(2, stranger)};
    bases[0].before = 1;
    Encoded e = encoded(s.raw, kF32, bases);
    EXPECT_EQ(e.header.bases.size(), 1u);
    EXPECT_EQ(e.header.coder, Coder::kTensor);
    EXPECT_EQ(decoded(e, {s.base}), s.raw);
}

// A file that has grown: the state before ends earlier than the base. Behind its end lie differences of sizes that do
// not occur where it reaches, and they need codes, too.
TEST(LastStep, WhatTheStateBeforeDoesNotReach) {
    constexpr std::size_t kReach = 4 * 100'000 + 3, kElements = 300'000;
    std::mt19937 random(12);
    Buffer base = weights(kElements, 1), raw = base, stranger = weights(kElements, 77);
    for (std::size_t i = 0; i < raw.size(); i += 4) {
        raw[i] ^= static_cast<std::byte>(random() & 15);
        if (i < kReach) continue;
        raw[i + 1] ^= static_cast<std::byte>(random());
        if (i % 1000 == 0) raw[i + 3] ^= std::byte{0x80};
    }
    stranger.resize(kReach);
    std::vector<Base> bases{base_of(1, base), base_of(2, stranger)};
    const Encoded plain = encoded(raw, kF32, {bases[0]});
    bases[0].before = 1;
    const Encoded e = encoded(raw, kF32, bases);
    ASSERT_EQ(e.header.bases.size(), 1u) << "of no use";
    for (const Chunk& chunk : e.header.chunks) EXPECT_EQ(chunk.mode, Mode::kDelta);
    EXPECT_EQ(e.payload.size(), plain.payload.size());
    EXPECT_EQ(decoded(e, {base}), raw);
}

// Where it is of use, what it does not reach is coded alone.
TEST(LastStep, EndsWithTheStateBefore) {
    Series s = series(400'000, 0.8f);
    s.before.resize(3 * kChunkSize + 1);
    std::vector<Base> bases{base_of(1, s.base), base_of(2, s.before)};
    bases[0].before = 1;
    const Encoded e = encoded(s.raw, kF32, bases);
    ASSERT_EQ(e.header.bases.size(), 2u);
    for (std::size_t c = 0; c < e.header.chunks.size(); ++c) {
        EXPECT_EQ(e.header.chunks[c].mode, c < 3 ? Mode::kDelta : Mode::kSolo) << c;
    }
    EXPECT_EQ(decoded(e, {s.base, s.before}), s.raw);
}

TEST(LastStep, CopiesBesideIt) {
    Series s = series(400'000, 0.8f);
    std::memcpy(s.raw.data(), s.base.data(), kChunkSize);                              // nothing changed
    std::memcpy(s.raw.data() + kChunkSize, s.before.data() + kChunkSize, kChunkSize);  // changed back
    std::vector<Base> bases{base_of(1, s.base), base_of(2, s.before)};
    bases[0].before = 1;
    Encoded e = encoded(s.raw, kF32, bases);
    EXPECT_EQ(e.header.chunks[0].mode, Mode::kCopy);
    EXPECT_EQ(e.header.chunks[1].mode, Mode::kCopy);
    EXPECT_EQ(e.header.chunks[2].mode, Mode::kDelta);
    std::vector<Buffer> by_slot;
    for (const BaseRef& ref : e.header.bases) by_slot.push_back(ref.id == id(1) ? s.base : s.before);
    EXPECT_EQ(decoded(e, by_slot), s.raw);
}

// Every path writes and reads the same, whatever the values are.
TEST(LastStep, EveryPathTheSame) {
    std::mt19937_64 random(5);
    for (unsigned width : {1u, 2u, 4u, 8u}) {
        for (int kind = 0; kind < 4; ++kind) {
            for (std::size_t n : {1u, 63u, 257u, 20'000u}) {
                SCOPED_TRACE(testing::Message() << width << " " << kind << " " << n);
                Hint hint{static_cast<std::uint8_t>(width), Hint::Class::kFloat, false, 0};
                Buffer raw(n * width + 1), base(raw.size()), before(raw.size());
                for (std::size_t i = 0; i < raw.size(); ++i) {
                    base[i] = static_cast<std::byte>(kind == 3 ? 0xff : random());
                    auto near = [&] {
                        return kind == 0 || (kind == 1 && i % width == 0) ? static_cast<std::byte>(random())
                                                                          : std::byte{0};
                    };
                    raw[i] = base[i] ^ near();
                    before[i] = base[i] ^ near();
                }
                DeltaModel model;
                model.buckets = {3, 1};
                LastStep step;
                step.again = static_cast<std::uint8_t>(random() % 33);
                for (unsigned b = 0; b < 7; ++b) step.bounds[b] = static_cast<std::uint8_t>(30 * b + 20);
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
                auto read = TensorModel::read(whole.write(width), hint, Coder::kTensor3);
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

TEST(Parts, PrunedWeightsThatKeptTheirSigns) {
    Buffer raw = weights(120'000, 3);
    std::mt19937 random(4);
    for (std::size_t i = 0; i < raw.size(); i += 4) {
        if (random() % 2 == 0) continue;
        raw[i] = raw[i + 1] = raw[i + 2] = std::byte{0};
        raw[i + 3] &= std::byte{0x80};
    }
    Encoded e = encoded(raw, kF32, {});
    EXPECT_EQ(e.header.coder, Coder::kTensor3);
    // A mask, the signs of the zeros, and the others.
    EXPECT_LT(static_cast<double>(e.payload.size()), 120'000 / 8.0 * (1 + 0.5 + 26.8 / 2) * 1.01);
    EXPECT_EQ(decoded(e, {}), raw);
    raw[4 * 1000] = std::byte{1};  // denormal
    EXPECT_EQ(decoded(encoded(raw, kF32, {}), {}), raw);
}

// Tables and chunks as a damaged pack shows them: no crash, no write beyond the output (under ASan).
TEST(Coder3, AnythingIsAnErrorOrAnOutput) {
    Series s = series(20'000, 0.5f);
    std::vector<Base> bases{base_of(1, s.base), base_of(2, s.before)};
    bases[0].before = 1;
    Buffer copy = cast(s.base, kDtypeF32, kDtypeBF16);
    Encoded with_step = encoded(s.raw, kF32, bases), with_cast = encoded(copy, kBF16, {base_of(1, s.base, kDtypeF32)});
    ASSERT_EQ(with_step.header.coder, Coder::kTensor3);
    ASSERT_EQ(with_cast.header.coder, Coder::kTensor3);
    std::mt19937 random(6);
    BaseReader reader = [&](std::uint8_t, std::uint64_t, MutableBytes out) -> Status {
        for (std::byte& b : out) b = static_cast<std::byte>(random());
        return {};
    };
    for (const Encoded* e : {&with_step, &with_cast}) {
        Buffer header;
        write_header(e->header, header);
        for (int round = 0; round < 2000; ++round) {
            Buffer bytes = header, payload = e->payload;
            for (unsigned i = random() % 4; i > 0; --i)
                bytes[random() % bytes.size()] = static_cast<std::byte>(random());
            for (unsigned i = payload.empty() ? 0 : random() % 4; i > 0; --i)
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
