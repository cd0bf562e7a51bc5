// SPDX-License-Identifier: Apache-2.0
#include "store/segment_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace coral::store {
namespace {

// A segment has a few bases, and those have theirs: kMaxDepth levels, mostly of shared ones.
constexpr unsigned kMostLooks = 1000;
constexpr std::uint32_t kAnyDepth = codec::kMaxDepth + 1;

std::uint64_t memory_of(const Place& place) {
    return sizeof(Place) + kLruOverhead + (place.block->slots.empty() ? place.block->memory() : 0);
}

Error corrupt(std::string what) {
    return make_error(Errc::kCorrupt, std::move(what));
}

}  // namespace

SegmentReader::SegmentReader(PackSet& packs, Index& index, GroupBuffer& groups, std::uint64_t budget)
    : packs_(packs),
      index_(index),
      groups_(groups),
      cache_(budget - budget / 8),
      places_(budget / 16),
      blocks_(budget / 16) {}

void SegmentReader::forget() {
    places_.clear();
    blocks_.clear();
}

// A pack that is not there is no damage: its live records are in another by now.
bool SegmentReader::renew(const Error& error) {
    if (error.code != Errc::kNotFound) return false;
    (void)index_.forget_gone();
    if (!index_.forgot_any()) return false;
    forget();
    return true;
}

Result<std::shared_ptr<const CodedBlock>> SegmentReader::load_block(const Row& row) {
    std::pair<Uuid, std::uint64_t> key{row.pack, row.offset};
    if (auto known = blocks_.get(key)) return known;
    CORAL_TRY(auto pack, packs_.get(row.pack));
    CORAL_TRY(LoadedHeader loaded, pack->read_header(row.offset));
    auto block = std::make_shared<CodedBlock>();
    block->id = SegmentId::from(loaded.header.id);
    block->pack = row.pack;
    block->offset = row.offset;
    block->payload_offset = row.offset + loaded.header.header_length;
    Kind wanted = row.slot < 0 ? Kind::kSegment : Kind::kGroup;
    if (loaded.header.kind != wanted) return pack->at(row.offset, corrupt("the index is wrong about this record"));
    if (wanted == Kind::kSegment) {
        auto header = codec::read_header(loaded.specific(), loaded.header.payload_length);
        if (!header) return pack->at(row.offset, std::move(header).error());
        block->header = std::move(*header);
    } else {
        auto group = decode_group(loaded.specific(), loaded.header.payload_length);
        if (!group) return pack->at(row.offset, std::move(group).error());
        block->header = std::move(group->header);
        block->slots = std::move(group->slots);
        blocks_.put(key, block, block->memory() + kLruOverhead);
    }
    return std::shared_ptr<const CodedBlock>(std::move(block));
}

Result<Place> SegmentReader::place_of(const SegmentId& id, const Row& row) {
    CORAL_TRY(auto block, load_block(row));
    Place place{block, 0, block->header.raw_length, block->header.depth};
    if (row.slot < 0) {
        if (block->id == id) return place;
    } else if (static_cast<std::size_t>(row.slot) < block->slots.size()) {
        const Slot& slot = block->slots[static_cast<std::size_t>(row.slot)];
        place.offset = slot.offset;
        place.length = slot.length;
        if (slot.id == id) return place;
    }
    return corrupt(fmt::format("{} at {}: the index is wrong about this record", packs_.path_of(row.pack), row.offset));
}

Result<bool> SegmentReader::has_bases(const codec::SegmentHeader& header, unsigned& looks) {
    for (const codec::BaseRef& base : header.bases) {
        auto found = search(base.id, header.depth, looks);
        if (!found && (found.error().code == Errc::kNotFound || found.error().code == Errc::kCorrupt)) return false;
        CORAL_CHECK(found);
        if (found->trouble) return std::move(*found->trouble);
        if (!found->whole) return false;
    }
    return true;
}

Result<bool> SegmentReader::has_bases(const codec::SegmentHeader& header) {
    unsigned looks = kMostLooks;
    return has_bases(header, looks);
}

// Two reasons to look at more than the first record. One that nothing needed may have stayed in its pack while its base
// went; when the segment is stored again, it must not stand before the new one. And while others repack, there may be
// one that is too deep for what refers to the segment, beside the one that this was coded against.
Result<SegmentReader::Found> SegmentReader::search(const SegmentId& id, std::uint32_t below, unsigned& looks) {
    if (auto known = places_.get(id); known && known->depth < below) return Found{known, true, {}};
    Error error = make_error(Errc::kNotFound, fmt::format("segment {} is not in the repository", id.hex()));
    Found found;
    std::size_t seen = 0;
    for (bool all : {false, true}) {
        CORAL_TRY(std::vector<Row> rows, all ? index_.find_all(Kind::kSegment, AnyId::from(id))
                                             : index_.find(Kind::kSegment, AnyId::from(id)));
        if (rows.size() == seen) break;
        seen = rows.size();
        for (const Row& row : rows) {
            if (row.rank >= below) continue;
            if (looks == 0) return corrupt(fmt::format("segment {}: too many bases", id.hex()));
            --looks;
            auto place = place_of(id, row);
            if (!place) {
                error = std::move(place).error();  // another record of the same id is as good
                continue;
            }
            auto shared = std::make_shared<const Place>(std::move(*place));
            // Depth falls with every step: no cycle and no more than kMaxDepth frames, whatever a pack says.
            if (shared->depth >= below) continue;
            auto whole = has_bases(shared->block->header, looks);
            if (whole && *whole) {
                places_.put(id, shared, memory_of(*shared));
                return Found{shared, true, {}};
            }
            if (!found.place) found.place = shared;
            if (!whole) found.trouble = std::move(whole).error();  // of this record; others may do without that base
        }
    }
    if (found.place) return found;
    if (error.code == Errc::kNotFound && seen > 0 && below < kAnyDepth)
        return corrupt(fmt::format("base {} is not of smaller depth in any record", id.hex()));
    return error;
}

Result<std::shared_ptr<const Place>> SegmentReader::place(const SegmentId& id, std::uint32_t below) {
    unsigned looks = kMostLooks;
    auto found = search(id, below, looks);
    if (!found && renew(found.error())) found = search(id, below, looks = kMostLooks);
    if (!found && below < kAnyDepth) {
        CORAL_TRY(bool changed, index_.refresh());
        if (changed) found = search(id, below, looks = kMostLooks);
    }
    CORAL_CHECK(found);
    return found->place;
}

Result<bool> SegmentReader::is_whole(const SegmentId& id) {
    unsigned looks = kMostLooks;
    auto found = search(id, kAnyDepth, looks);
    if (found && found->trouble) return std::move(*found->trouble);
    if (found) return found->whole;
    if (found.error().code == Errc::kNotFound || found.error().code == Errc::kCorrupt) return false;
    return std::move(found).error();
}

Result<bool> SegmentReader::is_whole(const SegmentId& id, const Row& row) {
    unsigned looks = kMostLooks;
    auto place = place_of(id, row);
    if (place) return has_bases(place->block->header, looks);
    if (place.error().code == Errc::kNotFound || place.error().code == Errc::kCorrupt) return false;
    return std::move(place).error();
}

Result<std::uint32_t> SegmentReader::length(const SegmentId& id) {
    if (auto waiting = groups_.find(id)) return waiting->length;
    CORAL_TRY(auto found, place(id));
    return found->length;
}

codec::BaseReader SegmentReader::base_reader(const codec::SegmentHeader& header) {
    return [this, &header](std::uint8_t slot, std::uint64_t begin, MutableBytes out) -> Status {
        CORAL_TRY(auto base, place(header.bases[slot].id, header.depth));
        return read_place(*base, begin, out);
    };
}

Status SegmentReader::decode(const codec::SegmentHeader& header, std::uint32_t index, Bytes stored, MutableBytes out) {
    return codec::decode_chunk(header, index, stored, base_reader(header), out);
}

// RAW bytes are read to where they belong. Other stored bytes need a place of their own in each frame, for a coder may
// read its base while it holds them.
Status SegmentReader::decode_into(const CodedBlock& block, std::uint32_t index, MutableBytes out) {
    const codec::Chunk& c = block.header.chunks[index];
    std::uint32_t begin = block.header.chunk_stored_begin(index);
    std::uint32_t stored = c.stored_end - begin;
    bool in_place = c.mode == codec::Mode::kRaw || stored == 0;
    std::optional<Block> scratch;
    // Of a whole chunk's size, so that the next one's finds the same memory again.
    if (!in_place) scratch.emplace(std::max<std::size_t>(stored, codec::kChunkSize));
    MutableBytes where = in_place ? out.first(stored) : scratch->writable().first(stored);
    CORAL_TRY(auto pack, packs_.get(block.pack));
    if (stored != 0) CORAL_CHECK(pack->read(block.payload_offset + begin, where));
    Status done = decode(block.header, index, where, out);
    if (!done) return pack->at(block.offset, std::move(done).error());
    return {};
}

Result<Buffer> SegmentReader::decode_record(const SegmentId& id, const Row& row) {
    CORAL_TRY(Place place, place_of(id, row));
    const codec::SegmentHeader& header = place.block->header;
    Buffer raw(header.raw_length);
    for (std::uint32_t i = 0; i < header.chunk_count(); ++i) {
        auto begin = static_cast<std::size_t>(i) << header.chunk_log2;
        CORAL_CHECK(decode_into(*place.block, i, MutableBytes(raw).subspan(begin, header.chunk_raw_length(i))));
    }
    auto first = raw.begin() + static_cast<std::ptrdiff_t>(place.offset);
    return Buffer(first, first + static_cast<std::ptrdiff_t>(place.length));
}

// A chunk that copies exactly one chunk of its base shares that chunk's memory.
Result<BlockPtr> SegmentReader::alias(const CodedBlock& block, std::uint32_t index, bool ahead) {
    const codec::Chunk& c = block.header.chunks[index];
    if (c.mode != codec::Mode::kCopy) return BlockPtr();
    const codec::BaseRef& ref = block.header.bases[c.base_slot];
    CORAL_TRY(auto base, place(ref.id, block.header.depth));
    const codec::SegmentHeader& h = base->block->header;
    std::uint64_t at = ref.offset + (std::uint64_t{index} << block.header.chunk_log2);
    if (base->offset != 0 || base->length != h.raw_length || h.chunk_log2 != block.header.chunk_log2) return BlockPtr();
    if (at % (std::uint64_t{1} << h.chunk_log2) != 0 || at >= h.raw_length) return BlockPtr();
    auto other = static_cast<std::uint32_t>(at >> h.chunk_log2);
    // Equal checksums: the base's chunk has been verified against what this one must be.
    if (h.chunk_raw_length(other) != block.header.chunk_raw_length(index) || h.chunks[other].raw_sum != c.raw_sum) {
        return BlockPtr();
    }
    return chunk(*base->block, other, ahead);
}

Result<BlockPtr> SegmentReader::chunk(const CodedBlock& block, std::uint32_t index, bool ahead) {
    CORAL_TRY(BlockPtr shared, alias(block, index, ahead));
    if (shared) return shared;
    std::uint32_t size = block.header.chunk_raw_length(index);
    auto load = [&]() -> Result<BlockPtr> {
        auto fresh = std::make_shared<Block>(size);
        CORAL_CHECK(decode_into(block, index, fresh->writable()));
        return BlockPtr(std::move(fresh));
    };
    return cache_.get({block.id, index, block.header.chunk_log2}, size, load, ahead);
}

Status SegmentReader::read_place(const Place& place, std::uint64_t offset, MutableBytes out) {
    const CodedBlock& block = *place.block;
    std::uint64_t have = offset < place.length ? std::min<std::uint64_t>(out.size(), place.length - offset) : 0;
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(have), out.end(), std::byte{0});
    std::uint64_t done = 0;
    while (done < have) {
        std::uint64_t at = place.offset + offset + done;
        auto index = static_cast<std::uint32_t>(at >> block.header.chunk_log2);
        std::uint64_t begin = std::uint64_t{index} << block.header.chunk_log2;
        std::uint32_t size = block.header.chunk_raw_length(index);
        std::uint64_t take = std::min(have - done, begin + size - at);
        MutableBytes part = out.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(take));
        ChunkKey key{block.id, index, block.header.chunk_log2};
        BlockPtr known;
        if (take == size) {
            // The whole chunk is wanted now: straight to where it goes, unless it is there or on its way. Whoever reads
            // keeps it: the kernel, the caller, or a coder that needs it as a base and has it in its hands right now.
            known = cache_.join(key);
            if (!known) CORAL_CHECK(decode_into(block, index, part));
        } else {
            CORAL_TRY(known, chunk(block, index, false));
        }
        if (known) {
            std::memcpy(part.data(), known->bytes().data() + (at - begin), part.size());
            cache_.used(key, part.size());
        }
        done += take;
    }
    return {};
}

Status SegmentReader::read(const SegmentId& id, std::uint64_t offset, MutableBytes out) {
    if (auto waiting = groups_.read(id, offset, out.size())) {
        std::copy(waiting->begin(), waiting->end(), out.begin());
        return {};
    }
    CORAL_TRY(auto found, place(id));
    Status done = read_place(*found, offset, out);
    for (int tries = 0; !done && tries < 3 && renew(done.error()); ++tries) {
        CORAL_TRY(found, place(id));
        done = read_place(*found, offset, out);
    }
    if (!done && read_other(id, *found, offset, out)) return {};
    if (!done) return std::move(done).error().with(fmt::format("segment {}", id.hex().substr(0, 16)));
    return {};
}

// A record does not verify: any other record of the same id has the same bytes.
Status SegmentReader::read_other(const SegmentId& id, const Place& bad, std::uint64_t offset, MutableBytes out) {
    places_.erase(id);
    CORAL_TRY(std::vector<Row> rows, index_.find_all(Kind::kSegment, AnyId::from(id)));
    for (const Row& row : rows) {
        if (row.pack == bad.block->pack && row.offset == bad.block->offset) continue;
        auto other = place_of(id, row);
        if (!other || !read_place(*other, offset, out)) continue;
        places_.put(id, std::make_shared<const Place>(*other), memory_of(*other));
        return {};
    }
    return make_error(Errc::kCorrupt, "no other record");
}

bool SegmentReader::is_decoded(const SegmentId& id, std::uint64_t offset) {
    if (groups_.contains(id)) return true;
    auto found = place(id);
    if (!found || offset >= (*found)->length) return false;
    const CodedBlock& block = *(*found)->block;
    auto index = static_cast<std::uint32_t>(((*found)->offset + offset) >> block.header.chunk_log2);
    return cache_.contains({block.id, index, block.header.chunk_log2});
}

Status SegmentReader::warm(const SegmentId& id, std::uint64_t offset, std::uint64_t length) {
    if (groups_.contains(id)) return {};
    CORAL_TRY(auto found, place(id));
    if (offset >= found->length) return {};
    std::uint64_t begin = found->offset + offset;
    std::uint64_t end = begin + std::min<std::uint64_t>(length, found->length - offset);
    std::uint8_t log2 = found->block->header.chunk_log2;
    for (std::uint64_t c = begin >> log2; (c << log2) < end; ++c) {
        CORAL_CHECK(chunk(*found->block, static_cast<std::uint32_t>(c), true));
    }
    return {};
}

}  // namespace coral::store
