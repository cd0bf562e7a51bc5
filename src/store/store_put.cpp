// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "coral/base/hash.hpp"
#include "coral/base/log.hpp"
#include "store/records.hpp"
#include "store/store_impl.hpp"

namespace coral::store {
namespace {

constexpr std::size_t kPlainBelow = 128;           // zstd gains nothing on less
constexpr std::size_t kSmallPayload = 256u << 10;  // worth a higher zstd level
constexpr std::size_t kAloneWithBase = 8u << 10;
// Looked at by one put; each with what belongs to it takes up to 64 MiB of memory.
constexpr std::size_t kMaxCandidates = 2;

Error invalid(std::string what) {
    return make_error(Errc::kInvalid, std::move(what));
}

}  // namespace

// A segment that nothing uses may outlive its base (the pack of one was removed, that of the other not): who asks must
// not build on it. Another process may have stored it again since the rows were read.
Result<bool> StoreImpl::whole(const SegmentId& id) {
    for (bool again : {false, true}) {
        if (groups_->contains(id)) return true;
        CORAL_TRY(std::vector<Row> rows, index_->find(Kind::kSegment, AnyId::from(id)));
        if (rows.empty()) return false;
        if (rows.front().rank == 0) return true;
        CORAL_TRY(bool there, reader_->is_whole(id));
        if (there || again) return there;
        CORAL_TRY(bool changed, index_->refresh());
        if (!changed) return false;
    }
    return false;
}

Result<bool> StoreImpl::has_segments(const FileRecord& record) {
    for (const SegmentId& segment : record.segments) {
        CORAL_TRY(bool there, whole(segment));
        if (!there) return false;
    }
    return true;
}

Result<bool> StoreImpl::contains(Kind kind, const AnyId& id) {
    if (kind == Kind::kSegment) return whole(SegmentId::from(id));
    if (kind != Kind::kFile) {
        CORAL_TRY(std::vector<Row> rows, index_->find(kind, id));
        return !rows.empty();
    }
    const auto file_id = FileId::from(id);
    if (groups_->held_file(file_id)) return true;
    for (bool again : {false, true}) {
        auto record = file(file_id);
        if (!record) {
            if (record.error().code == Errc::kNotFound || record.error().code == Errc::kCorrupt) return false;
            return std::move(record).error();
        }
        // A power cut may have taken a segment from the pack of another process that this record, in ours, refers to.
        // Whoever skips storing a file because of this answer relies on all of it.
        CORAL_TRY(bool there, has_segments(**record));
        if (there || again) return there;
        // What is remembered may be of before the file was stored again, cut differently.
        CORAL_TRY(bool changed, index_->refresh());
        (void)changed;
        files_.erase(file_id);
    }
    return false;
}

Status StoreImpl::after_put() {
    if (!index_->should_sync()) return {};
    return index_->sync();
}

// The segment, or the first of its earlier states that is not too deep for a base: the next save of a long series
// refers to the same state as its neighbours do, until that costs nearly as much as no base at all.
Result<SegmentId> StoreImpl::shallow(SegmentId id, std::uint32_t below) {
    for (unsigned steps = 0; steps < codec::kMaxDepth && !id.is_zero(); ++steps) {
        CORAL_TRY(std::vector<Row> rows, index_->find_all(Kind::kSegment, AnyId::from(id)));
        if (rows.empty() || rows.back().rank < below) break;
        auto place = reader_->place(id);
        if (!place || (*place)->block->header.depth == 0) break;
        auto earlier = (*place)->block->header.earlier_state();
        if (!earlier || earlier->offset != 0) break;
        id = earlier->id;
    }
    return id;
}

// A save after each step costs its gradient alone, as long as its base is the state one step before. Where that one is
// too deep, an earlier one saves so little that a new chain is cheaper from the second save on.
Result<bool> StoreImpl::formulas_end(const BaseCandidate& candidate, std::uint32_t below) {
    if (candidate.formula == codec::Formula::kNone) return false;
    CORAL_TRY(std::vector<Row> rows, index_->find_all(Kind::kSegment, AnyId::from(candidate.id)));
    if (rows.empty() || rows.back().rank < below) return false;
    auto place = reader_->place(candidate.id);
    return place && (*place)->block->header.by_formula();
}

// Appends the base to `bases` if it can be one. `bytes` keeps what it shows: a deque, so that nothing moves.
Result<bool> StoreImpl::load_base(const BaseCandidate& candidate, std::vector<codec::Base>& bases,
                                  std::deque<Buffer>& bytes, std::uint32_t below) {
    if (groups_->contains(candidate.id)) return false;
    auto rows = index_->find_all(Kind::kSegment, AnyId::from(candidate.id));
    if (!rows) return std::move(rows).error();
    // Somebody else's record that may not be on stable storage yet could vanish under ours. And of several records the
    // deepest may be the one that stays.
    if (rows->empty() || rows->front().foreign || rows->back().rank >= below) return false;
    // Whatever a cache may remember of it.
    CORAL_TRY(bool decodable, whole(candidate.id));
    if (!decodable) return false;
    auto raw = read_segment(candidate.id);
    if (!raw) {
        log_warn("is not used as a base: {}", raw.error().message);
        return false;
    }
    CORAL_TRY(auto place, reader_->place(candidate.id));
    bytes.push_back(std::move(*raw));
    codec::Base base;
    base.id = candidate.id;
    base.offset = candidate.offset;
    base.depth = static_cast<std::uint8_t>(std::max<std::uint32_t>(place->depth, rows->back().rank));
    base.raw = bytes.back();
    base.dtype = candidate.dtype;
    bases.push_back(base);
    return true;
}

// What the optimizer had besides the base that was loaded last.
Status StoreImpl::load_inputs(const BaseCandidate& candidate, std::vector<codec::Base>& bases,
                              std::deque<Buffer>& bytes, std::uint32_t below) {
    if (candidate.formula == codec::Formula::kNone || candidate.offset != 0) return {};
    const std::size_t base = bases.size() - 1;
    for (const SegmentId& id : {candidate.first, candidate.second}) {
        CORAL_TRY(bool there, load_base({id, 0, 0, {}}, bases, bytes, below));
        if (!there) {
            bases.resize(base + 1);
            return {};
        }
    }
    bases[base].inputs = codec::Base::Inputs{candidate.formula, base + 1, base + 2};
    return {};
}

// What belongs to the base that was loaded last: the state before it, or what follows it in its tensor.
Status StoreImpl::load_second(const BaseCandidate& candidate, std::vector<codec::Base>& bases,
                              std::deque<Buffer>& bytes, std::uint32_t below) {
    const std::size_t first = bases.size() - 1;  // what belongs to it comes behind it
    if (candidate.dtype != 0) {
        if (candidate.next.is_zero()) return {};
        CORAL_TRY(bool there, load_base({candidate.next, 0, candidate.dtype, {}}, bases, bytes, below));
        if (there) bases[first].next = first + 1;
        return {};
    }
    CORAL_CHECK(load_inputs(candidate, bases, bytes, below));
    CORAL_TRY(auto place, reader_->place(candidate.id));
    if (place->offset != 0 || place->length != place->block->header.raw_length) return {};
    auto earlier = place->block->header.earlier_state();
    if (!earlier || candidate.offset != 0) return {};
    CORAL_TRY(bool there, load_base({earlier->id, earlier->offset, 0, {}}, bases, bytes, below));
    if (there) bases[first].before = bases.size() - 1;
    return {};
}

Result<std::vector<codec::Base>> StoreImpl::load_bases(std::span<const BaseCandidate> candidates, codec::Hint hint,
                                                       std::deque<Buffer>& bytes, std::uint32_t below) {
    std::vector<codec::Base> bases;
    below = std::min(below, static_cast<std::uint32_t>(options_.max_depth));
    for (BaseCandidate candidate : candidates.first(std::min(candidates.size(), kMaxCandidates))) {
        CORAL_TRY(bool end, formulas_end(candidate, below));
        if (end) return std::vector<codec::Base>();
        CORAL_TRY(candidate.id, shallow(candidate.id, below));
        CORAL_TRY(candidate.next, shallow(candidate.next, below));
        if (candidate.offset % hint.width != 0) continue;
        CORAL_TRY(bool there, load_base(candidate, bases, bytes, below));
        if (there) CORAL_CHECK(load_second(candidate, bases, bytes, below));
    }
    return bases;
}

Result<Put> StoreImpl::put_large(const SegmentId& id, Bytes raw, codec::Hint hint,
                                 std::span<const BaseCandidate> candidates) {
    std::deque<Buffer> base_bytes;
    CORAL_TRY(std::vector<codec::Base> bases, load_bases(candidates, hint, base_bytes));
    CORAL_TRY(codec::Encoded encoded,
              codec::encode_segment(raw, hint, bases, codec::Level::kDefault, chunk_log2_for(raw)));
    base_bytes.clear();
    Buffer specific;
    codec::write_header(encoded.header, specific);
    CORAL_TRY(Appended appended, writer_->append(Kind::kSegment, 0, AnyId::from(id), specific, encoded.payload));
    CORAL_CHECK(after_put());
    return Put{false, appended.stored, encoded.header.depth};
}

Result<Put> StoreImpl::put_segment(const SegmentId& id, Bytes raw, codec::Hint hint,
                                   std::span<const BaseCandidate> candidates) {
    if (raw.empty() || raw.size() > codec::kMaxSegment) return invalid(fmt::format("segment of {} bytes", raw.size()));
    if (id.is_zero() || codec::Hint::unpack(hint.pack()) != hint)
        return invalid("segment without a name or a sound hint");
    CORAL_TRY(Session session, join());
    {
        std::unique_lock lock(puts_mutex_);
        put_done_.wait(lock, [&] { return !putting_.contains(id); });
        putting_.insert(id);
    }
    auto put = [&]() -> Result<Put> {
        CORAL_TRY(bool there, contains(Kind::kSegment, AnyId::from(id)));
        if (there) return Put{true, 0, 0};
        // With a base a record of its own is worth its overhead earlier.
        bool alone = raw.size() > kMaxGroupMember || (raw.size() >= kAloneWithBase && !candidates.empty());
        if (alone) return put_large(id, raw, hint, candidates);
        CORAL_TRY(bool added, groups_->add(id, raw, hint));
        CORAL_CHECK(after_put());
        // Its share is known once the group is coded; raw is what it can cost at most.
        return Put{!added, added ? raw.size() : 0, 0};
    };
    Result<Put> result = put();
    {
        std::lock_guard lock(puts_mutex_);
        putting_.erase(id);
    }
    put_done_.notify_all();
    return result;
}

Result<StoreImpl::Packed> StoreImpl::pack_payload(Kind kind, Bytes raw, const FileRecord* file) {
    if (raw.size() > kMaxObject) {
        return make_error(Errc::kTooLarge, fmt::format("{} of {} bytes", kind_name(kind), raw.size()));
    }
    Packed packed;
    ObjectSpecific specific;
    specific.raw_length = raw.size();
    if (file) {
        specific.file_size = file->size;
        specific.parser = file->parser;
        specific.parser_version = file->parser_version;
    }
    if (raw.size() >= kPlainBelow) {
        packed.payload = codec::compress_small(raw, raw.size() <= kSmallPayload ? 9 : 3);
        auto again = codec::decompress_small(packed.payload, raw.size(), kMaxObject);
        bool right = again && std::equal(again->begin(), again->end(), raw.begin(), raw.end());
        if (right && packed.payload.size() < raw.size()) specific.packing = Packing::kZstd;
    }
    if (specific.packing == Packing::kPlain) packed.payload.assign(raw.begin(), raw.end());
    packed.specific = encode_object_specific(kind, specific);
    if (packed.payload.size() <= kMaxInlinePayload) return packed;

    Buffer ids;
    for (std::size_t at = 0; at < packed.payload.size(); at += codec::kMaxSegment) {
        Bytes part =
            Bytes(packed.payload).subspan(at, std::min<std::size_t>(codec::kMaxSegment, packed.payload.size() - at));
        auto id = SegmentId::from(Sha256::of(part));
        CORAL_CHECK(put_segment(id, part, codec::Hint{}, {}));
        ByteWriter(ids).id(id);
    }
    CORAL_CHECK(groups_->flush());
    packed.payload = std::move(ids);
    packed.flags = kFlagInSegments;
    return packed;
}

Result<Put> StoreImpl::put_file(const FileRecord& record) {
    CORAL_TRY(Session session, join());
    CORAL_TRY(std::vector<Row> rows, index_->find(Kind::kFile, AnyId::from(record.id)));
    std::uint32_t rank = file_rank(record.parser, record.parser_version);
    auto waiting = groups_->held_file(record.id);
    if ((waiting && file_rank(waiting->parser, waiting->parser_version) <= rank) ||
        (!rows.empty() && rows.front().rank <= rank)) {
        CORAL_TRY(bool whole, contains(Kind::kFile, AnyId::from(record.id)));
        if (whole) return Put{true, 0, 0};
    }
    Buffer raw = encode_file_record(record);
    CORAL_TRY(FileRecord again, decode_file_record(record.id, raw));
    if (!(again == record)) return invalid("file record that does not survive its encoding");
    CORAL_TRY(Packed packed, pack_payload(Kind::kFile, raw, &record));
    files_.erase(record.id);
    Put put{false, kRecordMinimum + packed.specific.size() + packed.payload.size() + 8, 0};
    HeldRecord held{Kind::kFile,
                    AnyId::from(record.id),
                    std::move(packed.specific),
                    std::move(packed.payload),
                    packed.flags,
                    std::make_shared<const FileRecord>(std::move(again))};
    if (groups_->hold(held, record.segments, nullptr)) {
        if (groups_->holds_much()) CORAL_CHECK(groups_->flush());
    } else {
        CORAL_CHECK(writer_->append(Kind::kFile, held.flags, held.id, held.specific, held.payload));
    }
    files_.erase(record.id);  // a reader may have found the record before this one in between
    CORAL_CHECK(after_put());
    return put;
}

Result<Put> StoreImpl::put_object(Kind kind, const AnyId& id, Bytes raw) {
    CORAL_TRY(Session session, join());
    if (kind != Kind::kTree && kind != Kind::kCommit && kind != Kind::kTag) return invalid("not a history object");
    CORAL_TRY(std::vector<Row> rows, index_->find(kind, id));
    if (!rows.empty()) return Put{true, 0, 0};
    CORAL_CHECK(groups_->flush());  // what it names comes before it
    CORAL_TRY(Packed packed, pack_payload(kind, raw, nullptr));
    CORAL_TRY(Appended appended, writer_->append(kind, packed.flags, id, packed.specific, packed.payload));
    CORAL_CHECK(after_put());
    return Put{false, appended.stored, 0};
}

Status StoreImpl::put_hint(Kind kind, Bytes specific, Buffer payload, const FileId* needs) {
    CORAL_TRY(Session session, join());
    HeldRecord held{kind, AnyId{}, Buffer(specific.begin(), specific.end()), std::move(payload), 0, nullptr};
    if (needs && groups_->hold(held, {}, needs)) return {};
    CORAL_CHECK(writer_->append(kind, 0, held.id, held.specific, held.payload));
    return {};
}

Status StoreImpl::put_ref_hint(const RefHint& hint) {
    for (const std::string* text : {&hint.name, &hint.actor, &hint.reason}) {
        if (text->size() > 0xffff) return make_error(Errc::kNameTooLong, "a ref's name, actor or reason is too long");
    }
    CORAL_CHECK(writable());
    CORAL_CHECK(groups_->flush());
    Buffer specific;
    ByteWriter(specific).u64(hint.ref_seq);
    return put_hint(Kind::kRef, specific, encode_ref_hint(hint), nullptr);
}

Status StoreImpl::put_work_hint(const WorkHint& hint) {
    if (hint.branch.size() > 0xffff || hint.path.size() > 0xffff) {
        return make_error(Errc::kNameTooLong, "a worktree's branch or path is too long");
    }
    return put_hint(Kind::kWork, {}, encode_work_hint(hint), &hint.file);
}

}  // namespace coral::store
