// SPDX-License-Identifier: Apache-2.0
#include "formats/proto_reader.hpp"

#include "formats/utf8.hpp"

namespace coral::formats {

// At most ten bytes of seven bits, the lowest first; the tenth has room for one.
bool ProtoReader::varint(std::uint64_t end, std::uint64_t& out) {
    out = 0;
    for (unsigned shift = 0; shift < 64 && position() < end; shift += 7) {
        const int byte = reader_.get();
        if (byte == SourceReader::kEnd || (shift == 63 && byte > 1)) return false;
        out |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) return true;
    }
    return false;
}

bool ProtoReader::next(std::uint64_t end, ProtoField& out) {
    std::uint64_t tag = 0;
    if (++fields_ > kMaxProtoFields || !varint(end, tag) || tag > 0xffffffff || tag >> 3 == 0) return false;
    out = ProtoField{};
    out.number = static_cast<std::uint32_t>(tag >> 3);
    out.wire = static_cast<Wire>(tag & 7);
    switch (out.wire) {
        case Wire::kVarint:
            out.offset = position();
            if (!varint(end, out.value)) return false;
            out.length = position() - out.offset;
            return true;
        case Wire::kBytes:
            if (!varint(end, out.length)) return false;
            break;
        case Wire::kFixed32:
            out.length = 4;
            break;
        case Wire::kFixed64:
            out.length = 8;
            break;
        default:
            return false;
    }
    out.offset = position();
    return out.offset <= end && out.length <= end - out.offset;
}

bool ProtoReader::text(const ProtoField& field, std::string& out) {
    out.clear();
    if (field.wire != Wire::kBytes) return false;
    if (field.length > kMaxNameLength) return true;
    out.resize(static_cast<std::size_t>(field.length));
    if (!reader_.read(std::as_writable_bytes(std::span(out)))) return false;
    if (!is_utf8(out)) out.clear();
    return true;
}

}  // namespace coral::formats
