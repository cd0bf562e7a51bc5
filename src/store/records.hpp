// SPDX-License-Identifier: Apache-2.0
// The kind-specific parts of record headers (docs/format.md, "Record kinds").
#pragma once

#include <cstdint>
#include <vector>

#include "store/pack_format.hpp"

namespace coral::store {

inline constexpr std::uint32_t kMaxGroupBlock = 1u << 20;
inline constexpr std::uint32_t kMaxGroupMember = 64u << 10;
inline constexpr std::uint32_t kMaxGroupSlots = 16384;

// GROUP: slots that tile the block, then the segment header of the block.
struct GroupSpecific {
    std::vector<Slot> slots;
    codec::SegmentHeader header;
};
Buffer encode_group(const GroupSpecific& group);
Result<GroupSpecific> decode_group(Bytes specific, std::uint64_t payload_length);

// FILE, TREE, COMMIT, TAG: how the payload is packed.
enum class Packing : std::uint8_t { kPlain = 0, kZstd = 1 };
struct ObjectSpecific {
    std::uint64_t raw_length = 0;  // of the unpacked payload
    Packing packing = Packing::kPlain;
    std::uint64_t file_size = 0;       // FILE only
    std::uint16_t parser = 0;          // FILE only
    std::uint16_t parser_version = 0;  // FILE only
};
Buffer encode_object_specific(Kind kind, const ObjectSpecific& object);
Result<ObjectSpecific> decode_object_specific(Kind kind, Bytes specific);

// What the index keeps of a record whose header is at hand (checked). Refuses headers that lie.
Result<IndexEntry> index_entry(const RecordHeader& header, Bytes specific, std::uint64_t offset,
                               std::uint64_t payload_sum);
// Of several FILE records of one id: one with a layout before one without, then the higher parser version.
std::uint32_t file_rank(std::uint16_t parser, std::uint16_t parser_version);

}  // namespace coral::store
