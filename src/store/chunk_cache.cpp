// SPDX-License-Identifier: Apache-2.0
#include "store/chunk_cache.hpp"

#include <exception>
#include <utility>

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

BlockPtr ChunkCache::touch(Shard& s, Entry& entry) {
    s.recent.splice(s.recent.begin(), s.recent, entry.place);
    if (std::exchange(entry.ahead, false)) release_ahead(entry.block->size());
    hits_.fetch_add(1, std::memory_order_relaxed);
    return entry.block;
}

BlockPtr ChunkCache::erase(Shard& s, Entries::iterator at) {
    BlockPtr block = std::move(at->second.block);
    bytes_.fetch_sub(block->size() + kOverhead, std::memory_order_relaxed);
    if (at->second.ahead) release_ahead(block->size());
    s.recent.erase(at->second.place);
    s.entries.erase(at);
    return block;
}

Result<BlockPtr> ChunkCache::wait(Flight& flight) {
    // Waiting cannot deadlock: a loader waits only for chunks of smaller depth.
    std::unique_lock lock(flight.mutex);
    flight.done.wait(lock, [&] { return flight.result.has_value(); });
    return *flight.result;
}

bool ChunkCache::contains(const ChunkKey& key) {
    Shard& s = shard(key);
    std::lock_guard lock(s.mutex);
    return s.entries.count(key) != 0 || s.flights.count(key) != 0;
}

BlockPtr ChunkCache::peek(const ChunkKey& key) {
    Shard& s = shard(key);
    std::lock_guard lock(s.mutex);
    auto found = s.entries.find(key);
    return found == s.entries.end() ? nullptr : touch(s, found->second);
}

BlockPtr ChunkCache::join(const ChunkKey& key) {
    Shard& s = shard(key);
    std::shared_ptr<Flight> flight;
    {
        std::lock_guard lock(s.mutex);
        if (auto found = s.entries.find(key); found != s.entries.end()) return touch(s, found->second);
        auto flying = s.flights.find(key);
        if (flying == s.flights.end()) {
            misses_.fetch_add(1, std::memory_order_relaxed);
            return nullptr;
        }
        flight = flying->second;
        flight->wanted = true;
    }
    hits_.fetch_add(1, std::memory_order_relaxed);
    auto result = wait(*flight);
    return result ? *result : nullptr;
}

Result<BlockPtr> ChunkCache::get(const ChunkKey& key, std::size_t size, const Loader& load, bool ahead) {
    Shard& s = shard(key);
    std::shared_ptr<Flight> flight;
    bool first = false;
    {
        std::lock_guard lock(s.mutex);
        if (auto found = s.entries.find(key); found != s.entries.end()) {
            return ahead ? found->second.block : touch(s, found->second);
        }
        std::shared_ptr<Flight>& place = s.flights[key];
        first = !place;
        if (first) place = std::make_shared<Flight>();
        flight = place;
        if (!ahead) flight->wanted = true;
        (first ? misses_ : hits_).fetch_add(1, std::memory_order_relaxed);
    }
    return first ? lead(s, key, size, load, *flight, ahead) : wait(*flight);
}

Result<BlockPtr> ChunkCache::lead(Shard& s, const ChunkKey& key, std::size_t size, const Loader& load, Flight& flight,
                                  bool ahead) {
    bytes_.fetch_add(size + kOverhead, std::memory_order_relaxed);
    make_room(static_cast<std::size_t>(&s - shards_.data()));
    Result<BlockPtr> result = guarded(load);
    {
        std::lock_guard lock(s.mutex);
        s.flights.erase(key);  // the Flight itself lives on in its waiters and in our caller
        if (result) {
            s.recent.push_front(key);
            Entry& entry = s.entries[key] = Entry{*result, s.recent.begin()};
            entry.ahead = ahead && !flight.wanted;
            if (entry.ahead) {
                entry.since = std::chrono::steady_clock::now();
                ahead_.fetch_add((*result)->size(), std::memory_order_relaxed);
            }
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
        while (!s.recent.empty() && bytes() > budget_) dropped.push_back(erase(s, s.entries.find(s.recent.back())));
    }
}

void ChunkCache::used(const ChunkKey& key, std::size_t bytes) {
    Shard& s = shard(key);
    BlockPtr dropped;  // freed outside the lock
    std::lock_guard lock(s.mutex);
    auto found = s.entries.find(key);
    if (found == s.entries.end()) return;
    found->second.used += bytes;
    if (found->second.used >= found->second.block->size()) dropped = erase(s, found);
}

bool ChunkCache::reserve_ahead(std::uint64_t bytes) {
    using std::chrono::milliseconds;
    constexpr milliseconds kStale{2000};
    constexpr std::int64_t kSweepMs = 200;
    auto reserve = [&] {
        if (ahead_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= ahead_budget()) return true;
        release_ahead(bytes);
        return false;
    };
    if (reserve()) return true;
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    std::int64_t ms = std::chrono::duration_cast<milliseconds>(now).count(), last = swept_ms_.load();
    if (ms - last < kSweepMs || !swept_ms_.compare_exchange_strong(last, ms)) return false;
    drop_unread(kStale);
    return reserve();
}

void ChunkCache::drop_unread(std::chrono::milliseconds age) {
    auto before = std::chrono::steady_clock::now() - age;
    for (Shard& s : shards_) {
        std::list<BlockPtr> dropped;  // freed outside the lock
        std::lock_guard lock(s.mutex);
        for (auto at = s.entries.begin(); at != s.entries.end();) {
            auto next = std::next(at);
            if (at->second.ahead && at->second.since <= before) dropped.push_back(erase(s, at));
            at = next;
        }
    }
}

void ChunkCache::clear() {
    for (Shard& s : shards_) {
        std::lock_guard lock(s.mutex);
        while (!s.entries.empty()) erase(s, s.entries.begin());
    }
}

}  // namespace coral::store
