// SPDX-License-Identifier: Apache-2.0
// Decoded chunks: sharded LRU with one byte budget, in which what is being decoded counts too. A chunk is decoded once
// however many threads want it (single flight). No lock is held while a chunk is read or decoded.
//
// Chunks that were decoded ahead of their readers have a budget within that, over all files: what nobody has read yet.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"
#include "store/block.hpp"

namespace coral::store {

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

    bool contains(const ChunkKey& key);  // or on its way; this is no reading
    BlockPtr peek(const ChunkKey& key);  // null when it is not there (yet)
    // Waits for it if it is being decoded; null when it is neither there nor on its way, or could not be decoded: then
    // the caller decodes it, to where he wants it.
    BlockPtr join(const ChunkKey& key);
    // `size` bytes are reserved before `load` runs. Errors are not kept. `ahead`: nobody has asked for it yet.
    Result<BlockPtr> get(const ChunkKey& key, std::size_t size, const Loader& load, bool ahead = false);
    // So many of its bytes have been handed out. When all have, it goes: whoever got them keeps them (the kernel, in
    // its page cache), and the memory serves for the next chunk.
    void used(const ChunkKey& key, std::size_t bytes);

    // Room for `bytes` that nobody has read yet; false when there is none. To be given back with release_ahead once the
    // chunks are there, which then count by themselves until they are read or go.
    bool reserve_ahead(std::uint64_t bytes);
    void release_ahead(std::uint64_t bytes) { ahead_.fetch_sub(bytes, std::memory_order_relaxed); }
    std::uint64_t ahead_bytes() const { return ahead_.load(std::memory_order_relaxed); }
    std::uint64_t ahead_budget() const { return budget_ / 4; }
    // Drops what was decoded ahead and not read for so long: its reader has gone elsewhere.
    void drop_unread(std::chrono::milliseconds age);
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
        bool wanted = false;  // by a reader; guarded by the shard's mutex
    };
    struct Entry {
        BlockPtr block;
        std::list<ChunkKey>::iterator place;
        std::size_t used = 0;  // bytes handed out
        bool ahead = false;    // and not read yet
        std::chrono::steady_clock::time_point since = {};
    };
    struct Shard {
        std::mutex mutex;
        std::unordered_map<ChunkKey, Entry, ChunkKeyHash> entries;
        std::unordered_map<ChunkKey, std::shared_ptr<Flight>, ChunkKeyHash> flights;
        std::list<ChunkKey> recent;  // newest first
    };
    Shard& shard(const ChunkKey& key) { return shards_[ChunkKeyHash()(key) >> 40 & (kShards - 1)]; }
    void make_room(std::size_t from);
    Result<BlockPtr> lead(Shard& s, const ChunkKey& key, std::size_t size, const Loader& load, Flight& flight,
                          bool ahead);
    using Entries = std::unordered_map<ChunkKey, Entry, ChunkKeyHash>;
    BlockPtr touch(Shard& s, Entry& entry);          // the shard's mutex is held
    BlockPtr erase(Shard& s, Entries::iterator at);  // the same; free the block after the lock
    static Result<BlockPtr> wait(Flight& flight);

    const std::uint64_t budget_;
    std::array<Shard, kShards> shards_;
    std::atomic<std::uint64_t> bytes_{0}, ahead_{0}, hits_{0}, misses_{0};
    std::atomic<std::int64_t> swept_ms_{0};  // drop_unread, last by itself
};

}  // namespace coral::store
