// SPDX-License-Identifier: Apache-2.0
// Copying what is needed, and the moment in which packs go.
#include "store/collector.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "coral/base/log.hpp"

namespace coral::store {
namespace {

// Copied before the packs that it came from go: bounds the room that it takes.
constexpr std::uint64_t kBatchBytes = std::uint64_t{4} << 30;
// Of the disk, left to those who write.
constexpr std::uint64_t kReserve = 64u << 20;
constexpr int kAttempts = 3;

}  // namespace

void Collector::advance(std::uint64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(std::min(done_, total_), total_);
}

Result<CollectReport> Collector::run() {
    CORAL_CHECK(prepare());
    CORAL_CHECK(close_bases());
    CORAL_CHECK(plan());
    if (options_.dry_run) {
        predict(todo_);
        return std::move(report_);
    }
    while (!todo_.empty() && !cancelled()) {
        Batch batch = next_batch();
        if (batch.empty()) break;
        CORAL_CHECK(copy_batch(batch));
        if (cancelled()) break;  // the copies are duplicates, and legal
        if (!batch.empty()) CORAL_CHECK(remove_batch(batch));
    }
    // Nobody needs these rows; without this they would go when the repository is opened next.
    if (Status dropped = store_.index_->drop_rows(gone_); !dropped) log_info("{}", dropped.error().message);
    report_.new_packs = new_packs_.size();
    for (const auto& [uuid, bytes] : new_packs_) report_.written_bytes += bytes;
    return std::move(report_);
}

// First all that needs no room, then as much as there is room for.
Collector::Batch Collector::next_batch() {
    std::uint64_t room = kBatchBytes;
    if (auto space = store_.os_.space(store_.packs_.dir())) {
        std::uint64_t available = space->blocks_available * space->block_size;
        room = std::min(room, available > kReserve ? available - kReserve : 0);
    }
    Batch batch;
    bool free = todo_.front().needed == 0;
    std::uint64_t bytes = 0;
    while (!todo_.empty()) {
        Candidate& next = todo_.front();
        if (free != (next.needed == 0)) break;
        bytes += next.needed;
        if (bytes > room && !(batch.empty() && next.needed <= room)) break;
        batch.push_back(std::move(next));
        todo_.erase(todo_.begin());
    }
    if (!batch.empty()) return batch;
    for (const Candidate& candidate : todo_)
        keep(candidate.state, "no room on the disk for a copy of what it is needed for");
    todo_.clear();
    return batch;
}

Status Collector::read_whole(const Row& row) {
    CORAL_TRY(auto pack, store_.packs_.get(row.pack));
    CORAL_TRY(LoadedHeader loaded, pack->read_header(row.offset));
    CORAL_TRY(Buffer payload, pack->read_payload(row.offset, loaded.header));
    (void)payload;
    return {};
}

Status Collector::copy_record(PackFile& pack, const IndexEntry& entry) {
    CORAL_TRY(LoadedHeader loaded, pack.read_header(entry.offset));
    if (loaded.header.kind != entry.kind || loaded.header.version != 1)
        return pack.at(entry.offset, make_error(Errc::kCorrupt, "the index is wrong about this record"));
    CORAL_TRY(Buffer payload, pack.read_payload(entry.offset, loaded.header));
    CORAL_TRY(Appended appended,
              writer_.append(loaded.header.kind, loaded.header.flags, loaded.header.id, loaded.specific(), payload));
    new_packs_[appended.pack] = 0;
    return {};
}

// Another record of its bytes stays, or is copied: if that is whole.
Status Collector::rely_on_others(const PackState& state, const IndexEntry& entry, PackFile& pack) {
    auto whole = [&](Kind kind, const AnyId& id) -> Result<bool> {
        CORAL_TRY(auto row, chosen(kind, id));
        if (!row || (row->pack == state.uuid && row->offset == entry.offset)) return false;
        if (options_.replace) return is_replaced_whole(kind, id, *row);
        return read_whole(*row).ok();
    };
    bool all = true;
    if (entry.kind != Kind::kGroup) {
        CORAL_TRY(all, whole(entry.kind, entry.id));
    }
    for (const Slot& slot : entry.slots) {
        if (!all || !live_.contains(Kind::kSegment, AnyId::from(slot.id))) continue;
        CORAL_TRY(all, whole(Kind::kSegment, AnyId::from(slot.id)));
    }
    return all ? Status() : copy_record(pack, entry);
}

Status Collector::copy_pack(const Candidate& candidate) {
    CORAL_TRY(auto pack, store_.packs_.get(candidate.state.uuid));
    return each_entry(candidate.state, 0, [&](const IndexEntry& entry) -> Status {
        if (cancelled()) return make_error(Errc::kConflict, "interrupted");
        advance(entry.stored);
        CORAL_TRY(bool needed, is_needed(*pack, entry, candidate.young));
        if (!needed) return {};
        CORAL_TRY(bool best, is_best(candidate.state, entry));
        return best ? copy_record(*pack, entry) : rely_on_others(candidate.state, entry, *pack);
    });
}

// What cannot be copied stays where it is.
Status Collector::copy_batch(Batch& batch) {
    live_.begin_late();
    for (auto at = batch.begin(); at != batch.end();) {
        Status copied = copy_pack(*at);
        if (!copied && cancelled()) return {};
        if (!copied) {
            keep(at->state, copied.error().message);
            at = batch.erase(at);
            continue;
        }
        ++at;
    }
    CORAL_CHECK(writer_.seal());
    CORAL_CHECK(store_.index_->sync());
    return check_new_packs();
}

// Read back as they lie there.
Status Collector::check_new_packs() {
    for (auto& [uuid, bytes] : new_packs_) {
        if (bytes != 0) continue;
        store_.packs_.forget(uuid);
        CORAL_TRY(auto pack, store_.packs_.get(uuid));
        CORAL_TRY(FileStat stat, pack->file().stat());
        CORAL_TRY(auto footer, pack->read_footer(stat.size));
        auto state = store_.index_->pack(uuid);
        // Without a footer: a write failed in it, and what came before that is there.
        std::uint64_t end = footer ? footer->index_offset : state ? state->scanned_to : kFileHeaderSize;
        PackWalker walker(*pack, kFileHeaderSize, end, 1, true);
        PackWalker::Item item;
        std::size_t records = 0;
        for (bool more = true; more; ++records) {
            CORAL_TRY(more, walker.next(item));
        }
        if (footer && records != footer->count + 1)
            return pack->at(end, make_error(Errc::kCorrupt, "a new pack whose INDEX is not of its records"));
        bytes = stat.size;
    }
    return {};
}

// ---- alone

// The bases of what has come into use since, which may have been put long ago.
Status Collector::add_needs_of_late() {
    for (auto late = live_.take_late(); !late.empty(); late = live_.take_late()) {
        for (const auto& [kind, id] : late) {
            CORAL_TRY(std::vector<Row> rows, store_.index_->find(kind, id));
            if (rows.empty()) continue;
            if (kind == Kind::kSegment) {
                CORAL_TRY(auto place, store_.reader_->place(SegmentId::from(id)));
                for (const codec::BaseRef& base : place->block->header.bases)
                    live_.add(Kind::kSegment, AnyId::from(base.id));
                continue;
            }
            for (const Row& row : rows) {
                if ((row.flags & kFlagInSegments) == 0) continue;
                IndexEntry entry;
                entry.kind = kind;
                entry.flags = row.flags;
                entry.offset = row.offset;
                CORAL_TRY(auto pack, store_.packs_.get(row.pack));
                CORAL_CHECK(add_needs(*pack, entry));
            }
        }
    }
    return {};
}

// A live file that was stored again, because its record of before had lost something: what it is cut into now.
Status Collector::add_new_cut(const AnyId& id) {
    if (!live_.contains(Kind::kFile, id)) return {};
    CORAL_TRY(auto record, store_.file(FileId::from(id)));
    for (const SegmentId& segment : record->segments) live_.add(Kind::kSegment, AnyId::from(segment));
    return {};
}

Status Collector::look_again() {
    CORAL_TRY(bool changed, store_.index_->refresh());
    (void)changed;
    CORAL_CHECK(store_.index_->sync());
    store_.reader_->forget();
    store_.files_.clear();
    if (options_.look_again) CORAL_CHECK(options_.look_again(live_));
    // Whatever was appended since has its bases and segments: it may stand for something that was live before, too.
    for (const PackState& state : store_.index_->packs()) {
        std::uint64_t& seen = seen_to_[state.uuid];
        if (new_packs_.contains(state.uuid) || state.scanned_to <= seen) continue;
        CORAL_TRY(auto pack, store_.packs_.get(state.uuid));
        CORAL_CHECK(each_entry(state, seen, [&](const IndexEntry& entry) -> Status {
            note_bases(entry, true);
            CORAL_CHECK(add_needs(*pack, entry));
            return entry.kind == Kind::kFile ? add_new_cut(entry.id) : Status();
        }));
        seen = state.scanned_to;
    }
    return add_needs_of_late();
}

Result<bool> Collector::is_used_again(const Candidate& candidate) {
    bool used = false;
    CORAL_CHECK(each_entry(candidate.state, 0, [&](const IndexEntry& entry) -> Status {
        Kind kind = entry.kind == Kind::kSketch ? Kind::kSegment : entry.kind;
        used = used || live_.is_late(kind, entry.id) || late_bases_.contains(kind, entry.id);
        for (const Slot& slot : entry.slots) used = used || live_.is_late(Kind::kSegment, AnyId::from(slot.id));
        return {};
    }));
    return used;
}

Status Collector::remove_files(SessionLock::Alone& alone, Batch& batch) {
    CORAL_CHECK(alone.count_removal());
    Status removed;
    for (Candidate& candidate : batch) {
        removed = store_.os_.remove(store_.packs_.path_of(candidate.state.uuid));
        if (!removed) break;
        gone_.push_back(candidate.state.uuid);
        report_.removed_bytes += candidate.size;
        ++(candidate.needed == 0 ? report_.removed_packs : report_.rewritten_packs);
    }
    CORAL_CHECK(store_.os_.sync_dir(store_.packs_.dir()));
    CORAL_CHECK(alone.count_removal());  // who has looked meanwhile looks again
    CORAL_CHECK(store_.forget_gone());
    return removed;
}

// Between two attempts those who wait at the gate get their turn.
Result<SessionLock::Alone> Collector::be_alone() {
    for (int attempt = 1;; ++attempt) {
        auto alone = store_.sessions_->alone(options_.patience);
        if (alone || alone.error().code != Errc::kBusy || attempt == kAttempts || cancelled()) return alone;
        std::this_thread::sleep_for(options_.patience / 4);
    }
}

Status Collector::remove_batch(Batch& batch) {
    CORAL_TRY(SessionLock::Alone alone, be_alone());
    CORAL_CHECK(look_again());
    for (auto at = batch.begin(); at != batch.end();) {
        CORAL_TRY(bool used, is_used_again(*at));
        if (!used) {
            ++at;
            continue;
        }
        keep(at->state, "something in it has come into use again");
        at = batch.erase(at);
    }
    return batch.empty() ? Status() : remove_files(alone, batch);
}

Result<CollectReport> StoreImpl::collect(LiveSet& live, const CollectOptions& options) {
    if (!options.dry_run) CORAL_CHECK(writable());
    if (!options_.read_only) {
        CORAL_CHECK(groups_->flush());
        CORAL_CHECK(sessions_->rest());
    }
    return Collector(*this, live, options).run();
}

}  // namespace coral::store
