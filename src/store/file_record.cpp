// SPDX-License-Identifier: Apache-2.0
// The payload of FILE records and of the hints (docs/format.md, "FILE", "REF", "WORK").
#include <fmt/format.h>

#include <unordered_set>

#include "coral/base/hash.hpp"
#include "store/pack_format.hpp"

namespace coral::store {
namespace {

constexpr std::uint32_t kMaxName = 1u << 20;
constexpr std::uint16_t kMaxRank = 1024;
constexpr std::uint8_t kTensorBigEndian = 1;

Error corrupt(std::string what) {
    return make_error(Errc::kCorrupt, "file record: " + std::move(what));
}

struct Counts {
    std::uint32_t segments = 0, extents = 0, inline_bytes = 0, tensors = 0;
};

Status read_extents(ByteReader& r, const Counts& counts, FileRecord& record) {
    std::uint64_t position = 0;
    record.extents.reserve(counts.extents);
    record.positions.reserve(counts.extents);
    for (std::uint32_t i = 0; i < counts.extents; ++i) {
        Extent e{r.u32(), r.u64(), r.u64()};
        bool is_inline = e.segment == Extent::kInline;
        if (!is_inline && e.segment >= counts.segments) return corrupt(fmt::format("extent {} of no segment", i));
        std::uint64_t room = is_inline ? counts.inline_bytes : codec::kMaxSegment, end = 0;
        if (e.length == 0 || !checked_add(e.offset, e.length, end) || end > room) {
            return corrupt(fmt::format("extent {} does not fit its segment", i));
        }
        record.extents.push_back(e);
        record.positions.push_back(position);
        if (!checked_add(position, e.length, position)) return corrupt("extents overflow");
    }
    if (position != record.size) return corrupt(fmt::format("extents sum to {} of {} bytes", position, record.size));
    return {};
}

Status read_tensors(ByteReader& r, const Counts& counts, FileRecord& record) {
    std::uint64_t end = 0;
    record.tensors.reserve(counts.tensors);
    for (std::uint32_t i = 0; i < counts.tensors; ++i) {
        TensorEntry t;
        std::uint32_t name = r.u32();
        if (name > kMaxName) return corrupt(fmt::format("tensor {} has a name of {} bytes", i, name));
        t.name = std::string(as_text(r.take(name)));
        t.dtype = r.u8();
        std::uint8_t flags = r.u8();
        std::uint16_t rank = r.u16();
        if (flags > kTensorBigEndian || rank > kMaxRank) return corrupt(fmt::format("tensor {} of a wrong form", i));
        t.big_endian = flags != 0;
        for (std::uint16_t d = 0; d < rank && r.ok(); ++d) t.shape.push_back(r.u64());
        t.offset = r.u64();
        t.length = r.u64();
        t.crc32 = r.u32();
        if (!r.ok()) return corrupt("cut off");
        std::uint64_t tensor_end = 0;
        if (t.offset < end || !checked_add(t.offset, t.length, tensor_end) || tensor_end > record.size) {
            return corrupt(fmt::format("tensor {} lies outside the file or on another", i));
        }
        end = tensor_end;
        record.tensors.push_back(std::move(t));
    }
    return {};
}

}  // namespace

bool FileRecord::operator==(const FileRecord& other) const {
    return id == other.id && size == other.size && parser == other.parser && parser_version == other.parser_version &&
           segments == other.segments && extents == other.extents && inline_bytes == other.inline_bytes &&
           tensors == other.tensors;
}

Buffer encode_file_record(const FileRecord& record) {
    Buffer out;
    out.reserve(64 + record.segments.size() * 32 + record.extents.size() * 20 + record.inline_bytes.size() +
                record.tensors.size() * 96);
    ByteWriter w(out);
    w.u64(record.size).u16(record.parser).u16(record.parser_version).u32(0);
    w.u32(static_cast<std::uint32_t>(record.segments.size())).u32(static_cast<std::uint32_t>(record.extents.size()));
    w.u32(static_cast<std::uint32_t>(record.inline_bytes.size()));
    w.u32(static_cast<std::uint32_t>(record.tensors.size()));
    for (const SegmentId& id : record.segments) w.id(id);
    for (const Extent& e : record.extents) w.u32(e.segment).u64(e.offset).u64(e.length);
    w.raw(record.inline_bytes);
    for (const TensorEntry& t : record.tensors) {
        w.u32(static_cast<std::uint32_t>(t.name.size()))
            .text(t.name)
            .u8(t.dtype)
            .u8(t.big_endian ? kTensorBigEndian : 0);
        w.u16(static_cast<std::uint16_t>(t.shape.size()));
        for (std::uint64_t n : t.shape) w.u64(n);
        w.u64(t.offset).u64(t.length).u32(t.crc32);
    }
    return out;
}

Result<FileRecord> decode_file_record(const FileId& id, Bytes payload) {
    ByteReader r(payload);
    FileRecord record;
    record.id = id;
    record.size = r.u64();
    record.parser = r.u16();
    record.parser_version = r.u16();
    std::uint32_t reserved = r.u32();
    Counts counts{r.u32(), r.u32(), r.u32(), r.u32()};
    // Every count is held against the bytes that are there before anything is allocated.
    std::uint64_t needed = std::uint64_t{counts.segments} * 32 + std::uint64_t{counts.extents} * 20 +
                           counts.inline_bytes + std::uint64_t{counts.tensors} * 28;
    if (!r.ok() || reserved != 0 || needed > r.left()) return corrupt("its counts do not fit its bytes");
    std::unordered_set<SegmentId> seen;
    record.segments.reserve(counts.segments);
    for (std::uint32_t i = 0; i < counts.segments; ++i) {
        record.segments.push_back(r.id<SegmentId>());
        if (!seen.insert(record.segments.back()).second) return corrupt(fmt::format("segment {} is listed twice", i));
    }
    CORAL_CHECK(read_extents(r, counts, record));
    Bytes bytes = r.take(counts.inline_bytes);
    record.inline_bytes.assign(bytes.begin(), bytes.end());
    CORAL_CHECK(read_tensors(r, counts, record));
    if (!r.at_end()) return corrupt("bytes are left over");
    return record;
}

Buffer encode_ref_hint(const RefHint& hint) {
    Buffer out;
    ByteWriter(out)
        .u64(hint.ref_seq)
        .i64(hint.time_ns)
        .id(hint.old_target)
        .id(hint.new_target)
        .text16(hint.name)
        .text16(hint.actor)
        .text16(hint.reason);
    return out;
}

Result<RefHint> decode_ref_hint(Bytes payload) {
    ByteReader r(payload);
    RefHint h;
    h.ref_seq = r.u64();
    h.time_ns = r.i64();
    h.old_target = r.id<AnyId>();
    h.new_target = r.id<AnyId>();
    h.name = r.text16();
    h.actor = r.text16();
    h.reason = r.text16();
    if (!r.at_end()) return make_error(Errc::kCorrupt, "REF record of a wrong length");
    return h;
}

Buffer encode_work_hint(const WorkHint& hint) {
    Buffer out;
    ByteWriter(out)
        .uuid(hint.worktree)
        .id(hint.file)
        .u32(hint.mode)
        .i64(hint.mtime_ns)
        .u8(hint.complete ? 1 : 0)
        .text16(hint.branch)
        .text16(hint.path);
    return out;
}

Result<WorkHint> decode_work_hint(Bytes payload) {
    ByteReader r(payload);
    WorkHint h;
    h.worktree = r.uuid();
    h.file = r.id<FileId>();
    h.mode = r.u32();
    h.mtime_ns = r.i64();
    std::uint8_t complete = r.u8();
    h.complete = complete == 1;
    h.branch = r.text16();
    h.path = r.text16();
    if (!r.at_end() || complete > 1) return make_error(Errc::kCorrupt, "WORK record of a wrong form");
    return h;
}

AnyId object_id(Kind kind, Bytes raw) {
    Sha256 sha;
    static constexpr char kTree[] = "coral tree 1", kCommit[] = "coral commit 1", kTag[] = "coral tag 1";
    switch (kind) {  // the domains include their NUL
        case Kind::kTree:
            sha.update(std::string_view(kTree, sizeof kTree));
            break;
        case Kind::kCommit:
            sha.update(std::string_view(kCommit, sizeof kCommit));
            break;
        case Kind::kTag:
            sha.update(std::string_view(kTag, sizeof kTag));
            break;
        default:
            break;
    }
    return sha.update(raw).finish();
}

}  // namespace coral::store
