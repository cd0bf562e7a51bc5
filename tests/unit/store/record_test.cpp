// SPDX-License-Identifier: Apache-2.0
// Encodings of records: round trips of random values, and lies.
#include <functional>
#include <random>

#include "store/pack_format.hpp"
#include "store/records.hpp"
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

FileRecord random_record(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    FileRecord r;
    r.id = FileId::from(Sha256::of(noise(8, seed)));
    r.parser = static_cast<std::uint16_t>(below(4));
    r.parser_version = static_cast<std::uint16_t>(below(3));
    for (std::uint64_t i = below(20); i > 0; --i) r.segments.push_back(segment_id(noise(9, seed * 100 + i)));
    r.inline_bytes = noise(below(200), seed);
    for (std::uint64_t i = below(40); i > 0; --i) {
        Extent e;
        std::uint64_t room = 0;
        if (!r.segments.empty() && below(4) != 0) {
            e.segment = static_cast<std::uint32_t>(below(r.segments.size()));
            room = codec::kMaxSegment;
        } else {
            room = r.inline_bytes.size();
        }
        if (room == 0) continue;
        e.offset = below(room);
        e.length = 1 + below(room - e.offset);
        r.size += e.length;
        r.extents.push_back(e);
    }
    std::uint64_t at = 0;
    for (std::uint64_t i = below(20); i > 0 && at < r.size; --i) {
        TensorEntry t;
        t.name = std::string(below(300), 'x');
        t.dtype = static_cast<std::uint8_t>(below(26));
        t.big_endian = below(2) != 0;
        for (std::uint64_t d = below(5); d > 0; --d) t.shape.push_back(random());
        t.offset = at + below(r.size - at);
        t.length = below(r.size - t.offset + 1);
        t.crc32 = static_cast<std::uint32_t>(random());
        at = t.offset + t.length;
        r.tensors.push_back(t);
    }
    return r;
}

TEST(FileRecordCoding, RandomRecordsSurvive) {
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        FileRecord r = random_record(seed);
        Buffer bytes = encode_file_record(r);
        auto again = decode_file_record(r.id, bytes);
        ASSERT_TRUE(again.ok()) << seed << ": " << again.error().message;
        ASSERT_EQ(*again, r) << seed;
        ASSERT_EQ(again->positions.size(), r.extents.size());
        EXPECT_EQ(encode_file_record(*again), bytes);
        // Cut anywhere, or with a byte too many: refused.
        for (std::size_t cut = 0; cut < bytes.size(); cut += 1 + bytes.size() / 50) {
            EXPECT_FALSE(decode_file_record(r.id, Bytes(bytes).first(cut)).ok());
        }
        bytes.push_back(std::byte{0});
        EXPECT_FALSE(decode_file_record(r.id, bytes).ok());
    }
}

TEST(FileRecordCoding, FlippedBytesAreRefusedOrSound) {
    FileRecord r = random_record(17);
    Buffer bytes = encode_file_record(r);
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        Buffer bad = bytes;
        bad[at] ^= std::byte{0xff};
        auto got = decode_file_record(r.id, bad);
        if (!got) continue;
        std::uint64_t sum = 0;
        for (const Extent& e : got->extents) {
            ASSERT_TRUE(e.segment == Extent::kInline || e.segment < got->segments.size());
            sum += e.length;
        }
        EXPECT_EQ(sum, got->size);
    }
}

TEST(FileRecordCoding, LiesAreRefused) {
    FileRecord sound;
    sound.segments = {segment_id(noise(1, 1)), segment_id(noise(1, 2))};
    sound.extents = {{0, 0, 100}, {1, 5, 50}, {Extent::kInline, 0, 10}};
    sound.inline_bytes = noise(10, 3);
    sound.size = 160;
    sound.tensors = {{"a", 12, false, {25}, 0, 100, 1}, {"b", 12, false, {5}, 100, 20, 2}};
    ASSERT_TRUE(decode_file_record({}, encode_file_record(sound)).ok());
    const std::pair<const char*, std::function<void(FileRecord&)>> lies[] = {
        {"size", [](FileRecord& r) { r.size = 161; }},
        {"segment index", [](FileRecord& r) { r.extents[0].segment = 2; }},
        {"empty extent", [](FileRecord& r) { r.extents[0].length = 0; }},
        {"extent overflow", [](FileRecord& r) { r.extents[0].offset = ~std::uint64_t{0}; }},
        {"extent too long",
         [](FileRecord& r) {
             r.extents[0].length = r.size = (16u << 20) + 1;
             r.extents.resize(1);
             r.tensors.clear();
         }},
        {"inline too long", [](FileRecord& r) { r.extents[2].offset = 1; }},
        {"segment twice", [](FileRecord& r) { r.segments[1] = r.segments[0]; }},
        {"tensor outside", [](FileRecord& r) { r.tensors[1].length = 61; }},
        {"tensor overflow", [](FileRecord& r) { r.tensors[1].length = ~std::uint64_t{0}; }},
        {"tensors overlap", [](FileRecord& r) { r.tensors[1].offset = 99; }},
        {"tensors out of order", [](FileRecord& r) { std::swap(r.tensors[0], r.tensors[1]); }},
    };
    for (const auto& [what, tell] : lies) {
        FileRecord r = sound;
        tell(r);
        auto got = decode_file_record({}, encode_file_record(r));
        ASSERT_FALSE(got.ok()) << what;
        EXPECT_EQ(got.error().code, Errc::kCorrupt);
    }
    // Counts that would make a reader allocate gigabytes.
    for (std::size_t field : {16, 20, 24, 28}) {
        Buffer bytes = encode_file_record(sound);
        store_le<std::uint32_t>(bytes.data() + field, 0xfffffff0);
        EXPECT_FALSE(decode_file_record({}, bytes).ok());
    }
}

TEST(Hints, RoundTripAndLies) {
    RefHint ref{42, "branches/main", "Ann <a@b>", "commit: epoch 7", AnyId{}, Sha256::of(noise(3, 1)), -5};
    auto ref_again = decode_ref_hint(encode_ref_hint(ref));
    ASSERT_OK(ref_again);
    EXPECT_EQ(ref_again->name, ref.name);
    EXPECT_EQ(ref_again->actor, ref.actor);
    EXPECT_EQ(ref_again->reason, ref.reason);
    EXPECT_EQ(ref_again->new_target, ref.new_target);
    EXPECT_EQ(ref_again->time_ns, -5);
    EXPECT_EQ(ref_again->ref_seq, 42u);
    WorkHint work{Uuid::random(), "main", std::string("a\xff/b", 4), FileId::from(ref.new_target), 0644, 77, false};
    Buffer bytes = encode_work_hint(work);
    auto work_again = decode_work_hint(bytes);
    ASSERT_OK(work_again);
    EXPECT_EQ(work_again->path, work.path);
    EXPECT_EQ(work_again->worktree, work.worktree);
    EXPECT_EQ(work_again->file, work.file);
    EXPECT_FALSE(work_again->complete);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) EXPECT_FALSE(decode_work_hint(Bytes(bytes).first(cut)).ok());
    bytes = encode_ref_hint(ref);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) EXPECT_FALSE(decode_ref_hint(Bytes(bytes).first(cut)).ok());
}

TEST(PackFormat, HeaderFooterAndIndexSurviveAndRefuseFlips) {
    FileHeader header{Uuid::random(), Uuid::random(), -1, 99};
    Buffer bytes = encode_file_header(header);
    ASSERT_EQ(bytes.size(), kFileHeaderSize);
    EXPECT_EQ(decode_file_header(bytes)->ref_seq, 99u);
    Buffer footer = encode_footer({100, 3, Sha256::of(bytes)}, header.uuid, 5000);
    ASSERT_EQ(footer.size(), kFooterSize);
    EXPECT_EQ(decode_footer(footer, header.uuid, 5000)->count, 3u);
    EXPECT_FALSE(decode_footer(footer, header.uuid, 5008).ok()) << "moved";
    for (std::size_t bit = 0; bit < kFileHeaderSize * 8; ++bit) {
        Buffer bad = bytes;
        bad[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        EXPECT_FALSE(decode_file_header(bad).ok());
        if (bit >= kFooterSize * 8) continue;
        bad = footer;
        bad[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
        EXPECT_FALSE(decode_footer(bad, header.uuid, 5000).ok());
    }
    std::vector<IndexEntry> entries(3);
    entries[0] = {Sha256::of(footer), Kind::kSegment, 0, 1, 80, 200, 99, 5, {segment_id(bytes)}, {}};
    entries[1] = {Sha256::of(bytes), Kind::kGroup, 0, 0, 280, 800, 77, 6, {}, {{segment_id(footer), 0, 77, 2}}};
    entries[2] = {AnyId{}, Kind::kRef, 0, 0, 1080, 100, 12, 7, {}, {}};
    Buffer index = encode_index(entries);
    EXPECT_EQ(*decode_index(index, 3, 5000), entries);
    EXPECT_FALSE(decode_index(index, 4, 5000).ok());
    EXPECT_FALSE(decode_index(index, 2, 5000).ok());
    EXPECT_FALSE(decode_index(index, 3, 1100).ok()) << "an entry behind the INDEX";
    EXPECT_FALSE(decode_index(index, ~std::uint64_t{0}, 5000).ok());
    Buffer lie = index;
    store_le<std::uint32_t>(lie.data() + 72, 0xffffffff);
    EXPECT_FALSE(decode_index(lie, 3, 5000).ok());
}

TEST(PackFormat, GroupLiesAreRefused) {
    Buffer block = noise(1000, 1);
    auto e = codec::encode_segment(block, {}, {});
    ASSERT_OK(e);
    GroupSpecific sound{{{segment_id(noise(1, 1)), 0, 400, 0}, {segment_id(noise(1, 2)), 400, 600, 0}}, e->header};
    ASSERT_OK(decode_group(encode_group(sound), e->payload.size()));
    const std::function<void(GroupSpecific&)> lies[] = {
        [](GroupSpecific& g) { g.slots.pop_back(); },    [](GroupSpecific& g) { g.slots.clear(); },
        [](GroupSpecific& g) { g.slots[1].offset = 0; }, [](GroupSpecific& g) { g.slots[1].length = 601; },
        [](GroupSpecific& g) { g.slots[0].length = 0; }, [](GroupSpecific& g) { g.slots[0].hint = 0xffff; },
        [](GroupSpecific& g) { g.header.raw_length--; },
    };
    for (const auto& lie : lies) {
        GroupSpecific g = sound;
        lie(g);
        EXPECT_FALSE(decode_group(encode_group(g), e->payload.size()).ok());
    }
}

}  // namespace
}  // namespace coral::store::test
