// SPDX-License-Identifier: Apache-2.0
#include "store/records.hpp"

#include <fmt/format.h>

namespace coral::store {
namespace {

Error corrupt(std::string what) {
    return make_error(Errc::kCorrupt, std::move(what));
}

}  // namespace

Buffer encode_group(const GroupSpecific& group) {
    Buffer out;
    ByteWriter w(out);
    w.u32(static_cast<std::uint32_t>(group.slots.size()));
    for (const Slot& s : group.slots) w.id(s.id).u32(s.offset).u32(s.length).u16(s.hint);
    codec::write_header(group.header, out);
    return out;
}

Result<GroupSpecific> decode_group(Bytes specific, std::uint64_t payload_length) {
    ByteReader r(specific);
    std::uint32_t count = r.u32();
    if (!r.ok() || count == 0 || count > kMaxGroupSlots || count > r.left() / 42) {
        return corrupt(fmt::format("group of {} members", count));
    }
    GroupSpecific g;
    g.slots.reserve(count);
    std::uint64_t expected = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        Slot s{r.id<SegmentId>(), r.u32(), r.u32(), r.u16()};
        if (s.offset != expected || s.length == 0 || s.length > kMaxGroupMember ||
            codec::Hint::unpack(s.hint).pack() != s.hint) {
            return corrupt(fmt::format("group member {} does not fit", i));
        }
        expected += s.length;
        g.slots.push_back(s);
    }
    CORAL_TRY(g.header, codec::read_header(specific.subspan(r.pos()), payload_length));
    if (g.header.raw_length != expected || expected > kMaxGroupBlock || !g.header.bases.empty()) {
        return corrupt("group members do not fill its block");
    }
    return g;
}

Buffer encode_object_specific(Kind kind, const ObjectSpecific& object) {
    Buffer out;
    ByteWriter w(out);
    w.u64(object.raw_length).u8(static_cast<std::uint8_t>(object.packing)).u8(0).u16(0).u32(0);
    if (kind == Kind::kFile) w.u64(object.file_size).u16(object.parser).u16(object.parser_version).u32(0);
    return out;
}

Result<ObjectSpecific> decode_object_specific(Kind kind, Bytes specific) {
    ByteReader r(specific);
    ObjectSpecific o;
    o.raw_length = r.u64();
    std::uint8_t packing = r.u8();
    std::uint64_t reserved = r.u8();
    reserved |= r.u16();
    reserved |= r.u32();
    if (kind == Kind::kFile) {
        o.file_size = r.u64();
        o.parser = r.u16();
        o.parser_version = r.u16();
        reserved |= r.u32();
    }
    if (!r.at_end() || reserved != 0) return corrupt(fmt::format("{} header of a wrong form", kind_name(kind)));
    if (packing > 1) {
        return make_error(Errc::kUnsupported,
                          fmt::format("{} packing {} needs a newer CoralFS", kind_name(kind), packing));
    }
    o.packing = static_cast<Packing>(packing);
    if (o.raw_length > kMaxObject) return corrupt(fmt::format("{} of {} bytes", kind_name(kind), o.raw_length));
    return o;
}

std::uint32_t file_rank(std::uint16_t parser, std::uint16_t parser_version) {
    return (parser == 0 ? 0x10000u : 0u) + (0xffffu - parser_version);
}

Result<IndexEntry> index_entry(const RecordHeader& header, Bytes specific, std::uint64_t offset,
                               std::uint64_t payload_sum) {
    IndexEntry e;
    e.id = header.id;
    e.kind = header.kind;
    e.flags = header.flags;
    e.offset = offset;
    e.stored = header.total();
    e.raw = header.payload_length;
    e.payload_sum = payload_sum;
    switch (header.kind) {
        case Kind::kSegment: {
            CORAL_TRY(codec::SegmentHeader segment, codec::read_header(specific, header.payload_length));
            e.raw = segment.raw_length;
            e.rank = segment.depth;
            for (const codec::BaseRef& base : segment.bases) e.bases.push_back(base.id);
            break;
        }
        case Kind::kGroup: {
            CORAL_TRY(GroupSpecific group, decode_group(specific, header.payload_length));
            e.raw = group.header.raw_length;
            e.slots = std::move(group.slots);
            break;
        }
        case Kind::kFile:
        case Kind::kTree:
        case Kind::kCommit:
        case Kind::kTag: {
            CORAL_TRY(ObjectSpecific object, decode_object_specific(header.kind, specific));
            e.raw = header.kind == Kind::kFile ? object.file_size : object.raw_length;
            if (header.kind == Kind::kFile) e.rank = file_rank(object.parser, object.parser_version);
            break;
        }
        default:
            break;
    }
    return e;
}

}  // namespace coral::store
