// SPDX-License-Identifier: Apache-2.0
// Bases, prefixes, better layouts, huge payloads, hostile packs, the golden pack.
#include "store/pack_format.hpp"
#include "store/records.hpp"
#include "store_fixture.hpp"
#include "support/golden_dir.hpp"

namespace coral::store::test {
namespace {

namespace fs = boost::filesystem;
using ObjectTest = StoreTest;

TEST_F(ObjectTest, ChainsOfBasesEndAtTheLimit) {
    Buffer raw = noise(1 << 20, 1);
    std::vector<Buffer> versions{raw};
    SegmentId base = put(raw);
    for (std::uint64_t v = 1; v < 12; ++v) {
        Buffer changed = noise(1000, v);
        std::copy(changed.begin(), changed.end(), raw.begin() + static_cast<std::ptrdiff_t>((v % 4) << 18));
        base = put(*store_, raw, {}, {{base, 0}});
        versions.push_back(raw);
        auto info = store_->segment_info(base);
        ASSERT_OK(info);
        EXPECT_LE(info->depth, codec::kMaxDepth);
        if (v <= codec::kMaxDepth) {
            EXPECT_EQ(info->depth, v);
            EXPECT_EQ(info->chunks_by_mode[codec::Mode::kCopy], 15u);
            EXPECT_LT(info->stored_bytes, 80'000u);
        }
        if (v > codec::kMaxDepth) {  // behind the end of the chain: all refer to the state before its last one
            EXPECT_EQ(info->depth, codec::kMaxDepth);
            EXPECT_EQ(info->chunks_by_mode[codec::Mode::kCopy], 16 - std::min<std::uint64_t>(v - 6, 4));
        }
    }
    for (const Buffer& v : versions) expect_segment(*store_, v);
    reopen();
    for (auto v = versions.rbegin(); v != versions.rend(); ++v) expect_segment(*store_, *v);
    auto problems = store_->verify(true, nullptr);
    ASSERT_OK(problems);
    EXPECT_TRUE(problems->empty());
}

TEST_F(ObjectTest, TheDepthOfChainsCanBeLimited) {
    for (std::uint64_t limit : {0u, 1u, 3u}) {
        options_.max_depth = limit;
        reopen();
        Buffer raw = noise(1 << 20, 100 + limit);
        SegmentId base = put(raw);
        for (std::uint64_t v = 1; v < 6; ++v) {
            Buffer changed = noise(1000, 10 * limit + v);
            std::copy(changed.begin(), changed.end(), raw.begin());
            base = put(*store_, raw, {}, {{base, 0}});
            auto info = store_->segment_info(base);
            ASSERT_OK(info);
            EXPECT_EQ(info->depth, std::min(v, limit));
            expect_segment(*store_, raw);
        }
    }
}

TEST_F(ObjectTest, CandidatesThatDoNotServeAreIgnored) {
    Buffer raw = noise(300'000, 1), small = noise(500, 2);
    SegmentId small_id = put(small);
    SegmentId id = put(*store_, raw, codec::Hint{4, codec::Hint::Class::kFloat, false, 12},
                       {{segment_id(noise(3, 3)), 0}, {small_id, 0}, {small_id, ~std::uint64_t{3}}});
    EXPECT_EQ(store_->segment_info(id)->depth, 0);
    expect_segment(*store_, raw);
}

TEST_F(ObjectTest, PrefixesFindWhatBeginsWithThem) {
    std::vector<AnyId> ids;
    for (std::uint64_t i = 0; i < 300; ++i) {
        Buffer raw = noise(20, i);
        ids.push_back(object_id(Kind::kCommit, raw));
        ASSERT_OK(store_->put_object(Kind::kCommit, ids.back(), raw));
        if (i == 150) ASSERT_OK(store_->sync());  // half in the database, half in memory
    }
    for (std::size_t digits : {1u, 2u, 3u, 7u, 64u}) {
        std::string prefix = ids[7].hex().substr(0, digits);
        std::vector<AnyId> expected;
        for (const AnyId& id : ids) {
            if (id.hex().starts_with(prefix)) expected.push_back(id);
        }
        std::sort(expected.begin(), expected.end());
        auto found = store_->find_prefix(Kind::kCommit, prefix, 1000);
        ASSERT_OK(found);
        EXPECT_EQ(*found, expected);
    }
    EXPECT_EQ(store_->find_prefix(Kind::kCommit, "", 10)->size(), 10u);
    EXPECT_EQ(store_->find_prefix(Kind::kTree, "", 10)->size(), 0u);
    EXPECT_FALSE(store_->find_prefix(Kind::kCommit, "xyz", 10).ok());
    EXPECT_EQ(store_->find_prefix(Kind::kCommit, std::string(65, 'a'), 10)->size(), 0u);
}

TEST_F(ObjectTest, ABetterLayoutReplacesAWorseOne) {
    Buffer content = noise(100'000, 1);
    FileRecord plain = put_file(*store_, content);
    EXPECT_TRUE(store_->put_file(plain)->existed);
    FileRecord parsed = plain;
    parsed.parser = 1;
    parsed.parser_version = 1;
    parsed.tensors.push_back({"w", 12, false, {25'000}, 0, 100'000, 5});
    EXPECT_FALSE(store_->put_file(parsed)->existed);
    EXPECT_EQ((*store_->file(plain.id))->parser, 1);
    FileRecord better = parsed;
    better.parser_version = 2;
    EXPECT_FALSE(store_->put_file(better)->existed);
    EXPECT_TRUE(store_->put_file(plain)->existed) << "never back to a worse one";
    ASSERT_OK(store_->sync());
    reopen();
    EXPECT_EQ((*store_->file(plain.id))->parser_version, 2);
    expect_file(*store_, content);
}

TEST_F(ObjectTest, AFileWhoseSegmentIsMissingIsNotThere) {
    FileRecord record;
    record.segments = {segment_id(noise(100, 1))};
    record.extents = {{0, 0, 100}};
    record.size = 100;
    record.id = FileId::from(Sha256::of(noise(100, 1)));
    ASSERT_OK(store_->put_file(record));
    EXPECT_FALSE(*store_->contains(Kind::kFile, AnyId::from(record.id)));
    Buffer out(100);
    EXPECT_EQ(store_->read_file(record, 0, out).error().code, Errc::kNotFound);
    put(noise(100, 1));
    EXPECT_TRUE(*store_->contains(Kind::kFile, AnyId::from(record.id)));
    expect_file(*store_, noise(100, 1));
}

TEST_F(ObjectTest, AnExtentBeyondItsSegmentIsCorruptNotZeros) {
    SegmentId id = put(noise(1000, 1));
    FileRecord record;
    record.segments = {id};
    record.extents = {{0, 500, 600}};
    record.size = 600;
    Buffer out(600);
    EXPECT_EQ(store_->read_file(record, 0, out).error().code, Errc::kCorrupt);
    ASSERT_OK(store_->sync());
    EXPECT_EQ(store_->read_file(record, 0, out).error().code, Errc::kCorrupt);
    record.extents[0] = {3, 0, 600};
    EXPECT_EQ(store_->read_file(record, 0, out).error().code, Errc::kCorrupt);
    record.extents.clear();
    EXPECT_EQ(store_->read_file(record, 0, out).error().code, Errc::kCorrupt);
}

TEST_F(ObjectTest, HugePayloadsAreCutIntoSegments) {
    os_.skip_sync = true;
    reopen(os_);
    Buffer raw = noise(40u << 20, 1);
    AnyId id = object_id(Kind::kTree, raw);
    ASSERT_OK(store_->put_object(Kind::kTree, id, raw));
    EXPECT_EQ(*store_->object(Kind::kTree, id), raw);
    FileRecord file;
    file.id = FileId::from(id);
    for (std::uint32_t i = 0; i < 600'000; ++i) {
        Buffer name = noise(8, i);
        file.segments.push_back(segment_id(name));
    }
    file.extents = {{0, 0, 5}};
    file.size = 5;
    ASSERT_OK(store_->put_file(file));
    ASSERT_OK(store_->sync());
    reopen(os_);
    EXPECT_EQ(*store_->object(Kind::kTree, id), raw);
    auto got = store_->file(file.id);
    ASSERT_OK(got);
    EXPECT_EQ(**got, file);
}

TEST_F(ObjectTest, TooLargeOrNamelessIsRefused) {
    EXPECT_EQ(store_->put_segment(segment_id({}), {}, {}, {}).error().code, Errc::kInvalid);
    Buffer raw = noise(10, 1);
    EXPECT_EQ(store_->put_segment(SegmentId{}, raw, {}, {}).error().code, Errc::kInvalid);
    EXPECT_EQ(store_->put_object(Kind::kSegment, Sha256::of(raw), raw).error().code, Errc::kInvalid);
    RefHint hint;
    hint.name = std::string(70'000, 'a');
    EXPECT_EQ(store_->put_ref_hint(hint).error().code, Errc::kNameTooLong);
    FileRecord lie;
    lie.size = 10;
    EXPECT_FALSE(store_->put_file(lie).ok());
    store_.reset();
    options_.read_only = true;
    reopen();
    EXPECT_EQ(store_->put_segment(segment_id(raw), raw, {}, {}).error().code, Errc::kReadOnly);
    EXPECT_EQ(store_->sync().error().code, Errc::kReadOnly);
}

// A pack that a stranger made: all its sums are right.
class HostileTest : public StoreTest {
  protected:
    void plant(const std::vector<Buffer>& records) {
        FileHeader header{Uuid::random(), repo_, 1, 0};
        Buffer all = encode_file_header(header);
        std::uint64_t seq = 0;
        for (Buffer record : records) {
            seal_record(record, header.uuid, all.size(), ++seq);
            all.insert(all.end(), record.begin(), record.end());
        }
        store_.reset();
        spill(dir_.file("packs/" + header.uuid.text() + ".pack"), std::string(as_text(all)));
        reopen();
    }
};

TEST_F(HostileTest, BasesThatGoInCirclesEnd) {
    SegmentId a = segment_id(noise(1, 1)), b = segment_id(noise(1, 2));
    auto make = [](const SegmentId& id, const SegmentId& base) {
        codec::SegmentHeader h;
        h.raw_length = 1000;
        h.depth = 1;
        h.bases = {{base, 0}};
        h.chunks = {{0, codec::Mode::kCopy, 0, 0}};
        Buffer specific;
        codec::write_header(h, specific);
        return build_record(Kind::kSegment, 0, AnyId::from(id), specific, {});
    };
    plant({make(a, b), make(b, a)});
    EXPECT_EQ(store_->read_segment(a).error().code, Errc::kCorrupt);
    EXPECT_EQ(store_->read_segment(b).error().code, Errc::kCorrupt);
    auto problems = store_->verify(true, nullptr);
    ASSERT_OK(problems);
    EXPECT_GE(problems->size(), 2u);
}

TEST_F(HostileTest, BombsAndUnknownKinds) {
    Buffer zeros(100u << 20);
    ObjectSpecific o;
    o.raw_length = zeros.size();
    o.packing = Packing::kZstd;
    AnyId bomb = Sha256::of(noise(1, 1)), liar = Sha256::of(noise(1, 2)), good = object_id(Kind::kTree, noise(9, 9));
    Buffer packed = codec::compress_small(zeros, 1);
    Buffer bomb_record = build_record(Kind::kFile, 0, bomb, encode_object_specific(Kind::kFile, o), packed);
    o.raw_length = ~std::uint64_t{0};
    Buffer liar_record = build_record(Kind::kTree, 0, liar, encode_object_specific(Kind::kTree, o), packed);
    Buffer skippable = build_record(static_cast<Kind>(99), kFlagSkippable, bomb, {}, noise(10, 1));
    o.raw_length = 9;
    o.packing = Packing::kPlain;
    Buffer good_record = build_record(Kind::kTree, 0, good, encode_object_specific(Kind::kTree, o), noise(9, 9));
    plant({bomb_record, liar_record, skippable, good_record});
    EXPECT_EQ(store_->file(FileId::from(bomb)).error().code, Errc::kCorrupt);
    EXPECT_FALSE(store_->object(Kind::kTree, liar).ok());
    EXPECT_EQ(*store_->object(Kind::kTree, good), noise(9, 9));
    // A kind that may not be skipped: this version cannot know what the pack means.
    Buffer unknown = build_record(static_cast<Kind>(99), 0, bomb, {}, {});
    FileHeader header{Uuid::random(), repo_, 1, 0};
    Buffer all = encode_file_header(header);
    seal_record(unknown, header.uuid, all.size(), 1);
    all.insert(all.end(), unknown.begin(), unknown.end());
    store_.reset();
    spill(dir_.file("packs/" + header.uuid.text() + ".pack"), std::string(as_text(all)));
    auto opened = Store::open(real_os(), dir_.path(), repo_, options_);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code, Errc::kUnsupported);
}

// The bytes of format 1. Written anew only on purpose: CORAL_WRITE_GOLDEN=1.
class GoldenTest : public StoreTest {
  protected:
    void SetUp() override { repo_ = *Uuid::parse("0c0ffee0-0000-4000-8000-00000000c0a1"); }
    static Buffer soft(std::size_t size, unsigned seed) {
        Buffer out(size);
        for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i / (50 + seed) % 11 + seed);
        return out;
    }
    static Buffer version(unsigned v) {
        Buffer raw = soft(300'000, 1);
        for (unsigned i = 0; i < v; ++i) raw[i] = std::byte{0xee};
        return raw;
    }
    void write() {
        create();
        SegmentId first = put(version(0));
        put(*store_, version(3), codec::Hint{4, codec::Hint::Class::kFloat, false, 12}, {{first, 0}});
        FileRecord record = put_file(*store_, soft(30'000, 2), 9000);
        FileRecord parsed = record;
        parsed.parser = 1;
        parsed.parser_version = 1;
        parsed.tensors = {{"model.w", 12, false, {100, 50}, 8, 20'000, 0x12345678}, {"b", 11, true, {}, 20'008, 2, 7}};
        ASSERT_OK(store_->put_file(parsed));
        for (Kind kind : {Kind::kTree, Kind::kCommit, Kind::kTag}) {
            Buffer raw = soft(500, static_cast<unsigned>(kind));
            ASSERT_OK(store_->put_object(kind, object_id(kind, raw), raw));
        }
        ASSERT_OK(store_->put_ref_hint({9, "main", "me", "why", {}, object_id(Kind::kCommit, soft(500, 5)), 123}));
        WorkHint work;
        work.branch = "main";
        work.path = "a/b.bin";
        work.file = record.id;
        ASSERT_OK(store_->put_work_hint(work));
        ASSERT_OK(store_->seal());
        put(version(9));  // an open pack beside it
        ASSERT_OK(store_->sync());
        store_.reset();
        fs::path to = coral::test::golden_dir() + "/store";
        for (const auto& old : fs::directory_iterator(to)) {
            if (old.path().extension() == ".pack") fs::remove(old.path());
        }
        for (const std::string& pack : packs()) fs::copy_file(pack, to / fs::path(pack).filename());
        for (const std::string& pack : packs()) fs::remove(pack);
        for (const char* name : {"index.db", "index.db-wal", "index.db-shm"}) fs::remove(dir_.file(name));
    }
};

TEST_F(GoldenTest, PacksOfFormatOneAreRead) {
    if (std::getenv("CORAL_WRITE_GOLDEN")) write();
    fs::create_directories(dir_.file("packs"));
    int found = 0;
    for (const auto& pack : fs::directory_iterator(coral::test::golden_dir() + "/store")) {
        if (pack.path().extension() != ".pack") continue;
        spill(dir_.file("packs/" + pack.path().filename().string()), slurp(pack.path().string()));
        ++found;
    }
    ASSERT_EQ(found, 2);
    options_.read_only = true;
    reopen();
    for (unsigned v : {0u, 3u, 9u}) expect_segment(*store_, version(v));
    auto info = store_->segment_info(segment_id(version(3)));
    ASSERT_OK(info);
    EXPECT_EQ(info->depth, 1);
    EXPECT_EQ(info->chunks_by_mode[codec::Mode::kCopy], 1u);
    Buffer content = soft(30'000, 2);
    expect_file(*store_, content);
    auto record = store_->file(FileId::from(Sha256::of(content)));
    ASSERT_OK(record);
    ASSERT_EQ((*record)->tensors.size(), 2u);
    EXPECT_EQ((*record)->tensors[0], (TensorEntry{"model.w", 12, false, {100, 50}, 8, 20'000, 0x12345678}));
    for (Kind kind : {Kind::kTree, Kind::kCommit, Kind::kTag}) {
        Buffer raw = soft(500, static_cast<unsigned>(kind));
        EXPECT_EQ(*store_->object(kind, object_id(kind, raw)), raw);
    }
    int hints = 0;
    ASSERT_OK(store_->scan([&](const Uuid&, const RecordView& r) -> Status {
        if (r.kind == Kind::kRef) {
            EXPECT_EQ(decode_ref_hint(r.payload)->reason, "why");
            ++hints;
        }
        if (r.kind == Kind::kWork) {
            EXPECT_EQ(decode_work_hint(r.payload)->path, "a/b.bin");
            ++hints;
        }
        return {};
    }));
    EXPECT_EQ(hints, 2);
    EXPECT_EQ(store_->stats()->sealed_packs, 1u);
    auto problems = store_->verify(true, nullptr);
    ASSERT_OK(problems);
    for (const Problem& p : *problems) ADD_FAILURE() << p.what;
}

}  // namespace
}  // namespace coral::store::test
