// SPDX-License-Identifier: Apache-2.0
// Decoded chunks: sharded LRU with one byte budget, in which what is being decoded counts too. A chunk is decoded once
// however many threads want it (single flight). No lock is held while a chunk is read or decoded.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral::store {

// Decoded bytes. Never changes once it is shared.
class Block {
  public:
    explicit Block(std::size_t size) : data_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}
    MutableBytes writable() { return {data_.get(), size_}; }
    Bytes bytes() const { return {data_.get(), size_}; }
    std::size_t size() const { return size_; }

  private:
    std::unique_ptr<std::byte[]> data_;
    std::size_t size_;
};
using BlockPtr = std::shared_ptr<const Block>;

struct ChunkKey {
    SegmentId segment;  // or the id of a group's block
    std::uint32_t chunk = 0;
    std::uint8_t chunk_log2 = 0;
    bool operator==(const ChunkKey&) const = default;
};
struct ChunkKeyHash {
    std::size_t operator()(const ChunkKey& key) const {
        return std::hash<SegmentId>()(key.segment) ^ (std::size_t{key.chunk} * 0x9e3779b97f4a7c15u);
    }
};

class ChunkCache {
  public:
    using Loader = std::function<Result<BlockPtr>()>;
    explicit ChunkCache(std::uint64_t budget) : budget_(budget) {}

    BlockPtr peek(const ChunkKey& key);  // null when it is not there (yet)
    // `size` bytes are reserved before `load` runs. Errors are not kept.
    Result<BlockPtr> get(const ChunkKey& key, std::size_t size, const Loader& load);
    // It has been read to its end: the first to go.
    void demote(const ChunkKey& key);
    void clear();

    std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
    std::uint64_t budget() const { return budget_; }
    std::uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
    std::uint64_t misses() const { return misses_.load(std::memory_order_relaxed); }

  private:
    static constexpr std::size_t kShards = 16;
    static constexpr std::size_t kOverhead = 192;  // of an entry: node, list, control block
    struct Flight {
        std::mutex mutex;
        std::condition_variable done;
        std::optional<Result<BlockPtr>> result;
    };
    struct Entry {
        BlockPtr block;
        std::list<ChunkKey>::iterator place;
    };
    struct Shard {
        std::mutex mutex;
        std::unordered_map<ChunkKey, Entry, ChunkKeyHash> entries;
        std::unordered_map<ChunkKey, std::shared_ptr<Flight>, ChunkKeyHash> flights;
        std::list<ChunkKey> recent;  // newest first
    };
    Shard& shard(const ChunkKey& key) { return shards_[ChunkKeyHash()(key) >> 40 & (kShards - 1)]; }
    void make_room(std::size_t from);
    Result<BlockPtr> lead(Shard& s, const ChunkKey& key, std::size_t size, const Loader& load, Flight& flight);

    const std::uint64_t budget_;
    std::array<Shard, kShards> shards_;
    std::atomic<std::uint64_t> bytes_{0}, hits_{0}, misses_{0};
};

}  // namespace coral::store
