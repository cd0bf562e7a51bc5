// SPDX-License-Identifier: Apache-2.0
// The other half of the index: what it learns from the packs themselves.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "coral/base/log.hpp"
#include "store/index.hpp"
#include "store/records.hpp"

namespace coral::store {
namespace {

// The directory's time stamp tells of new packs only once it is older than its own granularity.
constexpr std::int64_t kSettled = 2'000'000'000;

std::uint64_t ref_seq_of(const PackWalker::Item& item) {
    return item.header.kind == Kind::kRef && item.specific.size() == 8 ? load_le<std::uint64_t>(item.specific.data())
                                                                       : 0;
}

}  // namespace

// Is the file the one that the database describes? A repository may have been copied while a pack was open, and both
// copies gone on differently; then the last indexed record is another or none. Or it is the same file and that record
// is rotten: then the headers before it lead exactly to its place, and what the index knows must not be forgotten, for
// fsck to find.
bool Index::same_file(const PackState& state) {
    auto stat = os_.stat(packs_files_.path_of(state.uuid));
    if (!stat) return false;
    if (state.phase == PackPhase::kSealed) return stat->size == state.scanned_to;
    if (stat->size < state.scanned_to) return false;
    if (state.scanned_to == kFileHeaderSize) return true;
    auto pack = packs_files_.get(state.uuid);
    if (!pack) return false;
    if (auto tail = (*pack)->read_header(state.tail_offset)) {
        return tail->header.total() + state.tail_offset == state.scanned_to && tail->header.seq + 1 == state.next_seq &&
               load_le<std::uint64_t>(tail->bytes.data() + tail->bytes.size() - 8) == state.tail_sum;
    }
    PackWalker walker(**pack, kFileHeaderSize, state.scanned_to, 1, false);
    PackWalker::Item item;
    while (walker.position() < state.tail_offset) {
        auto more = walker.next(item);
        if (!more || !*more) return false;
    }
    return walker.position() == state.tail_offset && walker.next_seq() + 1 == state.next_seq;
}

// An appender builds on the last record: it must be there, all of it.
bool Index::tail_is_whole(const PackState& state) {
    if (state.scanned_to == kFileHeaderSize) return true;
    auto pack = packs_files_.get(state.uuid);
    if (!pack || state.tail_offset < kFileHeaderSize) return false;
    PackWalker walker(**pack, state.tail_offset, state.scanned_to, state.next_seq - 1, true);
    PackWalker::Item item;
    auto more = walker.next(item);
    return more && *more && item.header_sum == state.tail_sum && walker.position() == state.scanned_to;
}

Status Index::reconcile(const PackState& in_database) {
    auto known = pack(in_database.uuid);
    if (!known) {
        if (in_database.scanned_to < kFileHeaderSize || !same_file(in_database)) {
            log_warn("index knows another {}: it is read again", packs_files_.path_of(in_database.uuid));
            CORAL_CHECK(forget_pack(in_database.uuid));
            return add_unknown(in_database.uuid);
        }
        std::unique_lock lock(pending_mutex_);
        states_[in_database.uuid] = in_database;
        return {};
    }
    // The database is another one than before. What it lacks of what its predecessor had must be pending again.
    std::uint64_t lacks_to = known->committed_to;
    {
        std::unique_lock lock(pending_mutex_);
        PackState& s = states_[in_database.uuid];
        s.committed_to = in_database.committed_to;
        s.changed = true;
        if (!s.own && in_database.scanned_to > s.scanned_to) {
            s.scanned_to = s.synced_to = in_database.scanned_to;
            s.next_seq = in_database.next_seq;
            s.phase = in_database.phase;
            s.tail_offset = in_database.tail_offset;
            s.tail_sum = in_database.tail_sum;
        }
    }
    if (in_database.committed_to >= lacks_to) return {};
    Status done;
    if (known->phase == PackPhase::kSealed) {
        CORAL_TRY(auto file, packs_files_.get(known->uuid));
        done = load_sealed(*file, known->scanned_to);
    } else {
        done = scan(known->uuid, in_database.committed_to, lacks_to, in_database.next_seq);
    }
    if (done || done.error().code != Errc::kCorrupt) return done;
    log_warn("records are missing from the index: {}", done.error().message);
    return {};
}

Status Index::add_unknown(const Uuid& uuid) {
    auto file = packs_files_.get(uuid);
    if (!file) {
        // Being created by another process, torn at birth, or rotten. It may be readable the next time.
        unreadable_seen_ = true;
        log_debug("pack is passed over: {}", file.error().message);
        return {};
    }
    const FileHeader& header = (*file)->header();
    if (header.repo != repo_) {
        log_warn("{}: is a pack of another repository and is passed over", (*file)->path());
        return {};
    }
    add_pack(header, false);
    auto state = pack(uuid);
    CORAL_TRY(bool moved, catch_up_one(*state));
    (void)moved;
    return {};
}

// Takes the entries of a sealed pack from its own index.
Status Index::load_sealed(PackFile& file, std::uint64_t size) {
    CORAL_TRY(auto footer, file.read_footer(size));
    if (!footer) return make_error(Errc::kCorrupt, fmt::format("{}: its footer is gone", file.path()));
    CORAL_TRY(std::vector<IndexEntry> entries, file.read_index(*footer, size));
    std::unique_lock lock(pending_mutex_);
    PackState& s = states_[file.uuid()];
    s.phase = PackPhase::kSealed;
    for (const IndexEntry& e : entries) {
        insert_rows(s, e);
        if (e.kind == Kind::kRef) s.ref_seq = std::max(s.ref_seq, e.raw);
    }
    s.scanned_to = size;
    s.next_seq = entries.size() + 2;
    s.changed = true;
    return {};
}

// Reads records with their payloads, whose sums alone say that they are there. Stops at the first that does not verify.
Status Index::scan(const Uuid& uuid, std::uint64_t begin, std::uint64_t end, std::uint64_t next_seq) {
    CORAL_TRY(auto file, packs_files_.get(uuid));
    PackWalker walker(*file, begin, end, next_seq, true);
    PackWalker::Item item;
    while (true) {
        CORAL_TRY(bool more, walker.next(item));
        if (!more) return {};
        if (item.header.kind == Kind::kIndex) {
            set_closed(uuid);
            return make_error(Errc::kCorrupt, fmt::format("{}: an INDEX record without a footer", file->path()));
        }
        IndexEntry entry;
        entry.offset = item.offset;
        entry.stored = item.header.total();
        if (!known_kind(item.header.kind) || item.header.version != 1) {
            if ((item.header.flags & kFlagSkippable) == 0) {
                return file->at(item.offset,
                                make_error(Errc::kUnsupported,
                                           fmt::format("record kind {} version {} needs a newer CoralFS",
                                                       static_cast<unsigned>(item.header.kind), item.header.version)));
            }
        } else if (auto made = index_entry(item.header, item.specific, item.offset, item.payload_sum); made) {
            entry = std::move(*made);
        } else {
            // Its sums are right and its fields are not: nobody can use it, and the records behind it are whole.
            log_warn("{}", file->at(item.offset, Error(made.error())).message);
        }
        std::unique_lock lock(pending_mutex_);
        PackState& s = states_[uuid];
        if (item.offset < s.scanned_to) {
            insert_rows(s, entry);
            continue;
        }
        lock.unlock();
        add_record(uuid, entry, item.header.seq, item.header_sum, ref_seq_of(item));
    }
}

Result<bool> Index::catch_up_one(const PackState& state) {
    CORAL_TRY(FileStat stat, os_.stat(packs_files_.path_of(state.uuid)));
    if (stat.size <= state.scanned_to || stat.size == state.failed_size) return false;
    CORAL_TRY(auto file, packs_files_.get(state.uuid));
    CORAL_TRY(auto footer, file->read_footer(stat.size));
    if (footer) {
        Status loaded = load_sealed(*file, stat.size);
        if (loaded) return true;
        log_warn("its records are read instead: {}", loaded.error().message);
        stat.size = footer->index_offset;
        set_closed(state.uuid);
    }
    Status scanned = scan(state.uuid, state.scanned_to, stat.size, state.next_seq);
    if (!scanned) {
        if (scanned.error().code == Errc::kUnsupported) return std::move(scanned).error();
        log_debug("{}", scanned.error().message);
        std::unique_lock lock(pending_mutex_);
        states_[state.uuid].failed_size = stat.size;
    }
    auto now = pack(state.uuid);
    return now && now->scanned_to > state.scanned_to;
}

Result<bool> Index::catch_up(const Uuid& uuid) {
    std::lock_guard lock(refresh_mutex_);
    auto state = pack(uuid);
    if (!state || state->phase != PackPhase::kOpen) return false;
    CORAL_TRY(bool moved, catch_up_one(*state));
    (void)moved;
    CORAL_TRY(FileStat stat, os_.stat(packs_files_.path_of(uuid)));
    state = pack(uuid);
    if (!state || state->phase != PackPhase::kOpen) return false;
    if (state->scanned_to == stat.size && tail_is_whole(*state)) return true;
    set_closed(uuid);  // its writer is gone and its end is torn or rotten
    return false;
}

Result<bool> Index::catch_up_others() {
    bool changed = false;
    for (const PackState& state : packs()) {
        if (state.own || state.phase != PackPhase::kOpen) continue;
        auto moved = catch_up_one(state);
        if (!moved && moved.error().code != Errc::kNotFound) return moved;
        changed = changed || (moved && *moved);
    }
    return changed;
}

Result<bool> Index::list_new_packs() {
    CORAL_TRY(FileStat stat, os_.stat(packs_files_.dir()));
    bool settled = listed_at_ - listed_mtime_ > kSettled;
    if (stat.mtime_ns == listed_mtime_ && settled && !unreadable_seen_) return false;
    unreadable_seen_ = false;
    std::int64_t now = now_ns();
    CORAL_TRY(std::vector<Uuid> uuids, packs_files_.list());
    bool changed = false;
    std::map<Uuid, PackState> told;  // by the database: spares reading their records
    for (const Uuid& uuid : uuids) {
        if (pack(uuid)) continue;
        if (!changed) {
            CORAL_TRY(std::vector<PackState> in_database, load_packs());
            for (PackState& state : in_database) told.emplace(state.uuid, state);
        }
        auto indexed = told.find(uuid);
        CORAL_CHECK(indexed == told.end() ? add_unknown(uuid) : reconcile(indexed->second));
        changed = true;
    }
    listed_mtime_ = stat.mtime_ns;
    listed_at_ = now;
    return changed;
}

Status Index::adopt() {
    CORAL_TRY(std::vector<PackState> in_database, load_packs());
    CORAL_TRY(std::vector<Uuid> listed, packs_files_.list());
    std::set<Uuid> present(listed.begin(), listed.end()), told;
    std::vector<Uuid> gone;
    for (const PackState& state : in_database) {
        told.insert(state.uuid);
        if (present.contains(state.uuid)) {
            CORAL_CHECK(reconcile(state));
        } else {
            log_info("{}: is gone; the index forgets its objects", packs_files_.path_of(state.uuid));
            gone.push_back(state.uuid);
        }
    }
    CORAL_CHECK(drop_rows(gone));
    CORAL_TRY(bool forgotten, forget_gone_locked());
    (void)forgotten;
    for (const Uuid& uuid : listed) {
        if (told.contains(uuid)) continue;
        if (auto known = pack(uuid); known) {
            PackState nothing;
            nothing.uuid = uuid;
            CORAL_CHECK(reconcile(nothing));
        } else {
            CORAL_CHECK(add_unknown(uuid));
        }
        // The rows of a whole repository are never in memory at once.
        if (!read_only_ && should_sync()) CORAL_CHECK(sync_now());
    }
    CORAL_TRY(bool moved, catch_up_others());
    (void)moved;
    return {};
}

Result<bool> Index::refresh_locked() {
    bool changed = false;
    if (adopt_needed_.exchange(false) || database_replaced()) {
        CORAL_CHECK(open_database(discard_needed_.exchange(false)));
        CORAL_CHECK(adopt());
        changed = true;
    }
    CORAL_TRY(bool fresh, list_new_packs());
    CORAL_TRY(bool moved, catch_up_others());
    if (changed || fresh || moved) ++refreshed_;
    return changed || fresh || moved;
}

// Our own packs are there as long as we hold their locks.
Result<bool> Index::forget_gone_locked() {
    std::vector<PackState> known = packs();  // before the listing: what another thread adds is there
    CORAL_TRY(std::vector<Uuid> listed, packs_files_.list());
    std::set<Uuid> present(listed.begin(), listed.end());
    bool any = false;
    for (const PackState& state : known) {
        if (state.own || present.contains(state.uuid)) continue;
        forget_state(state.uuid);
        any = true;
    }
    return any;
}

Result<bool> Index::forget_gone() {
    std::lock_guard lock(refresh_mutex_);
    return forget_gone_locked();
}

Result<bool> Index::refresh() {
    std::lock_guard lock(refresh_mutex_);
    return refresh_locked();
}

Status Index::rebuild(const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    std::lock_guard lock(refresh_mutex_);
    CORAL_CHECK(open_database(true));
    std::uint64_t done = 0;
    CORAL_TRY(std::vector<Uuid> listed, packs_files_.list());
    for (const Uuid& uuid : listed) {
        if (auto known = pack(uuid); known) {
            PackState nothing;
            nothing.uuid = uuid;
            CORAL_CHECK(reconcile(nothing));
        } else {
            CORAL_CHECK(add_unknown(uuid));
        }
        if (!read_only_ && should_sync()) CORAL_CHECK(sync_now());
        if (progress) progress(++done, listed.size());
    }
    return read_only_ ? Status() : sync_now();
}

}  // namespace coral::store
