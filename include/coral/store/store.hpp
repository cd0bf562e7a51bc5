// SPDX-License-Identifier: Apache-2.0
// The object store of a repository: segments, file records and history objects by name, in append-only packs, found
// through a disposable SQLite index. Everything here is thread-safe; several processes may have the same store open.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/ids.hpp"
#include "coral/base/os.hpp"
#include "coral/base/result.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::store {

// On-disk numbers (docs/format.md, "Record kinds"); append only.
enum class Kind : std::uint8_t {
    kSegment = 1,
    kGroup = 2,
    kFile = 3,
    kTree = 4,
    kCommit = 5,
    kTag = 6,
    kRef = 7,
    kWork = 8,
    kDrop = 9,
    kIndex = 10,
    kSketch = 11,
};
std::string_view kind_name(Kind kind);

struct StoreOptions {
    std::uint64_t cache_bytes = 512u << 20;  // decoded chunks and everything in flight
    std::uint64_t pack_bytes = 1u << 30;     // a pack is sealed when it is about this large
    bool read_only = false;
    std::string index_path;  // empty: DIR/index.db; elsewhere for read-only media
};

// A tensor (or storage) as the layout saw it; named bytes [offset, offset+length) of the file.
struct TensorEntry {
    std::string name;
    std::uint8_t dtype = 0;  // formats::Dtype number
    bool big_endian = false;
    std::vector<std::uint64_t> shape;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint32_t crc32 = 0;  // as in zip, of the tensor's bytes
    bool operator==(const TensorEntry&) const = default;
};

// File bytes [position of this extent, + length) are bytes [offset, offset+length) of a segment or of the inline bytes.
struct Extent {
    static constexpr std::uint32_t kInline = 0xffffffff;
    std::uint32_t segment = kInline;  // index into FileRecord::segments
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    bool operator==(const Extent&) const = default;
};

struct FileRecord {
    FileId id;
    std::uint64_t size = 0;
    std::uint16_t parser = 0;  // formats::Parser number
    std::uint16_t parser_version = 0;
    std::vector<SegmentId> segments;  // each once
    std::vector<Extent> extents;      // in file order, lengths sum to size, none empty
    Buffer inline_bytes;
    std::vector<TensorEntry> tensors;  // in file order
    // File offset at which each extent begins; filled by decode_file_record so that a read finds its extent by
    // bisection. May be empty (a record being built); not part of the value.
    std::vector<std::uint64_t> positions;
    bool operator==(const FileRecord& other) const;
};
// Canonical payload of a FILE record (uncompressed) and back; decode checks every index, sum and limit.
Buffer encode_file_record(const FileRecord& record);
Result<FileRecord> decode_file_record(const FileId& id, Bytes payload);

struct BaseCandidate {
    SegmentId id;
    std::uint64_t offset = 0;
    // Its elements are of this float type (formats::Dtype number) and not of the segment's; 0: of the same. If they are
    // wider, `next` follows it in its tensor (zero: nothing does).
    std::uint8_t dtype = 0;
    SegmentId next = {};
};

struct Put {
    bool existed = false;            // nothing was written
    std::uint64_t stored_bytes = 0;  // appended for it (0 when it existed; group members: their share)
    std::uint8_t depth = 0;
};

// What `coral show --storage` and xattrs tell.
struct SegmentInfo {
    SegmentId id;
    std::uint32_t raw_length = 0;
    std::uint64_t stored_bytes = 0;  // of the record; a group member's share of its group
    std::uint8_t depth = 0;
    std::vector<codec::BaseRef> bases;
    std::map<codec::Mode, std::uint32_t> chunks_by_mode;
    Uuid pack;
    std::uint64_t pack_offset = 0;
    bool grouped = false;
};

// Hints for `recover`: written beside every ref change and every ingested worktree file (kinds 7 and 8).
struct RefHint {
    std::uint64_t ref_seq = 0;
    std::string name, actor, reason;
    AnyId old_target, new_target;  // zero: did not exist / was deleted
    std::int64_t time_ns = 0;
};
struct WorkHint {
    Uuid worktree;
    std::string branch, path;
    FileId file;
    std::uint32_t mode = 0;
    std::int64_t mtime_ns = 0;
    bool complete = true;
};
Buffer encode_ref_hint(const RefHint& hint);
Result<RefHint> decode_ref_hint(Bytes payload);
Buffer encode_work_hint(const WorkHint& hint);
Result<WorkHint> decode_work_hint(Bytes payload);

struct StoreStats {
    std::uint64_t packs = 0, sealed_packs = 0;
    std::uint64_t pack_bytes = 0;  // all bytes of all pack files: what the repository costs
    std::map<Kind, std::uint64_t> objects, stored_by_kind, raw_by_kind;
    std::uint64_t cache_hits = 0, cache_misses = 0, cache_bytes = 0;
};

struct Problem {
    enum class Severity { kLost, kDamaged, kWarning } severity = Severity::kWarning;
    std::string what;  // names pack, offset, kind and id
};

// A record as it lies in a pack: for fsck, reindex, recover and tests.
struct RecordView {
    Kind kind{};
    AnyId id;
    std::uint64_t offset = 0, stored_bytes = 0, seq = 0;
    Bytes specific;  // the kind-specific part of the header
    Bytes payload;
};

class Store {
  public:
    // Creates packs/ (DIR exists) and an empty index.
    static Result<std::unique_ptr<Store>> create(Os& os, const std::string& dir, const Uuid& repo,
                                                 const StoreOptions& options);
    // Opens; rebuilds or catches up the index by itself when it is missing, stale, damaged or of another repository.
    static Result<std::unique_ptr<Store>> open(Os& os, const std::string& dir, const Uuid& repo,
                                               const StoreOptions& options);
    virtual ~Store() = default;  // leaves the open pack for the next writer

    // ---- writing. What was put can be read at once; it is durable after sync().
    virtual Result<bool> contains(Kind kind, const AnyId& id) = 0;
    // Encodes (reading candidates' bytes from the store), verifies, appends; small segments gather in GROUP records.
    // The caller has computed id = SHA-256(raw). Candidates that are missing or too deep are ignored.
    virtual Result<Put> put_segment(const SegmentId& id, Bytes raw, codec::Hint hint,
                                    std::span<const BaseCandidate> candidates) = 0;
    virtual Result<Put> put_file(const FileRecord& record) = 0;  // after all its segments
    // kTree, kCommit, kTag: canonical bytes whose domain-separated SHA-256 is `id` (the caller computed it).
    virtual Result<Put> put_object(Kind kind, const AnyId& id, Bytes raw) = 0;
    virtual Status put_ref_hint(const RefHint& hint) = 0;
    virtual Status put_work_hint(const WorkHint& hint) = 0;
    // Everything put before is on stable storage: groups flushed, packs fdatasync'd, packs/ synced when a pack is new.
    virtual Status sync() = 0;

    // ---- reading
    virtual Result<std::shared_ptr<const FileRecord>> file(const FileId& id) = 0;  // cached
    // Fills `out` from file offset `offset`; fewer bytes only at the end of the file. kCorrupt never gives wrong bytes.
    virtual Result<std::size_t> read_file(const FileRecord& record, std::uint64_t offset, MutableBytes out) = 0;
    // Decodes [offset, offset+length) into the cache in the background, within the budget. Never fails, may do nothing.
    virtual void prefetch(std::shared_ptr<const FileRecord> record, std::uint64_t offset, std::uint64_t length) = 0;
    virtual Result<Buffer> read_segment(const SegmentId& id) = 0;  // whole
    virtual Result<Buffer> object(Kind kind,
                                  const AnyId& id) = 0;  // canonical bytes, verified against `id`'s domain hash
    // Ids of `kind` whose hex begins with `prefix` (lower case), at most `limit`.
    virtual Result<std::vector<AnyId>> find_prefix(Kind kind, std::string_view prefix, std::size_t limit) = 0;
    virtual Result<SegmentInfo> segment_info(const SegmentId& id) = 0;
    virtual Result<std::uint64_t> stored_bytes_of(const FileRecord& record) = 0;

    // ---- looking after it
    virtual Result<StoreStats> stats() = 0;
    // Framing and checksums of every record; with `full` every chunk is decoded and every SHA-256 checked.
    virtual Result<std::vector<Problem>> verify(
        bool full, const std::function<void(std::uint64_t done, std::uint64_t total)>& progress) = 0;
    // Throws the index away and builds it again from the packs.
    virtual Status reindex(const std::function<void(std::uint64_t, std::uint64_t)>& progress) = 0;
    // Every valid record of every pack in order (pack created, uuid, offset).
    virtual Status scan(const std::function<Status(const Uuid& pack, const RecordView&)>& visit) = 0;
    virtual Status seal() = 0;  // seals this process's open pack now (tests, unmount of a large one)
};

// SHA-256 with the domain of `kind` ("coral tree 1\0" …; none for segments and files).
AnyId object_id(Kind kind, Bytes raw);

}  // namespace coral::store
