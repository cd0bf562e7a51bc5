// SPDX-License-Identifier: Apache-2.0
// What is needed of each pack, and which packs are worth it.
#include <fmt/format.h>

#include <algorithm>

#include "coral/base/log.hpp"
#include "store/collector.hpp"
#include "store/records.hpp"

namespace coral::store {
namespace {

// An INDEX record, the footer and the file header: what a new pack costs beside its records and their entries.
constexpr std::uint64_t kPackOverhead = kFileHeaderSize + kRecordMinimum + 8 + 8 + kFooterSize;

bool is_object(Kind kind) {
    return kind == Kind::kFile || kind == Kind::kTree || kind == Kind::kCommit || kind == Kind::kTag;
}

}  // namespace

Collector::Collector(StoreImpl& store, LiveSet& live, const CollectOptions& options)
    : store_(store),
      live_(live),
      options_(options),
      writer_(store.os_, store.repo_, store.packs_, *store.index_, store.options_.pack_bytes, true) {}

void Collector::keep(const PackState& state, std::string why) {
    log_info("{}: is kept: {}", store_.packs_.path_of(state.uuid), why);
    report_.kept.push_back(fmt::format("{}: {}", store_.packs_.path_of(state.uuid), why));
}

// Everything that others have appended is known and durable: a copy of it may be relied on. What is marked is marked by
// these records; what others append from now on is looked at in the end.
Status Collector::prepare() {
    CORAL_TRY(bool changed, store_.index_->refresh());
    (void)changed;
    if (!store_.options_.read_only) CORAL_CHECK(store_.index_->sync());
    for (const PackState& state : store_.index_->packs()) seen_to_[state.uuid] = state.scanned_to;
    store_.files_.clear();
    if (options_.mark) CORAL_CHECK(options_.mark(live_));
    CORAL_CHECK(store_.index_->each_duplicate([&](Kind kind, const AnyId& id) { twice_.add(kind, id); }));
    return options_.replace ? prepare_choice() : Status();
}

// The records at or behind `from`.
Status Collector::each_entry(const PackState& state, std::uint64_t from, const EachEntry& visit) {
    CORAL_TRY(auto pack, store_.packs_.get(state.uuid));
    if (state.phase == PackPhase::kSealed) {
        CORAL_TRY(auto footer, pack->read_footer(state.scanned_to));
        if (!footer) return pack->at(state.scanned_to, make_error(Errc::kCorrupt, "the footer is damaged"));
        CORAL_TRY(std::vector<IndexEntry> entries, pack->read_index(*footer, state.scanned_to));
        // In the order of the file: a copy must not have a record before what it refers to.
        std::sort(entries.begin(), entries.end(), [](auto& a, auto& b) { return a.offset < b.offset; });
        for (const IndexEntry& entry : entries) {
            if (entry.offset >= from) CORAL_CHECK(visit(entry));
        }
        return {};
    }
    PackWalker walker(*pack, kFileHeaderSize, state.scanned_to, 1, false);
    PackWalker::Item item;
    while (true) {
        CORAL_TRY(bool more, walker.next(item));
        if (!more) return {};
        if (item.offset < from || item.header.kind == Kind::kIndex) continue;
        if (!known_kind(item.header.kind) || item.header.version != 1) {
            return pack->at(item.offset, make_error(Errc::kUnsupported, "a record of a newer CoralFS"));
        }
        CORAL_TRY(IndexEntry entry, index_entry(item.header, item.specific, item.offset, item.payload_sum));
        CORAL_CHECK(visit(entry));
    }
}

bool Collector::is_live(const IndexEntry& entry) const {
    if (entry.kind == Kind::kGroup) {
        return std::any_of(entry.slots.begin(), entry.slots.end(),
                           [&](const Slot& slot) { return live_.contains(Kind::kSegment, AnyId::from(slot.id)); });
    }
    Kind kind = entry.kind == Kind::kSketch ? Kind::kSegment : entry.kind;
    return live_.contains(kind, entry.id);
}

// What a live record takes to be read.
Status Collector::add_needs(PackFile& pack, const IndexEntry& entry) {
    for (const SegmentId& base : entry.bases) live_.add(Kind::kSegment, AnyId::from(base));
    if (!is_object(entry.kind) || (entry.flags & kFlagInSegments) == 0) return {};
    CORAL_TRY(LoadedHeader loaded, pack.read_header(entry.offset));
    CORAL_TRY(Buffer payload, pack.read_payload(entry.offset, loaded.header));
    ByteReader reader(payload);
    while (reader.left() >= 32) live_.add(Kind::kSegment, AnyId::from(reader.id<SegmentId>()));
    return {};
}

// Bases lie before what refers to them, mostly: from the newest pack to the oldest, until a round finds nothing new.
Status Collector::close_bases() {
    std::vector<PackState> packs = store_.index_->packs();
    for (std::uint64_t before = ~std::uint64_t{0}; before != live_.size();) {
        before = live_.size();
        for (auto state = packs.rbegin(); state != packs.rend(); ++state) {
            auto pack = store_.packs_.get(state->uuid);
            if (!pack) continue;
            std::vector<IndexEntry> entries;
            Status read = each_entry(*state, 0, [&](const IndexEntry& entry) -> Status {
                if (!entry.bases.empty() || (entry.flags & kFlagInSegments) != 0) entries.push_back(entry);
                return {};
            });
            // What a damaged pack refers to cannot be known: then nothing may go.
            if (!read) {
                return make_error(read.error().code,
                                  fmt::format("{}: so nothing is removed; see `coral fsck`", read.error().message));
            }
            for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
                if (is_live(*entry)) CORAL_CHECK(add_needs(**pack, *entry));
            }
            if (cancelled()) return make_error(Errc::kConflict, "interrupted");
        }
    }
    return {};
}

// Is this the record that readers take of all that stand for the same bytes?
Result<bool> Collector::is_best(const PackState& state, const IndexEntry& entry) {
    auto best = [&](Kind kind, const AnyId& id, std::int32_t slot) -> Result<bool> {
        if (!twice_.contains(kind, id)) return true;
        CORAL_TRY(auto first, chosen(kind, id));
        return !first || (first->pack == state.uuid && first->offset == entry.offset && first->slot == slot);
    };
    if (entry.kind != Kind::kGroup) return best(entry.kind, entry.id, -1);
    for (std::size_t i = 0; i < entry.slots.size(); ++i) {
        auto id = AnyId::from(entry.slots[i].id);
        if (!live_.contains(Kind::kSegment, id)) continue;
        CORAL_TRY(bool first, best(Kind::kSegment, id, static_cast<std::int32_t>(i)));
        if (first) return true;
    }
    return false;
}

// Whether a copy of it must be made before its pack goes. Hints stay as long as they lead to something. What nothing
// leads to stays within the grace period, too, unless something else stands for it.
Result<bool> Collector::is_needed(PackFile& pack, const IndexEntry& entry, bool young) {
    if (entry.kind == Kind::kDrop) return true;
    if (young && !is_of_old_cut(entry)) return true;
    if (entry.kind == Kind::kRef || entry.kind == Kind::kWork) {
        CORAL_TRY(LoadedHeader loaded, pack.read_header(entry.offset));
        CORAL_TRY(Buffer payload, pack.read_payload(entry.offset, loaded.header));
        if (entry.kind == Kind::kWork) {
            CORAL_TRY(WorkHint hint, decode_work_hint(payload));
            return live_.contains(Kind::kFile, AnyId::from(hint.file));
        }
        CORAL_TRY(RefHint hint, decode_ref_hint(payload));
        return hint.new_target.is_zero() || live_.contains(Kind::kCommit, hint.new_target) ||
               live_.contains(Kind::kTag, hint.new_target);
    }
    return is_live(entry);
}

Status Collector::measure(Candidate& candidate) {
    CORAL_TRY(auto pack, store_.packs_.get(candidate.state.uuid));
    candidate.needed = candidate.needed_index = candidate.records = candidate.replaced = 0;
    return each_entry(candidate.state, 0, [&](const IndexEntry& entry) -> Status {
        candidate.records += entry.stored;
        CORAL_TRY(bool needed, is_needed(*pack, entry, candidate.young));
        if (!needed && is_of_old_cut(entry)) candidate.replaced += entry.stored;
        if (!needed) return {};
        CORAL_TRY(bool best, is_best(candidate.state, entry));
        if (!best) candidate.replaced += entry.stored;
        if (!best) return {};
        candidate.needed += entry.stored;
        candidate.needed_index += entry.encoded_size();
        return {};
    });
}

// Behind the last record there is the rest of a write that was cut, and not records that rot hides.
bool Collector::is_torn_only(const Candidate& candidate) {
    auto pack = store_.packs_.get(candidate.state.uuid);
    if (!pack) return false;
    PackWalker walker(**pack, candidate.state.scanned_to, candidate.size, 0, true);
    if (candidate.state.scanned_to == candidate.size) return true;
    PackWalker::Item item;
    auto whole = walker.next(item);
    if (whole) return item.header.kind == Kind::kIndex;  // sealing was cut: the INDEX alone
    walker.resync();
    return walker.position() == candidate.size;
}

// False, and told, when the pack must be left alone.
Result<bool> Collector::take(Candidate& candidate) {
    if (candidate.state.phase == PackPhase::kSealed) return true;
    auto opened = store_.os_.open(store_.packs_.path_of(candidate.state.uuid), OpenMode::kReadWrite);
    if (!opened && opened.error().code == Errc::kAccess) {
        keep(candidate.state, "another process has just filled it; what it holds can go the next time");
        return false;
    }
    if (!opened) return std::move(opened).error();
    candidate.lock = std::move(*opened);
    CORAL_TRY(bool locked, candidate.lock->try_lock(true));
    if (!locked) {
        keep(candidate.state, "another process appends to it (a mount?); what it holds can go once it is full");
        return false;
    }
    // Its last appender may have written until a moment ago.
    CORAL_TRY(bool whole, store_.index_->catch_up(candidate.state.uuid));
    (void)whole;
    auto now = store_.index_->pack(candidate.state.uuid);
    if (!now) return false;
    candidate.state = *now;
    CORAL_TRY(FileStat stat, candidate.lock->stat());
    candidate.size = stat.size;
    if (!is_torn_only(candidate)) {
        keep(candidate.state, "is damaged; see `coral fsck`");
        return false;
    }
    return true;
}

bool Collector::is_worth_it(const Candidate& candidate) const {
    if (candidate.needed == 0 || is_torn(candidate)) return true;
    bool little = candidate.needed * 100 < candidate.records * options_.live_percent;
    return (little || (options_.replace && candidate.replaced > 0)) &&
           candidate.size > candidate.needed + candidate.needed_index + kPackOverhead;
}

// Ends in a write that was cut: nobody appends to it any more, and repack moves its records.
bool Collector::is_torn(const Candidate& candidate) const {
    const PackState& state = candidate.state;
    return options_.replace &&
           (state.phase == PackPhase::kClosed ||
            (state.phase == PackPhase::kOpen && state.failed_size != 0 && state.failed_size == candidate.size));
}

Status Collector::plan() {
    std::vector<PackState> packs = store_.index_->packs();
    report_.packs = packs.size();
    for (const PackState& state : packs) {
        Candidate candidate;
        candidate.state = state;
        auto stat = store_.os_.stat(store_.packs_.path_of(state.uuid));
        if (!stat) continue;
        candidate.size = stat->size;
        candidate.young = stat->mtime_ns >= options_.keep_written_after;
        // gc looks at what is in use there, and leaves them alone.
        bool young = std::exchange(candidate.young, candidate.young && options_.replace);
        CORAL_CHECK(measure(candidate));
        bool spared = young && !(options_.replace && (candidate.replaced > 0 || is_torn(candidate)));
        if (!spared && is_worth_it(candidate)) {
            auto taken = take(candidate);
            if (!taken) return std::move(taken).error();
            if (*taken) {
                CORAL_CHECK(measure(candidate));
                todo_.push_back(std::move(candidate));
                continue;
            }
        }
        if (spared) ++report_.young_packs;
        report_.dead_bytes += candidate.records - candidate.needed;
    }
    std::stable_sort(todo_.begin(), todo_.end(), [](auto& a, auto& b) { return a.needed < b.needed; });
    for (const Candidate& candidate : todo_) total_ += candidate.size;
    return {};
}

// What run() would do.
void Collector::predict(const Batch& batch) {
    std::uint64_t records = 0, index = 0;
    for (const Candidate& candidate : batch) {
        report_.removed_bytes += candidate.size;
        ++(candidate.needed == 0 ? report_.removed_packs : report_.rewritten_packs);
        records += candidate.needed;
        index += candidate.needed_index;
    }
    if (records == 0) return;
    report_.new_packs = 1 + records / store_.options_.pack_bytes;
    report_.written_bytes = records + index + report_.new_packs * kPackOverhead;
}

}  // namespace coral::store
