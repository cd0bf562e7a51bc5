// SPDX-License-Identifier: Apache-2.0
// The object store of a repository: segments, file records and history objects by name, in append-only packs, found
// through a disposable SQLite index. Everything here is thread-safe; several processes may have the same store open.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
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
    std::uint64_t max_depth =
        codec::kMaxDepth;  // of what is stored from now on, 0 … 7: deeper is smaller, and slower to read
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
    // What an optimizer made the next state with (codec::Formula); both begin where their segments do.
    codec::Formula formula = codec::Formula::kNone;
    SegmentId first = {}, second = {};
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
    // The record is whole, and something that it refers to is not there: no problem if nothing refers to the record,
    // for `collect` leaves such behind.
    bool if_used = false;
};

// A record as it lies in a pack: for fsck, reindex, recover and tests.
struct RecordView {
    Kind kind{};
    AnyId id;
    std::uint64_t offset = 0, stored_bytes = 0, seq = 0;
    Bytes specific;  // the kind-specific part of the header
    Bytes payload;
};

// A stretch in which this process builds on what the store has told it (`contains`, a put that `existed`): nothing that
// is there goes away meanwhile, used or not. From before the first answer until the names that depend on it are in
// state.db. Ends in the thread that began it. Short: whoever wants to remove packs waits for it, and then others for
// him.
class Session {
  public:
    Session() = default;  // of a store that is open for reading
    explicit Session(std::function<void()> end) : end_(std::move(end)) {}
    Session(Session&& other) noexcept : end_(std::exchange(other.end_, nullptr)) {}
    Session& operator=(Session&& other) noexcept {
        std::swap(end_, other.end_);
        return *this;
    }
    ~Session() {
        if (end_) end_();
    }

  private:
    std::function<void()> end_;
};

// Ids of objects that must stay. 32 bytes each; not thread-safe.
class LiveSet {
  public:
    bool add(Kind kind, const AnyId& id);  // false: it was there
    bool contains(Kind kind, const AnyId& id) const;
    std::uint64_t size() const;
    // From now on what is added is remembered by itself, too.
    void begin_late() {
        late_ = true;
        late_ids_.clear();
        late_list_.clear();
    }
    bool is_late(Kind kind, const AnyId& id) const { return late_ids_.contains({kind, id}); }
    std::vector<std::pair<Kind, AnyId>> take_late();  // those since the last call

  private:
    struct Hash {
        std::size_t operator()(const std::pair<Kind, AnyId>& key) const {
            return std::hash<AnyId>()(key.second) + static_cast<std::size_t>(key.first);
        }
    };
    struct OfKind {
        std::vector<AnyId> sorted;
        std::unordered_set<AnyId> fresh;  // moved into `sorted` when there are many
    };
    std::map<Kind, OfKind> kinds_;
    bool late_ = false;
    std::unordered_set<std::pair<Kind, AnyId>, Hash> late_ids_;
    std::vector<std::pair<Kind, AnyId>> late_list_;
};

// How deep a segment may come to lie: what refers to it must stay deeper, in every record that there is.
class Dependants {
  public:
    void add(const SegmentId& base, std::uint8_t depth) { depths_.emplace_back(base, depth); }
    void finish();
    // Of what refers to `id`, the smallest depth; kMaxDepth + 1 when nothing does.
    std::uint8_t lowest(const SegmentId& id) const;

  private:
    std::vector<std::pair<SegmentId, std::uint8_t>> depths_;  // each base once, sorted
};

// What holds for all segments that are to be encoded anew.
struct RewriteLimits {
    Dependants dependants;
    std::set<Uuid> held;  // packs that cannot go now: a better record would only come on top
};

struct Rewrite {
    bool better = false;  // by enough to be worth it; then it was appended, but in a dry run
    std::uint64_t before = 0, after = 0;
    std::uint8_t depth = 0;
};

struct CollectOptions {
    // Of several records of a segment the smallest stays, and not the one of least depth: after rewrite_segment. Packs
    // with records that others replace are written anew, however young and however little that is.
    bool replace = false;
    std::uint32_t live_percent = 70;  // packs with less that is live are written anew without the rest
    // ns since 1970: packs written to later are kept as they are
    std::int64_t keep_written_after = std::numeric_limits<std::int64_t>::max();
    bool dry_run = false;
    std::chrono::milliseconds patience{20'000};  // to be alone; others are held up no longer
    // Adds what is in use, once the records of all processes are known. May be empty: what is in use was there before.
    std::function<Status(LiveSet&)> mark;
    // Called again, when nobody stores anything, for what has come into use since: adds it.
    std::function<Status(LiveSet&)> look_again;
    std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes
    std::function<bool()> cancelled;
};

struct CollectReport {
    std::uint64_t packs = 0;  // looked at
    std::uint64_t removed_packs = 0, rewritten_packs = 0, new_packs = 0;
    std::uint64_t removed_bytes = 0;  // sizes of the files that went
    std::uint64_t written_bytes = 0;  // and of those that came for them
    std::uint64_t dead_bytes = 0;     // records that nothing needs and that stay: their packs are mostly live
    std::uint64_t young_packs = 0;    // kept because they were written to lately
    std::vector<std::string> kept;    // packs that could not go, and why
    std::uint64_t freed_bytes() const { return removed_bytes > written_bytes ? removed_bytes - written_bytes : 0; }
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
    // Encodes what is stored once more, and appends the record if it is smaller than those that are there, by 2 % and
    // 256 bytes. Readers go on with the old one until collect() with `replace` takes its pack away.
    virtual Result<Rewrite> rewrite_segment(const SegmentId& id, Bytes raw, codec::Hint hint,
                                            std::span<const BaseCandidate> candidates, const RewriteLimits& limits,
                                            bool dry_run) = 0;
    virtual Result<RewriteLimits> rewrite_limits() = 0;          // looks at every record's entry
    virtual Result<Put> put_file(const FileRecord& record) = 0;  // after all its segments; one that is cut better stays
    // kTree, kCommit, kTag: canonical bytes whose domain-separated SHA-256 is `id` (the caller computed it).
    virtual Result<Put> put_object(Kind kind, const AnyId& id, Bytes raw) = 0;
    virtual Status put_ref_hint(const RefHint& hint) = 0;
    virtual Status put_work_hint(const WorkHint& hint) = 0;
    // Everything put before is on stable storage: groups flushed, packs fdatasync'd, packs/ synced when a pack is new.
    virtual Status sync() = 0;
    // kBusy when packs are being removed for longer than two minutes. Nests within a thread.
    virtual Result<Session> session() = 0;
    // From time to time: lets go of what others wait for, and of packs that were removed.
    virtual Status tidy() = 0;

    // ---- reading
    virtual Result<std::shared_ptr<const FileRecord>> file(const FileId& id) = 0;  // cached
    // Fills `out` from file offset `offset`; fewer bytes only at the end of the file. kCorrupt never gives wrong bytes.
    virtual Result<std::size_t> read_file(const FileRecord& record, std::uint64_t offset, MutableBytes out) = 0;
    // Decodes [offset, offset+length) into the cache in the background, on all cores, as far as the budget goes for
    // what was decoded ahead and not read yet. Never fails. How many bytes of it, from the beginning, were taken or
    // need none.
    virtual std::uint64_t prefetch(std::shared_ptr<const FileRecord> record, std::uint64_t offset,
                                   std::uint64_t length) = 0;
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
    // Removes packs with nothing in `live`, and writes those with little of it anew. The bases of what is live are
    // live, too, and are added. At most one process at a time (the caller's lock).
    virtual Result<CollectReport> collect(LiveSet& live, const CollectOptions& options) = 0;
    virtual Status seal() = 0;  // seals this process's open pack now (tests, unmount of a large one)
};

// SHA-256 with the domain of `kind` ("coral tree 1\0" …; none for segments and files).
AnyId object_id(Kind kind, Bytes raw);

}  // namespace coral::store
