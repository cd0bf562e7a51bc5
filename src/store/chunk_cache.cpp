// SPDX-License-Identifier: Apache-2.0
#include "store/chunk_cache.hpp"

#include <exception>

namespace coral::store {
namespace {

// Whatever happens, the threads that wait for this flight must hear of it.
Result<BlockPtr> guarded(const ChunkCache::Loader& load) {
    try {
        return load();
    } catch (const std::exception& e) {
        return make_error(Errc::kInternal, e.what());
    }
}

}  // namespace

BlockPtr ChunkCache::peek(const ChunkKey& key) {
    Shard& s = shard(key);
    std::lock_guard lock(s.mutex);
    auto found = s.entries.find(key);
    if (found == s.entries.end()) return nullptr;
    s.recent.splice(s.recent.begin(), s.recent, found->second.place);
    hits_.fetch_add(1, std::memory_order_relaxed);
    return found->second.block;
}

Result<BlockPtr> ChunkCache::get(const ChunkKey& key, std::size_t size, const Loader& load) {
    Shard& s = shard(key);
    std::shared_ptr<Flight> flight;
    bool first = false;
    {
        std::lock_guard lock(s.mutex);
        if (auto found = s.entries.find(key); found != s.entries.end()) {
            s.recent.splice(s.recent.begin(), s.recent, found->second.place);
            hits_.fetch_add(1, std::memory_order_relaxed);
            return found->second.block;
        }
        std::shared_ptr<Flight>& place = s.flights[key];
        first = !place;
        if (first) place = std::make_shared<Flight>();
        flight = place;
        (first ? misses_ : hits_).fetch_add(1, std::memory_order_relaxed);
    }
    if (first) return lead(s, key, size, load, *flight);
    // Waiting cannot deadlock: a loader waits only for chunks of smaller depth.
    std::unique_lock lock(flight->mutex);
    flight->done.wait(lock, [&] { return flight->result.has_value(); });
    return *flight->result;
}

Result<BlockPtr> ChunkCache::lead(Shard& s, const ChunkKey& key, std::size_t size, const Loader& load, Flight& flight) {
    bytes_.fetch_add(size + kOverhead, std::memory_order_relaxed);
    make_room(static_cast<std::size_t>(&s - shards_.data()));
    Result<BlockPtr> result = guarded(load);
    {
        std::lock_guard lock(s.mutex);
        s.flights.erase(key);  // the Flight itself lives on in its waiters and in our caller
        if (result) {
            s.recent.push_front(key);
            s.entries[key] = {*result, s.recent.begin()};
        }
    }
    if (!result) bytes_.fetch_sub(size + kOverhead, std::memory_order_relaxed);
    {
        std::lock_guard lock(flight.mutex);
        flight.result = result;
    }
    flight.done.notify_all();
    make_room(static_cast<std::size_t>(&s - shards_.data()));
    return result;
}

// Evicts until the budget holds or nothing is left but what is in flight. One shard lock at a time.
void ChunkCache::make_room(std::size_t from) {
    for (std::size_t i = 0; i < kShards && bytes() > budget_; ++i) {
        Shard& s = shards_[(from + i) & (kShards - 1)];
        std::list<BlockPtr> dropped;  // freed outside the lock
        std::lock_guard lock(s.mutex);
        while (!s.recent.empty() && bytes() > budget_) {
            auto found = s.entries.find(s.recent.back());
            bytes_.fetch_sub(found->second.block->size() + kOverhead, std::memory_order_relaxed);
            dropped.push_back(std::move(found->second.block));
            s.entries.erase(found);
            s.recent.pop_back();
        }
    }
}

void ChunkCache::demote(const ChunkKey& key) {
    Shard& s = shard(key);
    std::lock_guard lock(s.mutex);
    auto found = s.entries.find(key);
    if (found != s.entries.end()) s.recent.splice(s.recent.end(), s.recent, found->second.place);
}

void ChunkCache::clear() {
    for (Shard& s : shards_) {
        std::lock_guard lock(s.mutex);
        for (auto& [key, entry] : s.entries)
            bytes_.fetch_sub(entry.block->size() + kOverhead, std::memory_order_relaxed);
        s.entries.clear();
        s.recent.clear();
    }
}

}  // namespace coral::store
