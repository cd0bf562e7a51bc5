// SPDX-License-Identifier: Apache-2.0
// An LRU of shared values within a budget: of bytes, or of whatever `cost` counts. Thread-safe; a lookup copies a
// shared_ptr, and no lock is held while a value is made or destroyed: two threads that miss at once both make one.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace coral {

// About what an entry takes beside its value, for budgets of bytes.
inline constexpr std::uint64_t kLruOverhead = 128;

template <class Key, class Value, class Hash = std::hash<Key>>
class Lru {
  public:
    explicit Lru(std::uint64_t budget) : budget_(budget) {}

    std::shared_ptr<Value> get(const Key& key) {
        std::lock_guard lock(mutex_);
        auto found = entries_.find(key);
        if (found == entries_.end()) return nullptr;
        recent_.splice(recent_.begin(), recent_, found->second.place);
        return found->second.value;
    }

    // Replaces what the key has. A value that alone costs more than the budget is not kept.
    void put(const Key& key, std::shared_ptr<Value> value, std::uint64_t cost) {
        std::list<std::shared_ptr<Value>> dropped;  // freed outside the lock
        std::lock_guard lock(mutex_);
        erase_locked(key, dropped);
        if (cost > budget_) return;
        recent_.push_front(key);
        entries_[key] = {std::move(value), cost, recent_.begin()};
        used_ += cost;
        while (used_ > budget_) {
            Key oldest = recent_.back();  // a copy: erasing frees the key in the list
            erase_locked(oldest, dropped);
        }
    }

    void erase(const Key& key) {
        std::list<std::shared_ptr<Value>> dropped;
        std::lock_guard lock(mutex_);
        erase_locked(key, dropped);
    }
    void clear() {
        std::unordered_map<Key, Entry, Hash> dropped;
        std::lock_guard lock(mutex_);
        entries_.swap(dropped);
        recent_.clear();
        used_ = 0;
    }
    std::uint64_t used() const {
        std::lock_guard lock(mutex_);
        return used_;
    }

  private:
    struct Entry {
        std::shared_ptr<Value> value;
        std::uint64_t cost = 0;
        typename std::list<Key>::iterator place;
    };
    void erase_locked(const Key& key, std::list<std::shared_ptr<Value>>& dropped) {
        auto found = entries_.find(key);
        if (found == entries_.end()) return;
        used_ -= found->second.cost;
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

}  // namespace coral
