// SPDX-License-Identifier: Apache-2.0
// A small LRU of shared values with a byte budget. Thread-safe; a lookup copies a shared_ptr.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace coral::store {

template <class Key, class Value, class Hash = std::hash<Key>>
class Lru {
  public:
    explicit Lru(std::uint64_t budget) : budget_(budget) {}

    std::shared_ptr<const Value> get(const Key& key) {
        std::lock_guard lock(mutex_);
        auto found = entries_.find(key);
        if (found == entries_.end()) return nullptr;
        recent_.splice(recent_.begin(), recent_, found->second.place);
        return found->second.value;
    }

    // A value that alone is larger than the budget is not kept.
    void put(const Key& key, std::shared_ptr<const Value> value, std::uint64_t bytes) {
        bytes += 128;
        std::list<std::shared_ptr<const Value>> dropped;  // freed outside the lock
        std::lock_guard lock(mutex_);
        erase_locked(key, dropped);
        if (bytes > budget_) return;
        recent_.push_front(key);
        entries_[key] = {std::move(value), bytes, recent_.begin()};
        used_ += bytes;
        while (used_ > budget_) {
            Key oldest = recent_.back();
            erase_locked(oldest, dropped);
        }
    }

    void erase(const Key& key) {
        std::list<std::shared_ptr<const Value>> dropped;
        std::lock_guard lock(mutex_);
        erase_locked(key, dropped);
    }
    void clear() {
        std::lock_guard lock(mutex_);
        entries_.clear();
        recent_.clear();
        used_ = 0;
    }
    std::uint64_t bytes() const {
        std::lock_guard lock(mutex_);
        return used_;
    }

  private:
    struct Entry {
        std::shared_ptr<const Value> value;
        std::uint64_t bytes = 0;
        typename std::list<Key>::iterator place;
    };
    void erase_locked(const Key& key, std::list<std::shared_ptr<const Value>>& dropped) {
        auto found = entries_.find(key);
        if (found == entries_.end()) return;
        used_ -= found->second.bytes;
        dropped.push_back(std::move(found->second.value));
        recent_.erase(found->second.place);
        entries_.erase(found);
    }
    const std::uint64_t budget_;
    mutable std::mutex mutex_;
    std::unordered_map<Key, Entry, Hash> entries_;
    std::list<Key> recent_;  // newest first
    std::uint64_t used_ = 0;
};

}  // namespace coral::store
