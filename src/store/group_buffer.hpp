// SPDX-License-Identifier: Apache-2.0
// Small segments on their way into GROUP records, and the records that must not come before them.
//
// A segment of ≤ 64 KiB waits in `current_` until 1 MiB is together or somebody syncs; then the group is encoded and
// appended as one record. Until then it is read from here. FILE and WORK records that depend on a waiting segment are
// held, in order, until its group is in a pack: no FILE record is ever durable before its segments.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "store/pack_writer.hpp"
#include "store/records.hpp"

namespace coral::store {

struct HeldRecord {
    Kind kind{};
    AnyId id;
    Buffer specific, payload;
    std::uint16_t flags = 0;
    std::shared_ptr<const FileRecord> file;  // of a FILE
};

// A group that is gathering. Bytes of a slot never change once the slot is there.
struct PendingGroup {
    PendingGroup() : block(std::make_unique_for_overwrite<std::byte[]>(kMaxGroupBlock)) {}
    std::unique_ptr<std::byte[]> block;
    std::uint32_t used = 0;
    std::vector<Slot> slots;
    std::unordered_map<SegmentId, std::uint32_t> by_id;  // → slot
};

class GroupBuffer {
  public:
    explicit GroupBuffer(PackWriter& writer) : writer_(writer) {}

    bool contains(const SegmentId& id);
    // Bytes of a waiting segment; nothing when it does not wait here.
    std::optional<Buffer> read(const SegmentId& id, std::uint64_t offset, std::uint64_t length);
    std::optional<Slot> find(const SegmentId& id);
    std::shared_ptr<const FileRecord> held_file(const FileId& id);
    std::vector<FileId> held_files();

    // False: it waits already. May flush (and fail) first.
    Result<bool> add(const SegmentId& id, Bytes raw, codec::Hint hint);
    // Keeps the record back when it depends on something that waits; false when it may be appended at once.
    bool hold(HeldRecord& record, std::span<const SegmentId> needs, const FileId* needs_file);
    bool holds_much();  // time to flush
    bool pending();     // anything waits
    // Everything that waits is in packs afterwards. After a failure it still waits and can be read.
    Status flush();

  private:
    Status flush_group();
    Status release_held();
    const PendingGroup* holder(const SegmentId& id) const;  // mutex_ held

    PackWriter& writer_;
    std::mutex flush_mutex_;  // one flush at a time; before mutex_ and PackWriter's
    std::mutex mutex_;        // guards what follows; never held during I/O or encoding
    std::unique_ptr<PendingGroup> current_;
    std::unique_ptr<PendingGroup> flushing_;
    std::uint64_t generation_ = 1;  // of current_; groups before `flushed_` + 1 are in packs
    std::uint64_t flushed_ = 0;
    struct Held {
        HeldRecord record;
        std::uint64_t needs = 0;  // generation
    };
    std::deque<Held> held_;
    std::size_t held_bytes_ = 0;
    std::unordered_map<FileId, std::shared_ptr<const FileRecord>> held_files_;
};

}  // namespace coral::store
