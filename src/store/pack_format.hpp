// SPDX-License-Identifier: Apache-2.0
// The bytes of a pack (docs/format.md, "Pack framing"): file header, record framing, INDEX payload, footer. Pure
// functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"
#include "coral/store/store.hpp"

namespace coral::store {

inline constexpr std::size_t kFileHeaderSize = 80;
inline constexpr std::size_t kFooterSize = 64;
inline constexpr std::size_t kRecordFixed = 64;    // before the kind-specific part
inline constexpr std::size_t kRecordMinimum = 72;  // header without a kind-specific part, with its sum
inline constexpr std::uint32_t kMaxHeader = 1u << 20;
inline constexpr std::uint64_t kMaxPayload = 32u << 20;
inline constexpr std::uint64_t kMaxInlinePayload = 16u << 20;  // a larger FILE or history payload is cut into segments
inline constexpr std::uint64_t kMaxObject = 256u << 20;        // raw bytes of a FILE payload or a history object
inline constexpr std::uint64_t kMaxIndexPayload = 24u << 20;   // a pack is sealed before its INDEX would be larger

inline constexpr std::uint16_t kFlagSkippable = 1;   // a reader that does not know the kind may pass over the record
inline constexpr std::uint16_t kFlagInSegments = 2;  // the payload is a list of ids of segments that hold the real one

struct FileHeader {
    Uuid uuid, repo;
    std::int64_t created_ns = 0;
    std::uint64_t ref_seq = 0;
};
Buffer encode_file_header(const FileHeader& header);
Result<FileHeader> decode_file_header(Bytes bytes);

// Sums depend on the file and the place: a record moved, duplicated or left over from another file does not verify.
std::uint64_t sum_seed(const Uuid& file, std::uint64_t offset);

struct RecordHeader {
    Kind kind{};
    std::uint8_t version = 1;
    std::uint16_t flags = 0;
    std::uint32_t header_length = 0;
    std::uint64_t payload_length = 0;
    std::uint64_t seq = 0;
    AnyId id;

    std::uint64_t specific_length() const { return header_length - kRecordMinimum; }
    std::uint64_t total() const { return (header_length + payload_length + 8 + 7) & ~std::uint64_t{7}; }
};
// A whole record; `seq` and both sums are filled in by seal_record once its place is known.
Buffer build_record(Kind kind, std::uint16_t flags, const AnyId& id, Bytes specific, Bytes payload);
void seal_record(Buffer& record, const Uuid& file, std::uint64_t offset, std::uint64_t seq);
// The first 64 bytes: lengths are within the limits afterwards. Nothing is proved yet.
Result<RecordHeader> peek_record(Bytes fixed);
// `bytes` holds the whole header (header_length): checks the sum.
Status check_header_sum(Bytes header, const Uuid& file, std::uint64_t offset);
bool known_kind(Kind kind);

// One record as the INDEX record and the index know it.
struct Slot {
    SegmentId id;
    std::uint32_t offset = 0, length = 0;  // in the group's block
    std::uint16_t hint = 0;
    bool operator==(const Slot&) const = default;
};
struct IndexEntry {
    AnyId id;
    Kind kind{};
    std::uint16_t flags = 0;
    std::uint32_t rank =
        0;  // of several records of one id the smallest is taken: depth, or how good a FILE's layout is
    std::uint64_t offset = 0, stored = 0, raw = 0, payload_sum = 0;
    std::vector<SegmentId> bases;
    std::vector<Slot> slots;
    std::uint64_t encoded_size() const { return 76 + bases.size() * 32 + slots.size() * 42; }
    bool operator==(const IndexEntry&) const = default;
};
Buffer encode_index(std::vector<IndexEntry>& entries);  // sorts them
Result<std::vector<IndexEntry>> decode_index(Bytes payload, std::uint64_t count, std::uint64_t index_offset);

struct Footer {
    std::uint64_t index_offset = 0, count = 0;
    AnyId index_sha;
};
Buffer encode_footer(const Footer& footer, const Uuid& file, std::uint64_t offset);
Result<Footer> decode_footer(Bytes bytes, const Uuid& file, std::uint64_t offset);

}  // namespace coral::store
