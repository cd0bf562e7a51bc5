// SPDX-License-Identifier: Apache-2.0
#include "store/pack_format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "coral/base/hash.hpp"

namespace coral::store {
namespace {

constexpr std::string_view kFileMagic = "CORALF01";
constexpr std::string_view kFooterMagic = "CORALEND";
constexpr std::uint32_t kRecordMagic = 0x31524f43;  // "COR1"
constexpr std::uint16_t kTypePack = 1;
constexpr std::uint16_t kPackVersion = 1;

Error corrupt(std::string what) {
    return make_error(Errc::kCorrupt, std::move(what));
}

}  // namespace

std::string_view kind_name(Kind kind) {
    static constexpr std::string_view kNames[] = {"?",   "SEGMENT", "GROUP", "FILE", "TREE",  "COMMIT",
                                                  "TAG", "REF",     "WORK",  "DROP", "INDEX", "SKETCH"};
    auto n = static_cast<std::size_t>(kind);
    return n < std::size(kNames) ? kNames[n] : "?";
}

bool known_kind(Kind kind) {
    return kind >= Kind::kSegment && kind <= Kind::kSketch;
}

Buffer encode_file_header(const FileHeader& header) {
    Buffer out;
    ByteWriter w(out);
    w.text(kFileMagic).u16(kTypePack).u16(kPackVersion).u32(0).uuid(header.uuid).uuid(header.repo);
    w.i64(header.created_ns).u64(header.ref_seq).u64(0);
    w.u64(xxh3_64(out));
    return out;
}

Result<FileHeader> decode_file_header(Bytes bytes) {
    if (bytes.size() < kFileHeaderSize) return corrupt("file header is cut off");
    bytes = bytes.first(kFileHeaderSize);
    ByteReader r(bytes);
    if (as_text(r.take(8)) != kFileMagic) return corrupt("not a pack");
    std::uint16_t type = r.u16(), version = r.u16();
    std::uint32_t reserved = r.u32();
    FileHeader h;
    h.uuid = r.uuid();
    h.repo = r.uuid();
    h.created_ns = r.i64();
    h.ref_seq = r.u64();
    std::uint64_t reserved2 = r.u64();
    if (r.u64() != xxh3_64(bytes.first(kFileHeaderSize - 8)))
        return corrupt("the checksum of the file header is wrong");
    if (type != kTypePack || version != kPackVersion) {
        return make_error(Errc::kUnsupported,
                          fmt::format("file type {} version {} needs a newer CoralFS", type, version));
    }
    if (reserved != 0 || reserved2 != 0) return corrupt("reserved bits of the file header are set");
    return h;
}

std::uint64_t sum_seed(const Uuid& file, std::uint64_t offset) {
    return load_le<std::uint64_t>(file.bytes.data()) ^ offset;
}

Buffer build_record(Kind kind, std::uint16_t flags, const AnyId& id, Bytes specific, Bytes payload) {
    auto header_length = static_cast<std::uint32_t>(kRecordMinimum + specific.size());
    RecordHeader h;
    h.header_length = header_length;
    h.payload_length = payload.size();
    Buffer out;
    out.reserve(static_cast<std::size_t>(h.total()));
    ByteWriter w(out);
    w.u32(kRecordMagic).u8(static_cast<std::uint8_t>(kind)).u8(1).u16(flags);
    w.u32(header_length).u32(0).u64(payload.size()).u64(0).id(id).raw(specific).u64(0);
    w.raw(payload).u64(0);
    out.resize(static_cast<std::size_t>(h.total()));
    return out;
}

void seal_record(Buffer& record, const Uuid& file, std::uint64_t offset, std::uint64_t seq) {
    std::uint64_t seed = sum_seed(file, offset);
    store_le<std::uint64_t>(record.data() + 24, seq);
    auto header_length = load_le<std::uint32_t>(record.data() + 8);
    auto payload_length = static_cast<std::size_t>(load_le<std::uint64_t>(record.data() + 16));
    Bytes all(record);
    store_le<std::uint64_t>(record.data() + header_length - 8, xxh3_64(all.first(header_length - 8), seed));
    store_le<std::uint64_t>(record.data() + header_length + payload_length,
                            xxh3_64(all.subspan(header_length, payload_length), seed));
}

Result<RecordHeader> peek_record(Bytes fixed) {
    ByteReader r(fixed);
    if (r.u32() != kRecordMagic) return corrupt("no record begins here");
    RecordHeader h;
    h.kind = static_cast<Kind>(r.u8());
    h.version = r.u8();
    h.flags = r.u16();
    h.header_length = r.u32();
    std::uint32_t reserved = r.u32();
    h.payload_length = r.u64();
    h.seq = r.u64();
    h.id = r.id<AnyId>();
    if (!r.ok()) return corrupt("record header is cut off");
    if (reserved != 0) return corrupt("reserved bits of the record header are set");
    if (h.header_length < kRecordMinimum || h.header_length > kMaxHeader) {
        return corrupt(fmt::format("record header of {} bytes", h.header_length));
    }
    if (h.payload_length > kMaxPayload) return corrupt(fmt::format("record payload of {} bytes", h.payload_length));
    return h;
}

Status check_header_sum(Bytes header, const Uuid& file, std::uint64_t offset) {
    std::size_t body = header.size() - 8;
    if (load_le<std::uint64_t>(header.data() + body) != xxh3_64(header.first(body), sum_seed(file, offset))) {
        return corrupt("the checksum of the record header is wrong");
    }
    return {};
}

Buffer encode_index(std::vector<IndexEntry>& entries) {
    std::sort(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) {
        return std::tie(a.id, a.kind, a.offset) < std::tie(b.id, b.kind, b.offset);
    });
    Buffer out;
    ByteWriter w(out);
    for (const IndexEntry& e : entries) {
        w.id(e.id).u8(static_cast<std::uint8_t>(e.kind)).u8(static_cast<std::uint8_t>(e.bases.size())).u16(e.flags);
        w.u32(e.rank).u64(e.offset).u64(e.stored).u64(e.raw).u64(e.payload_sum);
        w.u32(static_cast<std::uint32_t>(e.slots.size()));
        for (const SegmentId& base : e.bases) w.id(base);
        for (const Slot& s : e.slots) w.id(s.id).u32(s.offset).u32(s.length).u16(s.hint);
    }
    return out;
}

Result<std::vector<IndexEntry>> decode_index(Bytes payload, std::uint64_t count, std::uint64_t index_offset) {
    if (count > payload.size() / 76) return corrupt(fmt::format("INDEX claims {} entries", count));
    ByteReader r(payload);
    std::vector<IndexEntry> entries;
    entries.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
        IndexEntry e;
        e.id = r.id<AnyId>();
        e.kind = static_cast<Kind>(r.u8());
        std::uint8_t nbase = r.u8();
        e.flags = r.u16();
        e.rank = r.u32();
        e.offset = r.u64();
        e.stored = r.u64();
        e.raw = r.u64();
        e.payload_sum = r.u64();
        std::uint32_t slots = r.u32();
        if (nbase > codec::kMaxBases || slots > r.left() / 42) return corrupt("INDEX entry with impossible lengths");
        if (e.offset >= index_offset || e.stored > index_offset - e.offset)
            return corrupt("INDEX entry out of the file");
        for (std::uint8_t b = 0; b < nbase; ++b) e.bases.push_back(r.id<SegmentId>());
        for (std::uint32_t s = 0; s < slots; ++s) {
            e.slots.push_back({r.id<SegmentId>(), r.u32(), r.u32(), r.u16()});
        }
        entries.push_back(std::move(e));
    }
    if (!r.at_end()) return corrupt("INDEX payload of a wrong length");
    return entries;
}

Buffer encode_footer(const Footer& footer, const Uuid& file, std::uint64_t offset) {
    Buffer out;
    ByteWriter w(out);
    w.text(kFooterMagic).u64(footer.index_offset).u64(footer.count).id(footer.index_sha);
    w.u64(xxh3_64(out, sum_seed(file, offset)));
    return out;
}

Result<Footer> decode_footer(Bytes bytes, const Uuid& file, std::uint64_t offset) {
    if (bytes.size() != kFooterSize) return corrupt("footer is cut off");
    ByteReader r(bytes);
    if (as_text(r.take(8)) != kFooterMagic) return corrupt("no footer");
    Footer f;
    f.index_offset = r.u64();
    f.count = r.u64();
    f.index_sha = r.id<AnyId>();
    if (r.u64() != xxh3_64(bytes.first(kFooterSize - 8), sum_seed(file, offset))) {
        return corrupt("the checksum of the footer is wrong");
    }
    if (f.index_offset >= offset) return corrupt("footer points behind itself");
    return f;
}

}  // namespace coral::store
