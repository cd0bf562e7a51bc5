// SPDX-License-Identifier: Apache-2.0
// Which of several records of one thing stays, when some were written to replace others (rewrite_segment, a file that
// was cut anew). Nothing but the records says so: whatever a run that was killed has left, the next one ends it.
//
// A record may stay for others only while everything that refers to the segment lies deeper than it, in all records
// there are, needed or not: readers refuse a base that is not of smaller depth, and nothing can come to refer to
// itself.
#include <algorithm>

#include "coral/base/hash.hpp"
#include "coral/base/log.hpp"
#include "store/collector.hpp"

namespace coral::store {

Status Collector::prepare_choice() {
    for (const PackState& state : store_.index_->packs()) {
        // No farther than seen_to_: what comes behind it is looked at in the end.
        CORAL_CHECK(each_entry(state, 0, [&](const IndexEntry& entry) -> Status {
            if (entry.offset < seen_to_[state.uuid]) note_bases(entry, false);
            return {};
        }));
    }
    return find_old_cuts();
}

void Collector::note_bases(const IndexEntry& entry, bool late) {
    for (const SegmentId& base : entry.bases) {
        auto id = AnyId::from(base);
        if (!options_.replace || !twice_.contains(Kind::kSegment, id)) continue;
        auto [lowest, fresh] = lowest_dependant_.try_emplace(id, entry.rank);
        if (!fresh && entry.rank >= lowest->second) continue;
        lowest->second = entry.rank;
        if (late) late_bases_.add(Kind::kSegment, id);
    }
}

// Of a file that was cut anew, segments that no file refers to any more, needed or not.
Status Collector::find_old_cuts() {
    std::vector<AnyId> files;
    CORAL_CHECK(store_.index_->each(Kind::kFile, [&](const Row& row) -> Status {
        files.push_back(row.id);
        return {};
    }));
    std::sort(files.begin(), files.end());
    files.erase(std::unique(files.begin(), files.end()), files.end());
    for (const AnyId& id : files) {
        if (!twice_.contains(Kind::kFile, id)) continue;
        CORAL_TRY(std::vector<Row> rows, store_.index_->find(Kind::kFile, id));
        CORAL_TRY(std::optional<Row> stays, chosen(Kind::kFile, id));
        for (const Row& row : rows) {
            if (stays && row.pack == stays->pack && row.offset == stays->offset) continue;
            auto old = store_.load_file(FileId::from(id), row);
            if (!old) continue;
            for (const SegmentId& segment : old->segments) old_cuts_.add(Kind::kSegment, AnyId::from(segment));
        }
    }
    if (old_cuts_.size() == 0) return {};
    for (const AnyId& id : files) {
        if (live_.contains(Kind::kFile, id)) continue;
        auto record = store_.file(FileId::from(id));
        if (!record) continue;
        for (const SegmentId& segment : (*record)->segments) live_.add(Kind::kSegment, AnyId::from(segment));
    }
    return {};
}

bool Collector::is_of_old_cut(const IndexEntry& entry) const {
    if (entry.kind == Kind::kGroup) {
        return std::all_of(entry.slots.begin(), entry.slots.end(),
                           [&](const Slot& slot) { return old_cuts_.contains(Kind::kSegment, AnyId::from(slot.id)); });
    }
    return (entry.kind == Kind::kSegment || entry.kind == Kind::kSketch) &&
           old_cuts_.contains(Kind::kSegment, entry.id);
}

// The one that readers take, or would if only what is live were there: only that is copied.
Result<Row> Collector::chosen_file(const AnyId& id, const std::vector<Row>& rows) {
    const bool live = live_.contains(Kind::kFile, id);
    for (const Row& row : rows) {
        auto record = store_.load_file(FileId::from(id), row);
        if (!record) continue;
        bool marked = !live || std::all_of(record->segments.begin(), record->segments.end(), [&](const SegmentId& s) {
            return live_.contains(Kind::kSegment, AnyId::from(s));
        });
        if (!marked) continue;
        CORAL_TRY(bool whole, store_.has_segments(*record));
        if (whole) return row;
    }
    return rows.front();
}

// The record that stays for all others of the id.
Result<std::optional<Row>> Collector::chosen(Kind kind, const AnyId& id) {
    CORAL_TRY(std::vector<Row> rows, store_.index_->find_all(kind, id));
    if (rows.empty()) return std::optional<Row>();
    if (kind == Kind::kFile) {
        CORAL_TRY(Row file, chosen_file(id, rows));
        return std::optional<Row>(file);
    }
    if (kind != Kind::kSegment) return std::optional<Row>(rows.front());
    // A member goes only with its whole group.
    bool grouped = std::any_of(rows.begin(), rows.end(), [](const Row& row) { return row.slot >= 0; });
    auto limit = lowest_dependant_.find(id);
    const Row* best = nullptr;
    for (const Row& row : rows) {
        bool fits = limit == lowest_dependant_.end() || row.rank < limit->second;
        if (best && !(fits && row.stored < best->stored)) continue;
        // One that has lost its base stands for nothing.
        bool whole = row.rank == 0;
        if (!whole) {
            CORAL_TRY(whole, store_.reader_->is_whole(SegmentId::from(id), row));
        }
        if (whole) best = &row;
        if (best && (!options_.replace || grouped)) break;
    }
    return std::optional<Row>(best ? *best : rows.front());
}

// Read back from where it lies, and compared with its name.
Result<bool> Collector::is_replaced_whole(Kind kind, const AnyId& id, const Row& row) {
    if (kind == Kind::kSegment) {
        auto raw = store_.reader_->decode_record(SegmentId::from(id), row);
        return raw && AnyId::from(SegmentId::from(Sha256::of(*raw))) == id;
    }
    if (!read_whole(row)) return false;
    if (kind != Kind::kFile) return true;
    auto record = store_.load_file(FileId::from(id), row);
    if (!record) return false;
    for (const SegmentId& segment : record->segments) {
        CORAL_TRY(auto at, chosen(Kind::kSegment, AnyId::from(segment)));
        if (!at) return false;
        CORAL_TRY(bool whole, is_replaced_whole(Kind::kSegment, AnyId::from(segment), *at));
        if (!whole) return false;
    }
    Sha256 sum;
    Buffer part(1u << 20);
    for (std::uint64_t at = 0; at < record->size;) {
        auto got = store_.read_extents(*record, at, part);
        if (!got || *got == 0) return false;
        sum.update(Bytes(part).first(*got));
        at += *got;
    }
    return AnyId::from(FileId::from(sum.finish())) == id;
}

}  // namespace coral::store
