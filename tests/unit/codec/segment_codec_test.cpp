// SPDX-License-Identifier: Apache-2.0
#include "coral/codec/segment_codec.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "coral/base/hash.hpp"
#include "support/golden_dir.hpp"

namespace coral::codec {
namespace {

Buffer noise(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    Buffer out(size);
    for (std::byte& b : out) b = static_cast<std::byte>(random() >> 32);
    return out;
}

Buffer pattern(std::size_t size) {
    Buffer out(size);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i / 100 % 7);
    return out;
}

BaseReader reader_of(std::vector<Buffer> bases) {
    return [bases = std::move(bases)](std::uint8_t slot, std::uint64_t begin, MutableBytes out) -> Status {
        std::fill(out.begin(), out.end(), std::byte{0});
        for (std::size_t i = 0; i < out.size() && begin + i < bases[slot].size(); ++i) out[i] = bases[slot][begin + i];
        return {};
    };
}

Result<Buffer> decode(const SegmentHeader& header, Bytes payload, const BaseReader& base = nullptr) {
    Buffer out(header.raw_length);
    for (std::uint32_t i = 0; i < header.chunk_count(); ++i) {
        std::uint32_t begin = header.chunk_stored_begin(i);
        CORAL_CHECK(
            decode_chunk(header, i, payload.subspan(begin, header.chunks[i].stored_end - begin), base,
                         MutableBytes(out).subspan(std::size_t{i} << header.chunk_log2, header.chunk_raw_length(i))));
    }
    return out;
}

// Encodes, writes the header, reads it again, decodes; returns what was encoded.
Encoded round_trip(Bytes raw, Hint hint = {}, std::vector<Base> bases = {}, std::vector<Buffer> base_bytes = {}) {
    auto encoded = encode_segment(raw, hint, bases);
    EXPECT_TRUE(encoded.ok());
    EXPECT_LE(encoded->payload.size(), raw.size());
    Buffer header;
    write_header(encoded->header, header);
    auto again = read_header(header, encoded->payload.size());
    EXPECT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(again->chunks, encoded->header.chunks);
    EXPECT_EQ(again->bases, encoded->header.bases);
    auto out = decode(*again, encoded->payload, reader_of(std::move(base_bytes)));
    EXPECT_TRUE(out.ok()) << out.error().message;
    EXPECT_TRUE(std::equal(out->begin(), out->end(), raw.begin(), raw.end()));
    return std::move(*encoded);
}

TEST(SegmentCodec, EverySizeAndContent) {
    for (std::size_t size :
         {1u, 2u, 31u, 32u, 33u, 4096u, kChunkSize - 1, kChunkSize, kChunkSize + 1, 3 * kChunkSize + 7}) {
        EXPECT_EQ(round_trip(noise(size, size)).payload.size(), size) << "noise must be stored as it is";
        Encoded e = round_trip(pattern(size));
        if (size >= 4096) {
            EXPECT_LT(e.payload.size(), size / 4);
        }
        round_trip(Buffer(size));
    }
    round_trip(noise(kMaxSegment, 1));
    EXPECT_FALSE(encode_segment({}, {}, {}).ok());
    EXPECT_FALSE(encode_segment(Buffer(kMaxSegment + 1), {}, {}).ok());
}

TEST(SegmentCodec, ChunksAreChosenOneByOne) {
    Buffer raw = noise(kChunkSize, 5);
    Buffer soft = pattern(kChunkSize);
    raw.insert(raw.end(), soft.begin(), soft.end());
    Encoded e = round_trip(raw);
    ASSERT_EQ(e.header.chunk_count(), 2u);
    EXPECT_EQ(e.header.chunks[0].mode, Mode::kRaw);
    EXPECT_EQ(e.header.chunks[1].mode, Mode::kZstd);
}

TEST(SegmentCodec, CopiesFromTheCandidatesThatHelp) {
    Buffer a = noise(4 * kChunkSize, 1), b = noise(6 * kChunkSize + 100, 2);
    Buffer raw(a.begin(), a.begin() + 2 * kChunkSize);                                          // 2 chunks of a
    raw.insert(raw.end(), b.begin() + 2 * kChunkSize + 100, b.begin() + 5 * kChunkSize + 100);  // 3 chunks of b at +100
    Buffer rest = noise(1000, 3);
    raw.insert(raw.end(), rest.begin(), rest.end());
    SegmentId ia{AnyId{}.bytes}, ib{};
    ia.bytes[0] = std::byte{1};
    ib.bytes[0] = std::byte{2};
    Buffer other = noise(kChunkSize, 9);
    std::vector<Base> bases{{SegmentId{}, 0, 0, other}, {ia, 0, 2, a}, {ib, 100, 0, b}};
    Encoded e = round_trip(raw, {}, bases, {b, a});
    ASSERT_EQ(e.header.bases.size(), 2u);
    EXPECT_EQ(e.header.bases[0], (BaseRef{ib, 100}));
    EXPECT_EQ(e.header.bases[1], (BaseRef{ia, 0}));
    EXPECT_EQ(e.header.depth, 3);
    EXPECT_EQ(e.payload.size(), 1000u);
    bases[1].depth = kMaxDepth;  // too deep: as if it were not there
    Encoded shallow = round_trip(raw, {}, bases, {b});
    EXPECT_EQ(shallow.header.bases.size(), 1u);
    // Offsets that are no multiple of the element width, or beyond the base.
    Hint wide{.width = 8, .element = Hint::Class::kFloat, .big_endian = false, .detail = 12};
    bases[2].offset = 101;
    EXPECT_EQ(round_trip(raw, wide, {bases[2]}, {b}).header.bases.size(), 0u);
    bases[2].offset = ~std::uint64_t{0} - 7;
    EXPECT_EQ(round_trip(raw, wide, {bases[2]}, {b}).header.bases.size(), 0u);
}

TEST(SegmentCodec, AppendedRowsShareAllThatWasThere) {
    Buffer old = noise(2 * kChunkSize + 5000, 4), grown = old;
    Buffer rows = noise(3000, 5);
    grown.insert(grown.end(), rows.begin(), rows.end());
    Encoded e = round_trip(grown, {}, {{SegmentId{}, 0, 0, old}}, {old});
    EXPECT_EQ(e.header.chunks[0].mode, Mode::kCopy);
    EXPECT_EQ(e.header.chunks[1].mode, Mode::kCopy);
    EXPECT_EQ(e.header.chunks[2].mode, Mode::kRaw) << "a copy lies wholly inside the base";
}

TEST(SegmentCodec, HintsPackAndRefuseNonsense) {
    for (std::uint8_t width : {1, 2, 4, 8}) {
        for (auto element : {Hint::Class::kBytes, Hint::Class::kInteger, Hint::Class::kFloat}) {
            for (bool big : {false, true}) {
                Hint hint{width, element, big, 25};
                EXPECT_EQ(Hint::unpack(hint.pack()), hint);
            }
        }
    }
    EXPECT_FALSE(
        encode_segment(noise(10, 1), Hint{.width = 3, .element = {}, .big_endian = false, .detail = 0}, {}).ok());
}

TEST(SegmentCodec, ChecksumCatchesEveryFlip) {
    Buffer raw = pattern(50'000);
    auto e = encode_segment(raw, {}, {});
    ASSERT_TRUE(e.ok());
    for (std::size_t at = 0; at < e->payload.size(); ++at) {
        Buffer bad = e->payload;
        bad[at] ^= std::byte{0x10};
        auto out = decode(e->header, bad);
        // Some bits of a zstd frame mean nothing; then the bytes are right.
        if (out) {
            EXPECT_EQ(*out, raw);
        } else {
            EXPECT_EQ(out.error().code, Errc::kCorrupt);
        }
    }
    SegmentHeader lie = e->header;
    lie.chunks[0].raw_sum ^= 1;
    EXPECT_EQ(decode(lie, e->payload).error().code, Errc::kCorrupt);
}

TEST(SegmentHeader, EveryFlippedBitIsReadOrRefusedButNeverTrusted) {
    Buffer base = noise(kChunkSize, 2), raw = base;
    Buffer soft = pattern(kChunkSize + 77);
    raw.insert(raw.end(), soft.begin(), soft.end());
    std::vector<Base> bases{{SegmentId{}, 0, 1, base}};
    auto e =
        encode_segment(raw, Hint{.width = 4, .element = Hint::Class::kFloat, .big_endian = false, .detail = 12}, bases);
    ASSERT_TRUE(e.ok());
    Buffer header;
    write_header(e->header, header);
    for (std::size_t bit = 0; bit < header.size() * 8; ++bit) {
        Buffer bad = header;
        bad[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        auto got = read_header(bad, e->payload.size());
        if (!got) continue;
        ASSERT_LE(got->raw_length, kMaxSegment);
        ASSERT_LE(got->bases.size(), kMaxBases);
        auto out = decode(*got, e->payload, reader_of({base}));
        if (out && out->size() == raw.size()) {
            EXPECT_EQ(*out, raw) << "bit " << bit;
        }
    }
    for (std::size_t cut = 0; cut < header.size(); ++cut) {
        EXPECT_FALSE(read_header(Bytes(header).first(cut), e->payload.size()).ok());
    }
    header.push_back(std::byte{0});
    EXPECT_FALSE(read_header(header, e->payload.size()).ok());
}

struct Lie {
    const char* what;
    std::function<void(SegmentHeader&)> tell;
};

TEST(SegmentHeader, LiesAreRefused) {
    Buffer base = noise(3 * kChunkSize, 2);
    Buffer raw(base.begin() + 8, base.begin() + 2 * kChunkSize + 8);
    Buffer soft = pattern(kChunkSize);
    raw.insert(raw.end(), soft.begin(), soft.end());
    std::vector<Base> bases{{SegmentId{}, 8, 0, base}};
    auto e = encode_segment(raw, Hint{.width = 8, .element = {}, .big_endian = false, .detail = 0}, bases);
    ASSERT_TRUE(e.ok());
    const Lie lies[] = {
        {"raw length 0", [](SegmentHeader& h) { h.raw_length = 0; }},
        {"raw length huge", [](SegmentHeader& h) { h.raw_length = 0xffffffff; }},
        {"too few chunks", [](SegmentHeader& h) { h.chunks.pop_back(); }},
        {"tiny chunks", [](SegmentHeader& h) { h.chunk_log2 = 0; }},
        {"huge chunks", [](SegmentHeader& h) { h.chunk_log2 = 255; }},
        {"depth without base", [](SegmentHeader& h) { h.bases.clear(); }},
        {"base without depth", [](SegmentHeader& h) { h.depth = 0; }},
        {"too deep", [](SegmentHeader& h) { h.depth = 8; }},
        {"three bases", [](SegmentHeader& h) { h.bases.resize(3); }},
        {"base offset odd", [](SegmentHeader& h) { h.bases[0].offset = 9; }},
        {"base offset huge", [](SegmentHeader& h) { h.bases[0].offset = ~std::uint64_t{7}; }},
        {"tables", [](SegmentHeader& h) { h.tables.resize(100); }},
        {"copy of no base", [](SegmentHeader& h) { h.chunks[0].base_slot = 1; }},
        {"copy with bytes", [](SegmentHeader& h) { h.chunks[0].stored_end = 1; }},
        {"mode unknown", [](SegmentHeader& h) { h.chunks[0].mode = static_cast<Mode>(9); }},
        {"mode of another coder", [](SegmentHeader& h) { h.chunks[2].mode = Mode::kSolo; }},
        {"raw of a wrong length", [](SegmentHeader& h) { h.chunks[2].mode = Mode::kRaw; }},
        {"ends backwards", [](SegmentHeader& h) { h.chunks[1].stored_end = 0xffffffff; }},
        {"payload shorter", [](SegmentHeader& h) { h.chunks[2].stored_end -= 1; }},
        {"zstd names a base", [](SegmentHeader& h) { h.chunks[2].base_slot = 1; }},
    };
    for (const Lie& lie : lies) {
        SegmentHeader h = e->header;
        lie.tell(h);
        Buffer bytes;
        write_header(h, bytes);
        auto got = read_header(bytes, e->payload.size());
        ASSERT_FALSE(got.ok()) << lie.what;
        EXPECT_EQ(got.error().code, Errc::kCorrupt) << lie.what;
    }
    SegmentHeader newer = e->header;
    newer.coder = static_cast<Coder>(77);
    Buffer bytes;
    write_header(newer, bytes);
    EXPECT_EQ(read_header(bytes, e->payload.size()).error().code, Errc::kUnsupported);
}

TEST(SmallPayloads, RoundTripAndLimits) {
    for (std::size_t size : {0u, 1u, 1000u, 3u << 20}) {
        Buffer raw = pattern(size), packed = compress_small(raw);
        auto again = decompress_small(packed, size, 4u << 20);
        ASSERT_TRUE(again.ok());
        EXPECT_EQ(*again, raw);
        EXPECT_FALSE(decompress_small(packed, size + 1, 4u << 20).ok());
        if (size > 0) {
            EXPECT_FALSE(decompress_small(packed, size, size - 1).ok());
            EXPECT_FALSE(decompress_small(Bytes(packed).first(packed.size() - 1), size, 4u << 20).ok());
        }
    }
}

// Bytes that every later version must decode. Written only on purpose: CORAL_WRITE_GOLDEN=1.
TEST(SegmentGolden, Decodes) {
    const std::string path = coral::test::golden_dir() + "/codec/generic-1.bin";
    Buffer base = pattern(2 * kChunkSize);
    for (std::size_t i = 0; i < base.size(); i += 3) base[i] = static_cast<std::byte>(i * 2654435761u >> 24);
    Buffer raw(base.begin(), base.begin() + kChunkSize);        // COPY
    Buffer soft = pattern(kChunkSize), hard = noise(3000, 42);  // ZSTD, RAW
    raw.insert(raw.end(), soft.begin(), soft.end());
    raw.insert(raw.end(), hard.begin(), hard.end());
    if (std::getenv("CORAL_WRITE_GOLDEN")) {
        std::vector<Base> bases{{SegmentId{}, 0, 0, base}};
        auto e = encode_segment(raw, Hint{.width = 4, .element = Hint::Class::kFloat, .big_endian = true, .detail = 12},
                                bases);
        ASSERT_TRUE(e.ok());
        Buffer header, all;
        write_header(e->header, header);
        ByteWriter(all).u32(static_cast<std::uint32_t>(header.size())).raw(header).raw(e->payload);
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
    }
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    Bytes all = as_bytes(text);
    ASSERT_GT(all.size(), 4u) << path;
    std::uint32_t length = load_le<std::uint32_t>(all.data());
    auto header = read_header(all.subspan(4, length), all.size() - 4 - length);
    ASSERT_TRUE(header.ok()) << header.error().message;
    EXPECT_EQ(header->hint, (Hint{.width = 4, .element = Hint::Class::kFloat, .big_endian = true, .detail = 12}));
    ASSERT_EQ(header->chunk_count(), 3u);
    EXPECT_EQ(header->chunks[0].mode, Mode::kCopy);
    EXPECT_EQ(header->chunks[1].mode, Mode::kZstd);
    EXPECT_EQ(header->chunks[2].mode, Mode::kRaw);
    auto out = decode(*header, all.subspan(4 + length), reader_of({base}));
    ASSERT_TRUE(out.ok()) << out.error().message;
    EXPECT_EQ(*out, raw);
}

}  // namespace
}  // namespace coral::codec
