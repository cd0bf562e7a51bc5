// SPDX-License-Identifier: Apache-2.0
// Encoding anew what is stored. A record that is added here replaces nothing yet: Collector chooses.
#include <algorithm>

#include "coral/base/hash.hpp"
#include "store/collector.hpp"
#include "store/store_impl.hpp"

namespace coral::store {
namespace {

constexpr std::uint64_t kLeastBytes = 256;
constexpr std::uint64_t kLeastPart = 50;  // 2 %
constexpr std::size_t kTogether = 2;      // candidates of one encoding, as load_bases takes them

}  // namespace

void Dependants::finish() {
    std::sort(depths_.begin(), depths_.end());
    auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
    depths_.erase(std::unique(depths_.begin(), depths_.end(), same), depths_.end());
    depths_.shrink_to_fit();
}

std::uint8_t Dependants::lowest(const SegmentId& id) const {
    auto at = std::lower_bound(depths_.begin(), depths_.end(), std::pair<SegmentId, std::uint8_t>{id, 0});
    return at != depths_.end() && at->first == id ? at->second : std::uint8_t{codec::kMaxDepth + 1};
}

Result<RewriteLimits> StoreImpl::rewrite_limits() {
    LiveSet nothing;
    CollectOptions options;
    return Collector(*this, nothing, options).limits();
}

Result<RewriteLimits> Collector::limits() {
    CORAL_TRY(bool changed, store_.index_->refresh());
    (void)changed;
    RewriteLimits out;
    for (const PackState& state : store_.index_->packs()) {
        CORAL_CHECK(each_entry(state, 0, [&](const IndexEntry& entry) -> Status {
            for (const SegmentId& base : entry.bases) out.dependants.add(base, static_cast<std::uint8_t>(entry.rank));
            return {};
        }));
        if (state.phase == PackPhase::kSealed || state.own || store_.options_.read_only) continue;
        auto file = store_.os_.open(store_.packs_.path_of(state.uuid), OpenMode::kReadWrite);
        if (!file && file.error().code == Errc::kAccess) continue;  // sealed just now: nobody appends to it any more
        if (!file) return std::move(file).error();
        CORAL_TRY(bool locked, (*file)->try_lock(true));
        if (!locked) out.held.insert(state.uuid);
    }
    out.dependants.finish();
    return out;
}

Result<std::optional<codec::Encoded>> StoreImpl::encode_best(Bytes raw, codec::Hint hint,
                                                             std::span<const BaseCandidate> candidates,
                                                             std::uint32_t below) {
    std::optional<codec::Encoded> best;
    for (std::size_t at = 0; at == 0 || at < candidates.size(); at += kTogether) {
        std::deque<Buffer> bytes;
        auto some = candidates.subspan(at, std::min(kTogether, candidates.size() - at));
        CORAL_TRY(std::vector<codec::Base> bases, load_bases(some, hint, bytes, below));
        if (at > 0 && bases.empty()) continue;
        CORAL_TRY(codec::Encoded encoded,
                  codec::encode_segment(raw, hint, bases, codec::Level::kDefault, chunk_log2_for(raw)));
        if (!best || encoded.payload.size() < best->payload.size()) best = std::move(encoded);
    }
    return best;
}

Result<Rewrite> StoreImpl::rewrite_segment(const SegmentId& id, Bytes raw, codec::Hint hint,
                                           std::span<const BaseCandidate> candidates, const RewriteLimits& limits,
                                           bool dry_run) {
    if (SegmentId::from(Sha256::of(raw)) != id) return make_error(Errc::kCorrupt, "bytes of another segment");
    Session session;
    if (!dry_run) {
        CORAL_TRY(session, join());
    }
    Rewrite result;
    CORAL_TRY(std::vector<Row> rows, index_->find_all(Kind::kSegment, AnyId::from(id)));
    const std::uint32_t lowest = limits.dependants.lowest(id);
    for (const Row& row : rows) {
        // A group goes as a whole or not at all, and a pack that is held for now not either.
        if (row.slot >= 0 || row.foreign || limits.held.contains(row.pack)) return result;
        if (row.rank < lowest && (result.before == 0 || row.stored < result.before)) result.before = row.stored;
    }
    if (result.before == 0) return result;
    // Its own depth is one more than its bases' and must be less than that of what refers to it.
    const std::uint32_t below = std::min<std::uint32_t>(codec::kMaxDepth, lowest - 1);
    std::vector<BaseCandidate> others;
    for (const BaseCandidate& candidate : candidates) {
        if (candidate.id != id && candidate.next != id) others.push_back(candidate);
    }
    CORAL_TRY(auto encoded, encode_best(raw, hint, others, below));
    if (!encoded || encoded->header.depth >= lowest) return result;
    Buffer specific;
    codec::write_header(encoded->header, specific);
    result.after = kRecordMinimum + specific.size() + encoded->payload.size() + 8;
    result.depth = encoded->header.depth;
    result.better = result.after + std::max(kLeastBytes, result.before / kLeastPart) <= result.before;
    if (!result.better || dry_run) return result;
    CORAL_CHECK(writer_->append(Kind::kSegment, 0, AnyId::from(id), specific, encoded->payload));
    CORAL_CHECK(after_put());
    return result;
}

}  // namespace coral::store
