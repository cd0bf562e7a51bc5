// SPDX-License-Identifier: Apache-2.0
// Writes the corpora that no library's file can be: segments, records and objects of our own encoders, and pickles.
// Usage: make_corpus FOLDER. Built on demand (target fuzz_corpus); what it wrote is in corpus/.
#include <bit>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>

#include "coral/base/hash.hpp"
#include "coral/codec/segment_codec.hpp"
#include "coral/repo/objects.hpp"
#include "fuzz/fuzz.hpp"
#include "store/records.hpp"
#include "unit/formats/builders.hpp"

using namespace coral;

namespace {

std::filesystem::path g_folder;

void write(const std::string& target, const std::string& name, Bytes bytes) {
    std::filesystem::create_directories(g_folder / target);
    std::ofstream file(g_folder / target / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// With the byte before it that tells the target what it is.
void write_as(const std::string& target, const std::string& name, std::uint8_t selector, Bytes bytes) {
    Buffer out;
    ByteWriter(out).u8(selector).raw(bytes);
    write(target, name, out);
}

Buffer base_bytes(std::size_t size) {
    Buffer out(size);
    for (std::size_t i = 0; i < size; ++i) out[i] = fuzz::base_byte(i);
    return out;
}

void write_segment(const std::string& name, const Buffer& raw, codec::Hint hint, std::span<const codec::Base> bases) {
    const Result<codec::Encoded> encoded = codec::encode_segment(raw, hint, bases);
    fuzz::require(encoded.ok(), "the encoder encodes");
    Buffer header, out;
    codec::write_header(encoded->header, header);
    ByteWriter(out).u32(static_cast<std::uint32_t>(header.size())).raw(header).raw(encoded->payload);
    const auto mode = static_cast<int>(encoded->header.chunks.front().mode);
    std::cout << name << ": mode " << mode << ", " << out.size() << " bytes\n";
    write("codec", name, out);
}

void write_segment(const std::string& name, const Buffer& raw, codec::Hint hint, bool with_base) {
    const Buffer base = base_bytes(raw.size());
    std::vector<codec::Base> bases;
    if (with_base) bases.push_back({SegmentId{}, 0, 0, base});
    write_segment(name, raw, hint, bases);
}

// w - m / 1024, with second moments of one: the simplest step of Adam.
void write_adam() {
    Buffer now, before, first, second;
    auto put = [](Buffer& out, float v) { ByteWriter(out).u32(std::bit_cast<std::uint32_t>(v)); };
    for (std::uint32_t i = 0; i < 1500; ++i) {
        const auto noise = static_cast<float>(i * 2654435761u >> 20) - 2048.0F;
        const float w = (noise + 0.25F) / 65536.0F, m = static_cast<float>(i * 40503u >> 3 & 255u) / 4096.0F;
        put(now, w - m / 1024.0F);
        put(before, w);
        put(first, m);
        put(second, 1.0F);
    }
    std::vector<codec::Base> bases;
    for (const Buffer* raw : {&before, &first, &second}) {
        SegmentId id;
        id.bytes[0] = static_cast<std::byte>(bases.size() + 1);
        bases.push_back({id, 0, 0, *raw});
    }
    bases[0].inputs = codec::Base::Inputs{codec::Formula::kAdamWeights, 1, 2};
    write_segment("float32-adam", now, {4, codec::Hint::Class::kFloat, false, 12}, bases);
}

// Weights that decayed, step by step: classes by the mantissa.
void write_decayed() {
    Buffer now, before;
    for (std::uint32_t i = 0; i < 16'384; ++i) {
        float w = (static_cast<float>(i * 2654435761u >> 14) - 131072.0F) / 4194304.0F;
        ByteWriter(before).u32(std::bit_cast<std::uint32_t>(w));
        for (int step = 0; step < 20; ++step) w *= 1 - 0x1p-22F;
        ByteWriter(now).u32(std::bit_cast<std::uint32_t>(w));
    }
    const codec::Base base{SegmentId{}, 0, 0, before};
    write_segment("float32-decayed", now, {4, codec::Hint::Class::kFloat, false, 12}, std::span(&base, 1));
}

// Scales and nibbles, as in Q4_0.
void write_blocks() {
    Buffer raw;
    for (std::uint32_t i = 0; i < 150; ++i) {
        ByteWriter(raw).u16(static_cast<std::uint16_t>(0x1c00u + (i * 40503u >> 4 & 1023u)));
        for (std::uint32_t b = 0; b < 16; ++b) {
            raw.push_back(static_cast<std::byte>((i * 16 + b) * 2654435761u >> 21 & 119u));
        }
    }
    write_segment("blocks", raw, {1, codec::Hint::Class::kInteger, false, 24}, false);
}

void write_segments() {
    write_adam();
    write_decayed();
    write_blocks();
    using Class = codec::Hint::Class;
    for (const std::uint8_t width : {1, 2, 4, 8}) {
        for (const bool is_float : {true, false}) {
            if (is_float && width == 1) continue;
            const codec::Hint hint{width, is_float ? Class::kFloat : Class::kInteger, false, 0};
            const std::string name = (is_float ? "float" : "integer") + std::to_string(8 * width);
            Buffer raw = base_bytes(3000);
            write_segment(name + "-solo", raw, hint, false);
            write_segment(name + "-copy", raw, hint, true);
            for (std::size_t i = 0; i < raw.size(); i += width) raw[i] ^= static_cast<std::byte>(i / width % 7);
            write_segment(name + "-delta", raw, hint, true);
            if (width == 1) continue;
            for (std::size_t i = 0; i < raw.size(); ++i)
                raw[i] = static_cast<std::byte>(i / width * 2654435761u >> 7 & 3);
            write_segment(name + "-palette", raw, hint, false);
        }
    }
    write_segment("zstd", Buffer(5000, std::byte{'a'}), {}, false);
    Buffer noise(300);
    for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<std::byte>(i * i * 2654435761u >> 13);
    write_segment("raw", noise, {}, false);
    write_segment("two-chunks", base_bytes(codec::kChunkSize + 1000), {4, Class::kFloat, false, 0}, true);
}

store::FileRecord file_record() {
    store::FileRecord record;
    record.size = 100;
    record.parser = 1;
    record.parser_version = 1;
    record.segments = {SegmentId{}, *SegmentId::from_hex(std::string(64, 'a'))};
    record.extents = {{store::Extent::kInline, 0, 10}, {0, 0, 40}, {1, 5, 45}, {store::Extent::kInline, 10, 5}};
    record.inline_bytes = base_bytes(15);
    record.tensors = {{"layer.weight", 12, false, {5, 2}, 10, 40, 0x12345678}, {"b", 4, true, {}, 50, 2, 1}};
    return record;
}

void write_records() {
    using namespace store;
    const Buffer file = encode_file_record(file_record());
    write("file_record", "two-segments", file);
    write("file_record", "empty", encode_file_record({}));
    RefHint ref;
    ref.name = "heads/main";
    ref.actor = "somebody";
    ref.reason = "commit: one";
    write("hint", "ref", encode_ref_hint(ref));
    WorkHint work;
    work.branch = "main";
    work.path = "models/a.safetensors";
    write("hint", "work", encode_work_hint(work));

    Buffer header;
    const Result<codec::Encoded> encoded = codec::encode_segment(base_bytes(1000), {}, {});
    codec::write_header(encoded->header, header);
    write_as("pack", "segment", 0, build_record(Kind::kSegment, 0, AnyId{}, header, encoded->payload));
    GroupSpecific group{{{SegmentId{}, 0, 400, 0}, {SegmentId{}, 400, 600, 0}}, encoded->header};
    write_as("pack", "group-record", 0, build_record(Kind::kGroup, 0, AnyId{}, encode_group(group), encoded->payload));
    write_as("pack", "group", 1, encode_group(group));
    ObjectSpecific object;
    object.raw_length = file.size();
    object.file_size = 100;
    object.parser = 1;
    const Buffer of_file = encode_object_specific(Kind::kFile, object);
    write_as("pack", "file-record", 0, build_record(Kind::kFile, 0, AnyId{}, of_file, file));
    write_as("pack", "file-header", 2, encode_file_header({}));
    write_as("pack", "footer", 3, encode_footer({4096, 2, AnyId{}}, Uuid{}, 1 << 20));
    IndexEntry entry;
    entry.kind = Kind::kSegment;
    entry.offset = 80;
    entry.stored = 200;
    entry.raw = 1000;
    entry.bases = {SegmentId{}};
    IndexEntry second = entry;
    second.id = *AnyId::from_hex(std::string(64, 'b'));
    second.kind = Kind::kGroup;
    second.offset = 400;
    second.bases.clear();
    second.slots = group.slots;
    std::vector<IndexEntry> entries{entry, second};
    write_as("pack", "index", 4, encode_index(entries));
    write_as("pack", "object", 5, of_file);
    write_as("pack", "zstd", 6, codec::compress_small(base_bytes(500)));
}

void write_objects() {
    using namespace repo;
    Tree tree;
    const AnyId id = *AnyId::from_hex(std::string(64, 'c'));
    tree.entries = {{"dir", EntryType::kDirectory, 0755, 0, 0, id, SegmentId{}, ""},
                    {"file", EntryType::kFile, 0644, 100, 1'700'000'000'000'000'000, id, SegmentId{}, ""}};
    const std::string link = "dir/file";
    tree.entries.push_back(
        {"link", EntryType::kSymlink, 0777, link.size(), 0, Sha256::of(as_bytes(link)), SegmentId{}, link});
    fuzz::require(check_tree(tree).ok(), "the tree is one");
    write_as("object", "tree", 0, encode_tree(tree));
    write_as("object", "tree-empty", 0, encode_tree({}));
    const Person person{"A Name", "a@example.org", 1'700'000'000'123'456'789, 90};
    Commit commit{TreeId::from(id), {CommitId::from(id)}, person, person, {{"loss", "0.25"}, {"step", "100"}}, "",
                  "message\n"};
    write_as("object", "commit", 1, encode_commit(commit));
    commit.signature = "ed25519 YWJj";
    commit.parents = {};
    commit.meta = {};
    write_as("object", "commit-signed", 1, encode_commit(commit));
    write_as("object", "tag", 2, encode_tag({CommitId::from(id), "v1", person, "a tag\n", ""}));
    write_as("object", "xattrs", 3, encode_xattrs({{"user.a", "1"}, {"user.b", std::string(100, 'v')}}));
}

void write_pickles() {
    using formats::test::Pickle;
    Pickle state;
    state.raw("}(").text("w").tensor("FloatStorage", "0", 6, {2, 3}).text("b").tensor("HalfStorage", "1", 2, {2});
    write("pickle", "state-dict", as_bytes(state.raw("u").stop()));
    Pickle nested;
    nested.raw("}").text("a").raw("](").tensor("LongStorage", "0", 1, {}).raw("K\1N\x88").raw("e").raw("s");
    write("pickle", "nested", as_bytes(nested.stop()));
    Pickle object;
    object.global("a.module", "Class").raw(")\x81}(").text("_parameters").raw("}").text("w");
    object.tensor("FloatStorage", "0", 1, {1}).raw("sub");
    write("pickle", "object", as_bytes(object.stop()));
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) {
        std::cerr << "usage: make_corpus FOLDER\n";
        return 2;
    }
    g_folder = words[1];
    write_segments();
    write_records();
    write_objects();
    write_pickles();
}
