// SPDX-License-Identifier: Apache-2.0
// fsck of the store: every byte of every pack, the index against the packs, and with `full` every name against its
// bytes.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "coral/base/hash.hpp"
#include "store/records.hpp"
#include "store/store_impl.hpp"

namespace coral::store {
namespace {

using Severity = Problem::Severity;

// A record that verified: enough to recognise it, 16 bytes each, for a repository may have tens of millions.
struct Seen {
    std::uint64_t offset = 0;
    std::uint64_t tag = 0;
};

std::uint64_t tag_of(Kind kind, const AnyId& id) {
    return load_le<std::uint64_t>(id.bytes.data()) ^ static_cast<std::uint64_t>(kind);
}

}  // namespace

class Verifier {
  public:
    using Progress = std::function<void(std::uint64_t, std::uint64_t)>;
    Verifier(StoreImpl& store, bool full, const Progress& progress) : store_(store), full_(full), progress_(progress) {}

    Result<std::vector<Problem>> run();

  private:
    void report(Severity severity, std::string what) { problems_.push_back({severity, std::move(what), false}); }
    // Something that nothing needed may have lost what it takes to be read.
    void report_if_used(std::string what) { problems_.push_back({Severity::kLost, std::move(what), true}); }
    Status check_pack(const Uuid& uuid);
    // `known`: up to where the index knows records, which cannot be a torn tail.
    Status walk(PackFile& pack, std::uint64_t end, std::uint64_t known, bool sealed, std::vector<IndexEntry>& entries);
    void check_end(PackFile& pack, const std::optional<PackState>& state, const FileStat& stat,
                   const std::optional<Footer>& footer);
    void check_index_record(PackFile& pack, const Footer& footer, std::uint64_t size, std::vector<IndexEntry>& entries);
    Status check_record(PackFile& pack, const PackWalker::Item& item, const IndexEntry& entry);
    Status check_rows(PackFile& pack, const IndexEntry& entry);
    Result<bool> has_rows(const Uuid& pack, const IndexEntry& entry);
    Status check_needs(const std::string& who, std::span<const SegmentId> needs, std::string_view what);
    Status check_file(PackFile& pack, const PackWalker::Item& item, const std::string& who);
    void check_segment_bytes(const PackWalker::Item& item, const codec::SegmentHeader& header,
                             const std::vector<Slot>* slots, const std::string& who);
    Status check_index();
    void advance(std::uint64_t bytes) {
        done_ += bytes;
        if (progress_) progress_(std::min(done_, total_), total_);
    }

    StoreImpl& store_;
    const bool full_;
    const Progress& progress_;
    std::uint64_t done_ = 0, total_ = 0;
    std::vector<Problem> problems_;
    std::map<Uuid, std::vector<Seen>> seen_;
    std::map<Uuid, std::uint64_t> walked_to_;  // records appended meanwhile lie behind it
    Buffer scratch_;
};

Status Verifier::check_needs(const std::string& who, std::span<const SegmentId> needs, std::string_view what) {
    for (const SegmentId& id : needs) {
        CORAL_TRY(bool there, store_.contains(Kind::kSegment, AnyId::from(id)));
        if (there) continue;
        report_if_used(fmt::format("{}: its {} {} is missing", who, what, id.hex()));
    }
    return {};
}

// Every row of the record is there.
Result<bool> Verifier::has_rows(const Uuid& pack, const IndexEntry& entry) {
    auto indexed = [&](Kind kind, const AnyId& id, std::int32_t slot) -> Result<bool> {
        CORAL_TRY(std::vector<Row> rows, store_.index_->find_all(kind, id));
        return std::any_of(rows.begin(), rows.end(),
                           [&](const Row& r) { return r.pack == pack && r.offset == entry.offset && r.slot == slot; });
    };
    CORAL_TRY(bool there, indexed(entry.kind, entry.id, -1));
    for (std::size_t i = 0; there && i < entry.slots.size(); ++i) {
        CORAL_TRY(there, indexed(Kind::kSegment, AnyId::from(entry.slots[i].id), static_cast<std::int32_t>(i)));
    }
    return there;
}

Status Verifier::check_rows(PackFile& pack, const IndexEntry& entry) {
    if (entry.id.is_zero()) return {};
    CORAL_TRY(bool there, has_rows(pack.uuid(), entry));
    if (!there) {
        // Another process may have appended it since the index was asked for news.
        CORAL_TRY(bool changed, store_.index_->refresh());
        if (changed) {
            CORAL_TRY(there, has_rows(pack.uuid(), entry));
        }
    }
    if (!there) {
        report(Severity::kWarning, fmt::format("{} at {}: {} {} is not in the index: run coral reindex", pack.path(),
                                               entry.offset, kind_name(entry.kind), entry.id.hex()));
    }
    return {};
}

// Decodes what lies on the disk, not what a cache remembers.
void Verifier::check_segment_bytes(const PackWalker::Item& item, const codec::SegmentHeader& header,
                                   const std::vector<Slot>* slots, const std::string& who) {
    scratch_.resize(header.raw_length);
    for (std::uint32_t c = 0; c < header.chunk_count(); ++c) {
        std::uint32_t begin = header.chunk_stored_begin(c);
        MutableBytes out =
            MutableBytes(scratch_).subspan(std::size_t{c} << header.chunk_log2, header.chunk_raw_length(c));
        Status done =
            store_.reader_->decode(header, c, item.payload.subspan(begin, header.chunks[c].stored_end - begin), out);
        if (!done) {
            report(Severity::kDamaged, fmt::format("{}: {}", who, done.error().message));
            return;
        }
    }
    if (Sha256::of(scratch_) != item.header.id) {
        report(Severity::kDamaged, fmt::format("{}: the SHA-256 of its bytes is another", who));
    }
    if (!slots) return;
    for (const Slot& s : *slots) {
        if (SegmentId::from(Sha256::of(Bytes(scratch_).subspan(s.offset, s.length))) != s.id) {
            report(Severity::kDamaged, fmt::format("{}: the SHA-256 of its member {} is another", who, s.id.hex()));
        }
    }
}

Status Verifier::check_file(PackFile& pack, const PackWalker::Item& item, const std::string& who) {
    auto raw = store_.unpack_payload(pack, item.offset, item.header, item.specific,
                                     Buffer(item.payload.begin(), item.payload.end()));
    auto record = raw ? decode_file_record(FileId::from(item.header.id), *raw) : Result<FileRecord>(raw.error());
    if (!record) {
        report(Severity::kDamaged, fmt::format("{}: {}", who, record.error().message));
        return {};
    }
    CORAL_TRY(ObjectSpecific object, decode_object_specific(Kind::kFile, item.specific));
    if (object.file_size != record->size || object.parser != record->parser ||
        object.parser_version != record->parser_version) {
        report(Severity::kDamaged, fmt::format("{}: its header and its payload differ", who));
    }
    std::size_t before = problems_.size();
    CORAL_CHECK(check_needs(who, record->segments, "segment"));
    if (!full_ || problems_.size() != before) return {};
    Sha256 sha;
    Buffer piece(1u << 20);
    for (std::uint64_t at = 0; at < record->size;) {
        auto got = store_.read_file(*record, at, piece);
        if (!got || *got == 0) {
            report(Severity::kDamaged, fmt::format("{}: {}", who, got ? "ends early" : got.error().message));
            return {};
        }
        sha.update(Bytes(piece).first(*got));
        at += *got;
    }
    if (sha.finish() != item.header.id)
        report(Severity::kDamaged, fmt::format("{}: the file's SHA-256 is another", who));
    return {};
}

Status Verifier::check_record(PackFile& pack, const PackWalker::Item& item, const IndexEntry& entry) {
    std::string who =
        fmt::format("{} at {}: {} {}", pack.path(), item.offset, kind_name(item.header.kind), item.header.id.hex());
    CORAL_CHECK(check_rows(pack, entry));
    switch (item.header.kind) {
        case Kind::kSegment: {
            std::size_t before = problems_.size();
            CORAL_CHECK(check_needs(who, entry.bases, "base"));
            CORAL_TRY(auto header, codec::read_header(item.specific, item.header.payload_length));
            if (problems_.size() == before) {
                CORAL_TRY(bool decodable, store_.reader_->has_bases(header));
                if (!decodable) report_if_used(fmt::format("{}: none of a base's records is of smaller depth", who));
            }
            if (full_ && problems_.size() == before) check_segment_bytes(item, header, nullptr, who);
            return {};
        }
        case Kind::kGroup: {
            CORAL_TRY(auto group, decode_group(item.specific, item.header.payload_length));
            if (full_) check_segment_bytes(item, group.header, &group.slots, who);
            return {};
        }
        case Kind::kFile:
            return check_file(pack, item, who);
        case Kind::kTree:
        case Kind::kCommit:
        case Kind::kTag: {
            auto raw = store_.unpack_payload(pack, item.offset, item.header, item.specific,
                                             Buffer(item.payload.begin(), item.payload.end()));
            if (!raw)
                report(Severity::kDamaged, raw.error().message);
            else if (object_id(item.header.kind, *raw) != item.header.id) {
                report(Severity::kDamaged, fmt::format("{}: its SHA-256 is another", who));
            }
            return {};
        }
        case Kind::kRef:
            if (auto hint = decode_ref_hint(item.payload); !hint) {
                report(Severity::kDamaged, fmt::format("{}: {}", who, hint.error().message));
            }
            return {};
        case Kind::kWork:
            if (auto hint = decode_work_hint(item.payload); !hint) {
                report(Severity::kDamaged, fmt::format("{}: {}", who, hint.error().message));
            }
            return {};
        default:
            return {};
    }
}

Status Verifier::walk(PackFile& pack, std::uint64_t end, std::uint64_t known, bool sealed,
                      std::vector<IndexEntry>& entries) {
    PackWalker walker(pack, kFileHeaderSize, end, 1, true);
    PackWalker::Item item;
    std::uint64_t intact = kFileHeaderSize;
    while (true) {
        std::uint64_t at = walker.position();
        auto more = walker.next(item);
        if (more && !*more) break;
        if (!more) {
            if (!sealed && at >= known) {
                // A machine that stops may have written what is behind a record and not the record: nothing there
                // counts.
                report(Severity::kWarning,
                       fmt::format("{}: the {} bytes behind {} are no whole record: a write was cut; what "
                                   "is before them is intact",
                                   pack.path(), end - at, at));
                walked_to_[pack.uuid()] = at;  // or is still under way: rows of what comes there are none of ours
                advance(end - at);
                break;
            }
            walker.resync();
            report(Severity::kDamaged, more.error().message);
            advance(walker.position() - at);
            continue;
        }
        intact = walker.position();
        advance(item.header.total());
        if (!known_kind(item.header.kind) || item.header.version != 1) continue;
        auto entry = index_entry(item.header, item.specific, item.offset, item.payload_sum);
        if (!entry) {
            report(Severity::kDamaged, pack.at(item.offset, std::move(entry).error()).message);
            continue;
        }
        seen_[pack.uuid()].push_back({item.offset, tag_of(entry->kind, entry->id)});
        CORAL_CHECK(check_record(pack, item, *entry));
        if (sealed) entries.push_back(std::move(*entry));
    }
    if (sealed && intact != end)
        report(Severity::kDamaged, fmt::format("{}: records end at {} of {}", pack.path(), intact, end));
    return {};
}

void Verifier::check_index_record(PackFile& pack, const Footer& footer, std::uint64_t size,
                                  std::vector<IndexEntry>& entries) {
    auto index = pack.read_index(footer, size);
    if (!index) {
        report(Severity::kDamaged, index.error().message);
        return;
    }
    PackWalker walker(pack, footer.index_offset, size - kFooterSize, 0, true);
    PackWalker::Item item;
    if (auto whole = walker.next(item); !whole) report(Severity::kDamaged, whole.error().message);
    (void)encode_index(entries);  // sorts
    if (*index != entries) {
        report(Severity::kDamaged, fmt::format("{} at {}: the INDEX record does not describe the records of this pack",
                                               pack.path(), footer.index_offset));
    }
}

// A pack that was sealed and has no footer any more. `state` is from before `stat`: one from after it may tell of a
// seal that came in between.
void Verifier::check_end(PackFile& pack, const std::optional<PackState>& state, const FileStat& stat,
                         const std::optional<Footer>& footer) {
    bool was_sealed = (stat.mode & 0222) == 0 || (state && state->phase == PackPhase::kSealed);
    if (!footer && was_sealed)
        report(Severity::kDamaged, fmt::format("{}: the footer of this sealed pack is damaged", pack.path()));
    if (state && stat.size < state->scanned_to) {
        report(Severity::kLost,
               fmt::format("{}: has {} bytes where {} were", pack.path(), stat.size, state->scanned_to));
    }
}

Status Verifier::check_pack(const Uuid& uuid) {
    store_.packs_.forget(uuid);  // read its header anew
    auto opened = store_.packs_.get(uuid);
    if (!opened) {
        auto stat = store_.os_.stat(store_.packs_.path_of(uuid));
        bool born_torn = stat && stat->size < kFileHeaderSize && !store_.index_->pack(uuid);
        report(born_torn ? Severity::kWarning : Severity::kDamaged, opened.error().message);
        return {};
    }
    PackFile& pack = **opened;
    if (pack.header().repo != store_.repo_) {
        report(Severity::kWarning, fmt::format("{}: belongs to another repository", pack.path()));
        return {};
    }
    auto state = store_.index_->pack(uuid);
    CORAL_TRY(FileStat stat, pack.file().stat());
    CORAL_TRY(auto footer, pack.read_footer(stat.size));
    check_end(pack, state, stat, footer);
    std::vector<IndexEntry> entries;
    std::uint64_t end = footer ? footer->index_offset : stat.size;
    if (state && state->own) end = std::min(end, state->scanned_to);  // it may be growing under our eyes
    walked_to_[uuid] = footer ? stat.size : end;
    CORAL_CHECK(walk(pack, end, state ? state->scanned_to : kFileHeaderSize, footer.has_value(), entries));
    if (footer) check_index_record(pack, *footer, stat.size, entries);
    return {};
}

// Every row of the index points to a record that was seen.
Status Verifier::check_index() {
    for (auto k = static_cast<int>(Kind::kSegment); k <= static_cast<int>(Kind::kSketch); ++k) {
        CORAL_CHECK(store_.index_->each(static_cast<Kind>(k), [&](const Row& row) -> Status {
            auto walked = walked_to_.find(row.pack);
            bool later = walked == walked_to_.end() ? store_.os_.exists(store_.packs_.path_of(row.pack))
                                                    : row.offset >= walked->second;
            if (later) return {};
            const std::vector<Seen>& seen = seen_[row.pack];
            auto at = std::lower_bound(seen.begin(), seen.end(), row.offset,
                                       [](const Seen& s, std::uint64_t offset) { return s.offset < offset; });
            bool right =
                at != seen.end() && at->offset == row.offset && (row.slot >= 0 || at->tag == tag_of(row.kind, row.id));
            if (!right) {
                report(Severity::kDamaged,
                       fmt::format("{} at {}: {} {} of the index is not (or no longer) there",
                                   store_.packs_.path_of(row.pack), row.offset, kind_name(row.kind), row.id.hex()));
            }
            return {};
        }));
    }
    return {};
}

Result<std::vector<Problem>> Verifier::run() {
    if (!store_.options_.read_only) {
        if (Status flushed = store_.groups_->flush(); !flushed) report(Severity::kWarning, flushed.error().message);
    }
    CORAL_TRY(bool changed, store_.index_->refresh());
    (void)changed;
    CORAL_TRY(std::vector<Uuid> uuids, store_.packs_.list());
    for (const Uuid& uuid : uuids) {
        if (auto stat = store_.os_.stat(store_.packs_.path_of(uuid))) total_ += stat->size;
    }
    for (const PackState& state : store_.index_->packs()) {
        if (std::find(uuids.begin(), uuids.end(), state.uuid) == uuids.end()) {
            report(Severity::kLost, fmt::format("{}: is gone", store_.packs_.path_of(state.uuid)));
        }
    }
    for (const Uuid& uuid : uuids) CORAL_CHECK(check_pack(uuid));
    CORAL_CHECK(check_index());
    if (progress_) progress_(total_, total_);
    return std::move(problems_);
}

Result<std::vector<Problem>> StoreImpl::verify(bool full,
                                               const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    CORAL_TRY(Session session, this->session());  // no pack goes away under our eyes
    reader_->forget();
    reader_->cache().clear();
    return Verifier(*this, full, progress).run();
}

}  // namespace coral::store
