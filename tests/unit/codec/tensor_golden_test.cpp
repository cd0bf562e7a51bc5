// SPDX-License-Identifier: Apache-2.0
// Segments of the tensor coder that every later version must decode, on every path. Written only on purpose:
// CORAL_WRITE_GOLDEN=1.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "codec/tensor_model.hpp"
#include "coral/codec/segment_codec.hpp"
#include "support/golden_dir.hpp"

namespace coral::codec {
namespace {

// The same on every machine: integers, and sums and products that are exact or rounded once.
class Dice {
  public:
    explicit Dice(std::uint64_t seed) : state_(seed) {}
    std::uint32_t next() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state_ >> 33);
    }
    // About normal, of spread 0.06.
    float weight() {
        int sum = 0;
        for (int i = 0; i < 12; ++i) sum += static_cast<int>(next() & 255u);
        return static_cast<float>(sum - 1530) * 0x1p-12f + static_cast<float>(next() & 0xffffu) * 0x1p-28f;
    }

  private:
    std::uint64_t state_;
};

struct Case {
    const char* name;
    unsigned width;
    Hint::Class element;
    bool big_endian;
    std::size_t n;
    bool has_base;
    std::function<float(Dice&, float base)> update;
    Mode mode;
};

std::vector<Case> cases() {
    auto noise = [](float step) { return [step](Dice& d, float b) { return b + d.weight() * step; }; };
    auto decay = [](Dice& d, float b) { return d.next() % 3 ? b * 0.99973f : b * 0.99973f + d.weight() * 0x1p-9f; };
    auto prune = [](Dice& d, float b) { return d.next() % 2 ? 0.0f : b; };
    auto sparse = [](Dice& d, float b) { return d.next() % 40 ? b : b + d.weight() * 0x1p-5f; };
    using C = Hint::Class;
    return {{"f32 delta", 4, C::kFloat, false, 5000, true, noise(0x1p-8f), Mode::kDelta},
            {"f32 decayed", 4, C::kFloat, false, 70'000, true, decay, Mode::kDelta},
            {"f32 pruned", 4, C::kFloat, false, 5000, true, prune, Mode::kDelta},
            {"f32 delta, big endian", 4, C::kFloat, true, 5000, true, noise(0x1p-8f), Mode::kDelta},
            {"bf16 sparse", 2, C::kFloat, false, 140'000, true, sparse, Mode::kDelta},
            {"bf16 dense", 2, C::kFloat, false, 5000, true, noise(0x1p-3f), Mode::kDelta},
            {"bf16 alone", 2, C::kFloat, false, 20'000, false, noise(0), Mode::kSolo},
            {"f32 pruned, alone", 4, C::kFloat, false, 20'000, false, prune, Mode::kSolo},
            {"f32 alone", 4, C::kFloat, false, 5000, false, noise(0), Mode::kSolo},
            {"i8 alone", 1, C::kInteger, false, 20'000, false, noise(0), Mode::kSolo}};
}

void put(Buffer& out, const Case& c, float v) {
    auto bits = std::bit_cast<std::uint32_t>(v);
    if (c.width == 1) bits = static_cast<std::uint32_t>(static_cast<int>(v * 256.0f)) << 24;
    Buffer bytes;
    for (unsigned b = 4 - c.width; b < 4; ++b) bytes.push_back(static_cast<std::byte>(bits >> (8 * b)));
    if (c.big_endian) std::reverse(bytes.begin(), bytes.end());
    out.insert(out.end(), bytes.begin(), bytes.end());
}

std::pair<Buffer, Buffer> make(const Case& c) {
    Dice dice(c.n + c.width);
    Buffer raw, base;
    for (std::size_t i = 0; i < c.n; ++i) {
        float b = dice.weight();
        put(base, c, b);
        put(raw, c, c.update(dice, b));
    }
    raw.push_back(std::byte{1});  // an odd tail
    base.push_back(std::byte{2});
    return {raw, base};
}

void write_all(const std::string& path) {
    Buffer all;
    for (const Case& c : cases()) {
        auto [raw, base] = make(c);
        std::vector<Base> bases;
        if (c.has_base) bases.push_back({SegmentId{}, 0, 0, base, std::nullopt, 0, std::nullopt});
        Hint hint{
            .width = static_cast<std::uint8_t>(c.width), .element = c.element, .big_endian = c.big_endian, .detail = 0};
        auto e = encode_segment(raw, hint, bases);
        ASSERT_TRUE(e.ok());
        Buffer header;
        write_header(e->header, header);
        ByteWriter(all).u32(static_cast<std::uint32_t>(header.size())).raw(header);
        ByteWriter(all).u32(static_cast<std::uint32_t>(e->payload.size())).raw(e->payload);
    }
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
}

TEST(TensorGolden, Decodes) {
    const std::string path = coral::test::golden_dir() + "/codec/tensor-2.bin";
    if (std::getenv("CORAL_WRITE_GOLDEN")) write_all(path);
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    ByteReader in(as_bytes(text));
    for (const Case& c : cases()) {
        SCOPED_TRACE(c.name);
        auto [raw, base] = make(c);
        Bytes head = in.take(in.u32());
        Bytes payload = in.take(in.u32());
        ASSERT_TRUE(in.ok()) << path;
        auto header = read_header(head, payload.size());
        ASSERT_TRUE(header.ok()) << header.error().message;
        EXPECT_EQ(header->coder, Coder::kTensor);
        EXPECT_EQ(header->chunks[0].mode, c.mode);
        for (const char* name : {"scalar", "avx2", "avx512"}) {
            const Kernels* k = kernels_named(name);
            if (!k) continue;
            for (std::uint32_t i = 0; i < header->chunk_count(); ++i) {
                std::size_t at = std::size_t{i} << kChunkLog2, length = header->chunk_raw_length(i);
                std::uint32_t begin = header->chunk_stored_begin(i);
                Bytes stored = payload.subspan(begin, header->chunks[i].stored_end - begin);
                Buffer out(length);
                Status done = header->chunks[i].mode == Mode::kDelta
                                  ? decode_delta(*k, *header->model->delta, header->hint, stored,
                                                 {Bytes(base).subspan(at, length), {}}, out)
                                  : decode_solo(*k, *header->model->solo, header->hint, stored, out);
                ASSERT_TRUE(done) << name << ": " << done.error().message;
                EXPECT_TRUE(std::equal(out.begin(), out.end(), raw.begin() + static_cast<std::ptrdiff_t>(at))) << name;
            }
        }
    }
    EXPECT_EQ(in.left(), 0u);
}

// ---- coder 3: a cast base, the last step, planes in two parts; coder 4: a step of Adam, palettes

struct Case3 {
    const char* name;
    Hint hint;
    Buffer raw;
    std::vector<Buffer> bases;  // by slot
    std::uint8_t cast;
    Mode mode;
    Formula formula = Formula::kNone;
};

std::vector<Case3> cases3() {
    constexpr std::uint8_t kBF16 = 11, kF32 = 12;
    const Hint f32{4, Hint::Class::kFloat, false, kF32}, bf16{2, Hint::Class::kFloat, false, kBF16};
    Dice dice(3);
    Buffer before, base, raw, copy, pruned;
    for (int i = 0; i < 40'000; ++i) {
        float w0 = dice.weight(), step = dice.weight() * 0x1p-9f;
        auto put = [](Buffer& out, float v, unsigned bytes) {
            auto bits = std::bit_cast<std::uint32_t>(v);
            for (unsigned b = 4 - bytes; b < 4; ++b) out.push_back(static_cast<std::byte>(bits >> (8 * b)));
        };
        put(before, w0, 4);
        put(base, w0 + step, 4);
        put(raw, w0 + 1.75f * step + dice.weight() * 0x1p-12f, 4);
        put(copy, dice.next() % 50 ? w0 : step, 2);  // cut, not rounded: half of them are one off
        put(pruned, dice.next() % 2 ? w0 : std::copysign(0.0f, w0), 4);
    }
    return {{"f32 after a step", f32, raw, {base, before}, 0, Mode::kDelta},
            {"bf16 of f32", bf16, copy, {before}, kF32, Mode::kDelta},
            {"f32 of bf16", f32, before, {copy}, kBF16, Mode::kDelta},
            {"f32 pruned with signs", f32, pruned, {}, 0, Mode::kSolo}};
}

// Quotients, roots and products that are exact, and one rounded sum each.
std::vector<Case3> cases4() {
    const Hint f32{4, Hint::Class::kFloat, false, 12}, bf16{2, Hint::Class::kFloat, false, 11};
    const Hint i64{8, Hint::Class::kInteger, false, 9};
    Dice dice(4);
    Buffer base, weights, before, moment, spread, variance, later, sixteen, many, large, decays[3], blocks;
    auto put = [](Buffer& out, std::uint64_t bits, unsigned bytes) {
        for (unsigned b = 0; b < bytes; ++b) out.push_back(static_cast<std::byte>(bits >> (8 * b)));
    };
    auto put_float = [&](Buffer& out, float v) { put(out, std::bit_cast<std::uint32_t>(v), 4); };
    for (int i = 0; i < 40'000; ++i) {
        const int size = static_cast<int>(dice.next() % 6) - 12;
        auto small = [&] { return std::ldexp(static_cast<float>(dice.next() % 256) - 128, size - 7); };
        const float w = dice.weight(), m = small(), g = small(), v = dice.weight();
        const float next = 0.5f * m + 0.5f * g, square = v * v;
        put_float(base, w);
        put_float(weights, w - std::ldexp(next, -size - 9));
        put_float(before, m);
        put_float(moment, next);
        put_float(spread, std::ldexp(1.0f, 2 * size));
        put_float(variance, square);
        put_float(later, 0.5f * square + 0.25f * (g * g));
        put_float(sixteen, 0.25f * static_cast<float>(dice.next() % 16));
        float decayed = w;
        const float reach = dice.next() % 8 == 0 ? std::ldexp(1.0f, -static_cast<int>(dice.next() % 10) - 6) : 0;
        for (Buffer& to : decays) {
            put_float(to, decayed);
            for (int step = &to == decays ? 20 : 9; step > 0; --step) decayed *= 1 - 0x1p-22f;
            decayed += dice.weight() * reach;
        }
        if (i % 8 == 0) {
            put(blocks, 0x1c00u + dice.next() % 1024, 2);
            put(blocks, dice.next() | std::uint64_t{dice.next()} << 32, 8);
            put(blocks, dice.next() | std::uint64_t{dice.next()} << 32, 8);
        }
        put(many, dice.next() % 256 * 0x9e37u, 2);
        put(large, dice.next() % 3 * 0x9e3779b97f4a7c15u, 8);
    }
    return {{"weights", f32, weights, {base, moment, spread}, 0, Mode::kDelta, Formula::kAdamWeights},
            {"second moments", f32, later, {variance, moment, before}, 0, Mode::kDelta, Formula::kAdamVariance},
            {"decayed", f32, decays[1], {decays[0]}, 0, Mode::kDelta},
            {"decayed once more", f32, decays[2], {decays[1], decays[0]}, 0, Mode::kDelta},
            {"scales and nibbles", {1, Hint::Class::kInteger, false, 24}, blocks, {}, 0, Mode::kSolo},
            {"f32 of sixteen values", f32, sixteen, {}, 0, Mode::kPalette},
            {"bf16 of 256 values", bf16, many, {}, 0, Mode::kPalette},
            {"i64 of three values", i64, large, {}, 0, Mode::kPalette}};
}

void write_all3(const std::string& path, const std::vector<Case3>& all_cases) {
    Buffer all;
    for (const Case3& c : all_cases) {
        std::vector<Base> bases;
        for (const Buffer& raw : c.bases) {
            Base base;
            base.id.bytes[0] = static_cast<std::byte>(bases.size() + 1);
            base.raw = raw;
            base.dtype = c.cast;
            bases.push_back(base);
        }
        if (bases.size() == 2) bases[0].before = 1;
        if (bases.size() == 3) bases[0].inputs = Base::Inputs{c.formula, 1, 2};
        auto e = encode_segment(c.raw, c.hint, bases);
        ASSERT_TRUE(e.ok());
        Buffer header;
        write_header(e->header, header);
        ByteWriter(all).u32(static_cast<std::uint32_t>(header.size())).raw(header);
        ByteWriter(all).u32(static_cast<std::uint32_t>(e->payload.size())).raw(e->payload);
    }
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
}

void expect_golden(const std::string& path, const std::vector<Case3>& all_cases, Coder coder) {
    if (std::getenv("CORAL_WRITE_GOLDEN")) write_all3(path, all_cases);
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    ByteReader in(as_bytes(text));
    for (const Case3& c : all_cases) {
        SCOPED_TRACE(c.name);
        Bytes head = in.take(in.u32());
        Bytes payload = in.take(in.u32());
        ASSERT_TRUE(in.ok()) << path;
        auto header = read_header(head, payload.size());
        ASSERT_TRUE(header.ok()) << header.error().message;
        EXPECT_EQ(header->coder, coder);
        EXPECT_EQ(header->chunks[0].mode, c.mode);
        ASSERT_EQ(header->bases.size(), c.bases.size());
        BaseReader reader = [&](std::uint8_t slot, std::uint64_t begin, MutableBytes out) -> Status {
            std::copy_n(c.bases.at(slot).begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
            return {};
        };
        Buffer out(header->raw_length);
        ASSERT_EQ(header->raw_length, c.raw.size());
        for (std::uint32_t i = 0; i < header->chunk_count(); ++i) {
            std::uint32_t begin = header->chunk_stored_begin(i);
            Bytes stored = payload.subspan(begin, header->chunks[i].stored_end - begin);
            MutableBytes part =
                MutableBytes(out).subspan(std::size_t{i} << header->chunk_log2, header->chunk_raw_length(i));
            Status done = decode_chunk(*header, i, stored, reader, part);
            ASSERT_TRUE(done) << done.error().message;
        }
        EXPECT_EQ(out, c.raw);
    }
    EXPECT_EQ(in.left(), 0u);
}

TEST(TensorGolden, DecodesCoder3) {
    expect_golden(coral::test::golden_dir() + "/codec/tensor-3.bin", cases3(), Coder::kTensor3);
}

TEST(TensorGolden, DecodesCoder4) {
    expect_golden(coral::test::golden_dir() + "/codec/tensor-4.bin", cases4(), Coder::kTensor4);
}

}  // namespace
}  // namespace coral::codec
