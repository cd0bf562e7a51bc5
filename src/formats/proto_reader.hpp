// SPDX-License-Identifier: Apache-2.0
// Reads the wire format of protobuf front to back, in one pass and without a schema. Groups, which nothing has written
// for a decade, are malformed here. Spec: protobuf.dev/programming-guides/encoding.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/limits.hpp"
#include "formats/source_reader.hpp"

namespace coral::formats {

enum class Wire : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct ProtoField {
    std::uint32_t number = 0;
    Wire wire = Wire::kBytes;
    std::uint64_t value = 0;   // of a varint; the fixed ones are only stepped over
    std::uint64_t offset = 0;  // in the file: of the payload
    std::uint64_t length = 0;  // of the payload

    std::uint64_t end() const { return offset + length; }
};

class ProtoReader {
  public:
    // `end`: of the range that `reader` reads, in the file.
    ProtoReader(SourceReader& reader, std::uint64_t end) : reader_(reader), end_(end) {}

    // visit(field) for each field of the message that is the whole range, or the payload of `field`. It may read the
    // payload by one of the functions below; what it leaves is skipped. False when it says so, and when the message
    // does not end with a field's end, or lies too deep.
    template <class Visit>
    bool whole(Visit&& visit) {
        return fields(end_, visit);
    }
    template <class Visit>
    bool message(const ProtoField& field, Visit&& visit) {
        return field.wire == Wire::kBytes && fields(field.end(), visit);
    }

    // visit(number) for each number of a repeated field, packed or not.
    template <class Visit>
    bool numbers(const ProtoField& field, Visit&& visit) {
        if (field.wire == Wire::kVarint) return visit(field.value);
        std::uint64_t number = 0;
        while (position() < field.end()) {
            if (!varint(field.end(), number) || !visit(number)) return false;
        }
        return true;
    }
    // A text that is too long for a name, or no UTF-8, is empty.
    bool text(const ProtoField& field, std::string& out);

  private:
    std::uint64_t position() const { return end_ - reader_.left(); }
    bool varint(std::uint64_t end, std::uint64_t& out);
    bool next(std::uint64_t end, ProtoField& out);
    bool step_over(const ProtoField& field) { return reader_.skip(field.end() - position()); }

    template <class Visit>
    bool fields(std::uint64_t end, Visit&& visit) {
        if (depth_ == kMaxProtoDepth) return false;
        ++depth_;
        bool ok = true;
        for (ProtoField field; ok && position() < end;) ok = next(end, field) && visit(field) && step_over(field);
        --depth_;
        return ok;
    }

    SourceReader& reader_;
    std::uint64_t end_;
    std::uint64_t fields_ = 0;
    std::size_t depth_ = 0;
};

}  // namespace coral::formats
