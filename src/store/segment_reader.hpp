// SPDX-License-Identifier: Apache-2.0
// Segments by id: finds the record, decodes chunks through the cache, follows bases.
#pragma once

#include "coral/base/lru.hpp"
#include "store/chunk_cache.hpp"
#include "store/group_buffer.hpp"
#include "store/index.hpp"

namespace coral::store {

// A SEGMENT or GROUP record that is ready to be decoded.
struct CodedBlock {
    SegmentId id;  // the segment's, or the SHA-256 of a group's block
    Uuid pack;
    std::uint64_t offset = 0;          // of the record
    std::uint64_t payload_offset = 0;  // of its payload
    codec::SegmentHeader header;
    std::vector<Slot> slots;  // of a group

    std::uint64_t memory() const { return 256 + header.memory() + slots.size() * sizeof(Slot); }
};

// Where a segment's bytes are: all of a block, or a group member's part of it.
struct Place {
    std::shared_ptr<const CodedBlock> block;
    std::uint32_t offset = 0, length = 0;
    std::uint8_t depth = 0;
};

class SegmentReader {
  public:
    SegmentReader(PackSet& packs, Index& index, GroupBuffer& groups, std::uint64_t budget);

    // Bytes [offset, offset + out.size()) of a segment; beyond its end zeros.
    Status read(const SegmentId& id, std::uint64_t offset, MutableBytes out);
    Result<std::uint32_t> length(const SegmentId& id);
    // Of several records one that can be decoded, if there is one; for a base, of depth less than `below`.
    Result<std::shared_ptr<const Place>> place(const SegmentId& id, std::uint32_t below = codec::kMaxDepth + 1);
    // It is there, and so is all that it takes to decode it, as far as the index knows.
    Result<bool> is_whole(const SegmentId& id);
    // Of this very record.
    Result<bool> is_whole(const SegmentId& id, const Row& row);
    Result<bool> has_bases(const codec::SegmentHeader& header);
    // Decodes the chunks that cover the range into the cache, ahead of whoever will read them.
    Status warm(const SegmentId& id, std::uint64_t offset, std::uint64_t length);
    // The chunk with this byte is there, or on its way.
    bool is_decoded(const SegmentId& id, std::uint64_t offset);
    // For fsck: decodes a chunk from stored bytes that are at hand; only base bytes come through the cache.
    Status decode(const codec::SegmentHeader& header, std::uint32_t chunk, Bytes stored, MutableBytes out);
    Result<std::shared_ptr<const CodedBlock>> load_block(const Row& row);
    // A segment from this very record and, but for its bases, from no cache.
    Result<Buffer> decode_record(const SegmentId& id, const Row& row);

    ChunkCache& cache() { return cache_; }
    // What was learnt about records may be wrong (packs went away): look them up again.
    void forget();
    // After an error: true when packs have been removed, so that it is worth another try.
    bool renew(const Error& error);

  private:
    struct Found {
        std::shared_ptr<const Place> place;
        bool whole = false;
        std::optional<Error> trouble;  // of the disk, say: whether it is whole cannot be told
    };
    // Among records of depth less than `below`. `looks` bounds how many are opened, whatever refers to what in a
    // hostile pack.
    Result<Found> search(const SegmentId& id, std::uint32_t below, unsigned& looks);
    Result<bool> has_bases(const codec::SegmentHeader& header, unsigned& looks);
    Status read_place(const Place& place, std::uint64_t offset, MutableBytes out);
    Result<BlockPtr> chunk(const CodedBlock& block, std::uint32_t index, bool ahead);
    Result<BlockPtr> alias(const CodedBlock& block, std::uint32_t index, bool ahead);
    Status decode_into(const CodedBlock& block, std::uint32_t index, MutableBytes out);
    codec::BaseReader base_reader(const codec::SegmentHeader& header);
    Result<Place> place_of(const SegmentId& id, const Row& row);
    Status read_other(const SegmentId& id, const Place& bad, std::uint64_t offset, MutableBytes out);

    PackSet& packs_;
    Index& index_;
    GroupBuffer& groups_;
    ChunkCache cache_;
    Lru<SegmentId, const Place> places_;
    struct BlockKeyHash {
        std::size_t operator()(const std::pair<Uuid, std::uint64_t>& key) const {
            return std::hash<Uuid>()(key.first) ^ (key.second * 0x9e3779b97f4a7c15u);
        }
    };
    Lru<std::pair<Uuid, std::uint64_t>, const CodedBlock, BlockKeyHash> blocks_;
};

}  // namespace coral::store
