// SPDX-License-Identifier: Apache-2.0
#include "store/index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "coral/base/log.hpp"

namespace coral::store {

bool better(const Row& a, const Row& b) {
    return std::tie(a.rank, b.created_ns, b.pack, b.offset) < std::tie(b.rank, a.created_ns, a.pack, a.offset);
}

Result<std::unique_ptr<Index>> Index::open(Os& os, const std::string& path, const Uuid& repo, PackSet& packs,
                                           bool read_only) {
    auto index = std::unique_ptr<Index>(new Index(os, path, repo, packs, read_only));
    index->sync_pack_ = [&packs](const Uuid& uuid) -> Status {
        CORAL_TRY(auto pack, packs.get(uuid));
        return pack->file().sync_data();
    };
    CORAL_CHECK(index->open_database(false));
    Status adopted;
    {
        std::lock_guard lock(index->refresh_mutex_);
        adopted = index->adopt();
        if (!adopted && adopted.error().code == Errc::kCorrupt) {
            CORAL_CHECK(index->open_database(true));
            adopted = index->adopt();
        }
    }
    CORAL_CHECK(std::move(adopted));
    // What recovery found is made durable before anything may be built on it.
    if (!read_only && index->pending_count_ > 0) CORAL_CHECK(index->sync());
    return index;
}

std::vector<Row> Index::find_pending(Kind kind, const AnyId& id) const {
    std::shared_lock lock(pending_mutex_);
    auto found = pending_.find({kind, id});
    return found == pending_.end() ? std::vector<Row>() : found->second;
}

// Of FILE records a better one may be committed; of all else any record serves.
Result<std::vector<Row>> Index::find(Kind kind, const AnyId& id) {
    return find(kind, id, kind == Kind::kFile);
}

Result<std::vector<Row>> Index::find_all(Kind kind, const AnyId& id) {
    return find(kind, id, true);
}

Result<std::vector<Row>> Index::find(Kind kind, const AnyId& id, bool all) {
    for (int attempt = 0; attempt < 2; ++attempt) {
        const std::uint64_t seen = refreshed_;
        std::vector<Row> rows = find_pending(kind, id);
        if (rows.empty() || all) {
            auto committed = find_committed(kind, id);
            if (!committed) {
                if (committed.error().code == Errc::kCorrupt) discard_needed_ = true;
                adopt_needed_ = true;
                if (attempt == 1) return std::move(committed).error();
            } else {
                rows.insert(rows.end(), committed->begin(), committed->end());
            }
        }
        keep_known(rows);
        if (!rows.empty()) {
            std::sort(rows.begin(), rows.end(), better);
            return rows;
        }
        if (attempt == 0) {
            CORAL_TRY(bool changed, refresh());
            // Another thread may have taken in what we look for, after our look and before our turn.
            if (!changed && seen == refreshed_) break;
        }
    }
    return std::vector<Row>();
}

// Rows of packs that are not there, or not known yet, do not count: index.db may have been written to by somebody who
// has not seen that a pack was removed.
void Index::keep_known(std::vector<Row>& rows) const {
    std::shared_lock lock(pending_mutex_);
    std::erase_if(rows, [&](const Row& row) { return !states_.contains(row.pack); });
}

void Index::forget_state(const Uuid& pack) {
    {
        std::unique_lock lock(pending_mutex_);
        states_.erase(pack);
        for (auto at = pending_.begin(); at != pending_.end();) {
            std::size_t erased = std::erase_if(at->second, [&](const Row& row) { return row.pack == pack; });
            pending_count_.fetch_sub(erased, std::memory_order_relaxed);
            at = at->second.empty() ? pending_.erase(at) : std::next(at);
        }
    }
    packs_files_.forget(pack);
    forgot_any_ = true;
}

std::vector<PackState> Index::packs() const {
    std::vector<PackState> out;
    {
        std::shared_lock lock(pending_mutex_);
        for (const auto& [uuid, state] : states_) out.push_back(state);
    }
    std::sort(out.begin(), out.end(), [](const PackState& a, const PackState& b) {
        return std::tie(a.created_ns, a.uuid) < std::tie(b.created_ns, b.uuid);
    });
    return out;
}

std::optional<PackState> Index::pack(const Uuid& uuid) const {
    std::shared_lock lock(pending_mutex_);
    auto found = states_.find(uuid);
    if (found == states_.end()) return std::nullopt;
    return found->second;
}

std::uint64_t Index::highest_ref_seq() const {
    std::shared_lock lock(pending_mutex_);
    std::uint64_t highest = 0;
    for (const auto& [uuid, state] : states_) highest = std::max(highest, state.ref_seq);
    return highest;
}

void Index::add_pack(const FileHeader& header, bool own) {
    std::unique_lock lock(pending_mutex_);
    PackState& s = states_[header.uuid];
    s.uuid = header.uuid;
    s.created_ns = header.created_ns;
    s.ref_seq = std::max(s.ref_seq, header.ref_seq);
    s.own = own;
    s.changed = true;
}

void Index::set_own(const Uuid& pack, bool own) {
    std::unique_lock lock(pending_mutex_);
    auto found = states_.find(pack);
    if (found == states_.end()) return;
    found->second.own = own;
    // Rows that were somebody else's until now become ours to sync.
    if (!own) return;
    for (auto& [key, rows] : pending_) {
        for (Row& row : rows) {
            if (row.pack == pack) row.foreign = false;
        }
    }
}

void Index::set_closed(const Uuid& pack) {
    std::unique_lock lock(pending_mutex_);
    auto found = states_.find(pack);
    if (found == states_.end() || found->second.phase != PackPhase::kOpen) return;
    found->second.phase = PackPhase::kClosed;
    found->second.changed = true;
}

void Index::set_sealed(const Uuid& pack, std::uint64_t size) {
    std::unique_lock lock(pending_mutex_);
    auto found = states_.find(pack);
    if (found == states_.end()) return;
    PackState& s = found->second;
    s.phase = PackPhase::kSealed;
    s.own = false;
    s.scanned_to = s.synced_to = size;  // sealing has synced it
    s.changed = true;
}

void Index::insert_rows(PackState& state, const IndexEntry& entry) {
    if (entry.id.is_zero() || entry.kind == Kind::kIndex) return;
    auto insert = [&](const Row& row) {
        std::vector<Row>& rows = pending_[{row.kind, row.id}];
        for (const Row& r : rows) {
            if (r.pack == row.pack && r.offset == row.offset && r.slot == row.slot) return;
        }
        rows.push_back(row);
        pending_count_.fetch_add(1, std::memory_order_relaxed);
    };
    Row row;
    row.id = entry.id;
    row.kind = entry.kind;
    row.flags = entry.flags;
    row.rank = entry.rank;
    row.pack = state.uuid;
    row.created_ns = state.created_ns;
    row.offset = entry.offset;
    row.stored = entry.stored;
    row.raw = entry.raw;
    row.foreign = !state.own && entry.offset >= state.synced_to;
    insert(row);
    for (std::size_t i = 0; i < entry.slots.size(); ++i) {
        const Slot& slot = entry.slots[i];
        row.id = AnyId::from(slot.id);
        row.kind = Kind::kSegment;
        row.rank = 0;
        row.raw = slot.length;
        // A member's share of its record.
        row.stored = entry.raw == 0 ? 0 : entry.stored * slot.length / entry.raw;
        row.slot = static_cast<std::int32_t>(i);
        insert(row);
    }
}

void Index::add_record(const Uuid& pack, const IndexEntry& entry, std::uint64_t seq, std::uint64_t header_sum,
                       std::uint64_t ref_seq) {
    std::unique_lock lock(pending_mutex_);
    PackState& s = states_[pack];
    if (entry.offset < s.scanned_to) return;
    insert_rows(s, entry);
    s.scanned_to = entry.offset + entry.stored;
    s.next_seq = seq + 1;
    s.tail_offset = entry.offset;
    s.tail_sum = header_sum;
    s.ref_seq = std::max(s.ref_seq, ref_seq);
    s.index_bytes += entry.encoded_size();
    s.changed = true;
}

Index::Snapshot Index::snapshot() const {
    std::shared_lock lock(pending_mutex_);
    Snapshot out;
    for (const auto& [uuid, state] : states_) {
        if (state.changed) out.packs.push_back(state);
    }
    out.rows.reserve(pending_count_.load());
    for (const auto& [key, rows] : pending_) {
        for (const Row& row : rows) {
            auto state = states_.find(row.pack);
            if (state != states_.end() && state->second.changed) out.rows.push_back(row);
        }
    }
    return out;
}

// The snapshot is in the database: forget its rows.
void Index::settle(const Snapshot& snapshot) {
    std::unique_lock lock(pending_mutex_);
    for (const PackState& done : snapshot.packs) {
        auto found = states_.find(done.uuid);
        if (found == states_.end()) continue;
        PackState& s = found->second;
        s.committed_to = std::max(s.committed_to, done.scanned_to);
        s.changed = s.scanned_to != done.scanned_to || s.phase != done.phase;
    }
    for (const Row& row : snapshot.rows) {
        auto found = pending_.find({row.kind, row.id});
        if (found == pending_.end()) continue;
        std::size_t erased = std::erase_if(found->second, [&](const Row& r) {
            return r.pack == row.pack && r.offset == row.offset && r.slot == row.slot;
        });
        pending_count_.fetch_sub(erased, std::memory_order_relaxed);
        if (found->second.empty()) pending_.erase(found);
    }
}

void Index::fail(const Error& error) {
    std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = Error(error).with("an fdatasync failed, open the repository again");
}

Status Index::failure() const {
    std::lock_guard lock(failure_mutex_);
    if (failure_) return Error(*failure_);
    return {};
}

Status Index::sync() {
    if (adopt_needed_ || database_replaced()) {
        adopt_needed_ = true;
        CORAL_CHECK(refresh());
    }
    return sync_now();
}

Status Index::sync_now() {
    std::lock_guard lock(sync_mutex_);
    CORAL_CHECK(failure());
    Snapshot now = snapshot();
    for (PackState& s : now.packs) {
        if (s.synced_to >= s.scanned_to) continue;
        Status synced = sync_pack_(s.uuid);
        if (!synced && !s.own && synced.error().code == Errc::kNotFound) {
            forget_state(s.uuid);  // removed meanwhile: there is nothing to make durable
            continue;
        }
        if (!synced) {
            fail(synced.error());
            return failure();
        }
        std::unique_lock state_lock(pending_mutex_);
        auto found = states_.find(s.uuid);
        if (found != states_.end()) found->second.synced_to = std::max(found->second.synced_to, s.scanned_to);
    }
    if (!has_database_ || (now.packs.empty() && now.rows.empty())) return {};
    if (Status written = write_rows(now); !written) {
        if (!now.rows.empty()) log_warn("index keeps {} rows in memory: {}", now.rows.size(), written.error().message);
        Errc code = written.error().code;
        if (code == Errc::kCorrupt) discard_needed_ = true;
        if (code == Errc::kCorrupt || code == Errc::kStale || code == Errc::kExists) adopt_needed_ = true;
        return {};
    }
    settle(now);
    return {};
}

}  // namespace coral::store
