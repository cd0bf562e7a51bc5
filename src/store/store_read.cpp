// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "coral/base/log.hpp"
#include "store/records.hpp"
#include "store/store_impl.hpp"

namespace coral::store {
namespace {

Error corrupt(std::string what) {
    return make_error(Errc::kCorrupt, std::move(what));
}

std::uint64_t memory_of(const FileRecord& r) {
    std::uint64_t bytes = sizeof r + r.segments.size() * 32 + r.extents.size() * 32 + r.inline_bytes.size();
    for (const TensorEntry& t : r.tensors) bytes += sizeof t + t.name.size() + t.shape.size() * 8;
    return bytes;
}

}  // namespace

// Undoes pack_payload.
Result<Buffer> StoreImpl::unpack_payload(PackFile& pack, std::uint64_t offset, const RecordHeader& header,
                                         Bytes specific, Buffer payload) {
    auto unpack = [&]() -> Result<Buffer> {
        CORAL_TRY(ObjectSpecific object, decode_object_specific(header.kind, specific));
        if ((header.flags & kFlagInSegments) != 0) {
            if (payload.size() % 32 != 0 || payload.size() / 32 > kMaxObject / codec::kMaxSegment + 1) {
                return corrupt("list of segments of a wrong length");
            }
            ByteReader r(payload);
            Buffer joined;
            while (r.left() != 0) {
                CORAL_TRY(Buffer part, read_segment(r.id<SegmentId>()));
                if (joined.size() + part.size() > kMaxObject) return corrupt("payload is too large");
                joined.insert(joined.end(), part.begin(), part.end());
            }
            payload = std::move(joined);
        }
        if (object.packing == Packing::kZstd) {
            return codec::decompress_small(payload, object.raw_length, kMaxObject);
        }
        if (payload.size() != object.raw_length) return corrupt("payload of a wrong length");
        return std::move(payload);
    };
    auto raw = unpack();
    if (!raw) return pack.at(offset, std::move(raw).error().with(kind_name(header.kind)));
    return raw;
}

Result<Buffer> StoreImpl::load_object(const Row& row) {
    CORAL_TRY(auto pack, packs_.get(row.pack));
    CORAL_TRY(LoadedHeader loaded, pack->read_header(row.offset));
    if (loaded.header.kind != row.kind || loaded.header.id != row.id) {
        return pack->at(row.offset, corrupt("the index is wrong about this record"));
    }
    CORAL_TRY(Buffer payload, pack->read_payload(row.offset, loaded.header));
    return unpack_payload(*pack, row.offset, loaded.header, loaded.specific(), std::move(payload));
}

Result<FileRecord> StoreImpl::load_file(const FileId& id, const Row& row) {
    CORAL_TRY(Buffer raw, load_object(row));
    auto record = decode_file_record(id, raw);
    if (!record) return std::move(record).error().with(fmt::format("{} at {}", packs_.path_of(row.pack), row.offset));
    return record;
}

Result<std::shared_ptr<const FileRecord>> StoreImpl::file(const FileId& id) {
    if (auto held = groups_->held_file(id)) return held;
    if (auto known = files_.get(id)) return known;
    Error error = make_error(Errc::kNotFound, fmt::format("file {} is not in the repository", id.hex()));
    for (int tries = 0; tries < 2; ++tries) {
        CORAL_TRY(std::vector<Row> rows, index_->find(Kind::kFile, AnyId::from(id)));
        std::shared_ptr<const FileRecord> lacks;
        for (const Row& row : rows) {
            auto record = load_file(id, row);
            if (!record) {
                error = std::move(record).error();
                continue;
            }
            auto shared = std::make_shared<const FileRecord>(std::move(*record));
            // How a file is cut depends on what is stored: the record of an earlier time, when nothing led to the file
            // any more, may have lost segments that a later one does not need.
            bool whole = rows.size() == 1;
            if (!whole) {
                CORAL_TRY(whole, has_segments(*shared));
            }
            if (whole) {
                files_.put(id, shared, memory_of(*shared) + kLruOverhead);
                return shared;
            }
            if (!lacks) lacks = shared;
        }
        if (lacks) return lacks;
        if (rows.empty() || !reader_->renew(error)) break;  // its pack has just been removed: it is in another
    }
    return error;
}

// The extent that holds `offset`, and where it begins.
std::size_t StoreImpl::first_extent(const FileRecord& record, std::uint64_t offset, std::uint64_t& position) const {
    if (!record.positions.empty() && record.positions.size() == record.extents.size()) {
        auto after = std::upper_bound(record.positions.begin(), record.positions.end(), offset);
        if (after == record.positions.begin()) return record.extents.size();
        auto index = static_cast<std::size_t>(after - record.positions.begin()) - 1;
        position = record.positions[index];
        return index;
    }
    position = 0;
    for (std::size_t i = 0; i < record.extents.size(); ++i) {
        if (offset - position < record.extents[i].length) return i;
        position += record.extents[i].length;
    }
    return record.extents.size();
}

// Who holds a record since long ago may miss segments: the file was cut anew, and what only the old cut needed is gone.
Result<std::size_t> StoreImpl::read_file(const FileRecord& record, std::uint64_t offset, MutableBytes out) {
    auto got = read_extents(record, offset, out);
    if (got || got.error().code != Errc::kNotFound) return got;
    CORAL_TRY(bool changed, index_->refresh());
    files_.erase(record.id);
    auto now = file(record.id);
    if (!now || (!changed && **now == record)) return got;
    reader_->forget();
    return read_extents(**now, offset, out);
}

Result<std::size_t> StoreImpl::read_extents(const FileRecord& record, std::uint64_t offset, MutableBytes out) {
    if (offset >= record.size) return std::size_t{0};
    out = out.first(static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), record.size - offset)));
    std::uint64_t position = 0;
    std::size_t done = 0;
    for (std::size_t i = first_extent(record, offset, position); done < out.size(); ++i) {
        if (i >= record.extents.size()) return corrupt(fmt::format("file {}: extents end early", record.id.hex()));
        const Extent& e = record.extents[i];
        std::uint64_t within = offset + done - position;
        auto take = static_cast<std::size_t>(std::min<std::uint64_t>(out.size() - done, e.length - within));
        MutableBytes part = out.subspan(done, take);
        if (e.segment == Extent::kInline) {
            if (e.offset + within + take > record.inline_bytes.size()) return corrupt("inline bytes end early");
            std::memcpy(part.data(), record.inline_bytes.data() + e.offset + within, take);
        } else {
            if (e.segment >= record.segments.size()) return corrupt("extent of no segment");
            const SegmentId& id = record.segments[e.segment];
            // Beyond a base zeros are right; beyond the segment of a file they would be a lie.
            CORAL_TRY(std::uint32_t have, reader_->length(id));
            if (e.offset + within + take > have) {
                return corrupt(fmt::format("file {}: segment {} is too short", record.id.hex(), id.hex()));
            }
            CORAL_CHECK(read_pieces(id, e.offset + within, part));
        }
        done += take;
        position += e.length;
    }
    return done;
}

// Piece by piece, so that threads that decode ahead may do the later ones while this one does the first. Somebody waits
// for one page of it, perhaps: if there are cores that have nothing to do, they are asked to.
Status StoreImpl::read_pieces(const SegmentId& id, std::uint64_t offset, MutableBytes out) {
    constexpr std::uint64_t kPiece = DecodeAhead::kPiece;
    struct Reading {
        std::atomic<std::size_t>& count;
        const std::size_t others;
        explicit Reading(std::atomic<std::size_t>& all) : count(all), others(all.fetch_add(1)) {}
        ~Reading() { --count; }
    } reading(reading_);
    const std::uint64_t first = kPiece - offset % kPiece;
    if (out.size() > first && !reader_->is_decoded(id, offset)) {
        // Others who read need a core, too, and so do we.
        const std::size_t idle = ahead_->idle(), helpers = idle > reading.others + 1 ? idle - reading.others - 1 : 0;
        (void)ahead_->submit(id, offset + first, std::min<std::uint64_t>(helpers * kPiece, out.size() - first));
    }
    while (!out.empty()) {
        std::uint64_t left = kPiece - offset % kPiece;
        MutableBytes piece = out.first(static_cast<std::size_t>(std::min<std::uint64_t>(left, out.size())));
        ahead_->claim(id, offset, piece.size());
        CORAL_CHECK(reader_->read(id, offset, piece));
        offset += piece.size();
        out = out.subspan(piece.size());
    }
    return {};
}

std::uint64_t StoreImpl::prefetch(std::shared_ptr<const FileRecord> record, std::uint64_t offset,
                                  std::uint64_t length) {
    if (!record || offset >= record->size) return 0;
    length = std::min(length, record->size - offset);
    std::uint64_t position = 0, end = offset + length;
    for (std::size_t i = first_extent(*record, offset, position); i < record->extents.size() && position < end; ++i) {
        const Extent& e = record->extents[i];
        std::uint64_t from = std::max(offset, position) - position;
        std::uint64_t wanted = std::min(end - position, e.length) - from, taken = wanted;
        if (e.segment != Extent::kInline) taken = ahead_->submit(record->segments[e.segment], e.offset + from, wanted);
        if (taken < wanted) return position + from + taken - offset;
        position += e.length;
    }
    return length;
}

Result<Buffer> StoreImpl::read_segment(const SegmentId& id) {
    CORAL_TRY(std::uint32_t length, reader_->length(id));
    Buffer out(length);
    CORAL_CHECK(reader_->read(id, 0, out));
    return out;
}

Result<Buffer> StoreImpl::object(Kind kind, const AnyId& id) {
    Error error = make_error(Errc::kNotFound, fmt::format("{} {} is not in the repository", kind_name(kind), id.hex()));
    for (int tries = 0; tries < 2; ++tries) {
        CORAL_TRY(std::vector<Row> rows, index_->find(kind, id));
        for (const Row& row : rows) {
            auto raw = load_object(row);
            if (raw && object_id(kind, *raw) == id) return raw;
            error = raw ? corrupt(fmt::format("{} at {}: the SHA-256 of this {} is wrong", packs_.path_of(row.pack),
                                              row.offset, kind_name(kind)))
                        : std::move(raw).error();
        }
        if (rows.empty() || !reader_->renew(error)) break;
    }
    return error;
}

Result<std::vector<AnyId>> StoreImpl::find_prefix(Kind kind, std::string_view prefix, std::size_t limit) {
    CORAL_TRY(bool changed, index_->refresh());
    (void)changed;
    CORAL_TRY(std::vector<AnyId> ids, index_->find_prefix(kind, prefix, limit));
    if (kind != Kind::kFile) return ids;
    for (const FileId& id : groups_->held_files()) {
        auto any = AnyId::from(id);
        if (any.hex().starts_with(prefix) && std::find(ids.begin(), ids.end(), any) == ids.end()) ids.push_back(any);
    }
    std::sort(ids.begin(), ids.end());
    if (ids.size() > limit) ids.resize(limit);
    return ids;
}

Result<SegmentInfo> StoreImpl::segment_info(const SegmentId& id) {
    SegmentInfo info;
    info.id = id;
    if (auto waiting = groups_->find(id)) {
        info.raw_length = waiting->length;
        info.stored_bytes = waiting->length;
        info.grouped = true;
        return info;
    }
    CORAL_TRY(std::vector<Row> rows, index_->find(Kind::kSegment, AnyId::from(id)));
    CORAL_TRY(auto place, reader_->place(id));
    for (const Row& row : rows) {
        if (row.pack == place->block->pack && row.offset == place->block->offset) info.stored_bytes = row.stored;
    }
    const codec::SegmentHeader& header = place->block->header;
    info.raw_length = place->length;
    info.depth = header.depth;
    info.bases = header.bases;
    info.pack = place->block->pack;
    info.pack_offset = place->block->offset;
    info.grouped = !place->block->slots.empty();
    std::uint32_t first = place->offset >> header.chunk_log2;
    std::uint32_t last = (place->offset + place->length - 1) >> header.chunk_log2;
    for (std::uint32_t c = first; c <= last; ++c) ++info.chunks_by_mode[header.chunks[c].mode];
    return info;
}

Result<std::uint64_t> StoreImpl::stored_bytes_of(const FileRecord& record) {
    std::uint64_t total = 0;
    CORAL_TRY(std::vector<Row> rows, index_->find(Kind::kFile, AnyId::from(record.id)));
    if (!rows.empty()) total += rows.front().stored;
    for (const SegmentId& id : record.segments) {
        if (auto waiting = groups_->find(id)) {
            total += waiting->length;
            continue;
        }
        CORAL_TRY(std::vector<Row> found, index_->find(Kind::kSegment, AnyId::from(id)));
        if (found.empty())
            return make_error(Errc::kNotFound, fmt::format("segment {} is not in the repository", id.hex()));
        total += found.front().stored;
    }
    return total;
}

}  // namespace coral::store
