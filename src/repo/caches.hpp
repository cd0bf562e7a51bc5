// SPDX-License-Identifier: Apache-2.0
// Decoded history objects, bounded by bytes. No lock is held while one is read or decoded: two threads that miss at
// once both read, and the second to finish keeps the first's.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "coral/repo/repository.hpp"

namespace coral::repo {

template <class Key, class Value>
class LruCache {
  public:
    explicit LruCache(std::size_t limit) : limit_(limit) {}

    std::shared_ptr<const Value> find(const Key& key) {
        std::lock_guard lock(mutex_);
        auto at = index_.find(key);
        if (at == index_.end()) return nullptr;
        order_.splice(order_.begin(), order_, at->second);
        return at->second->value;
    }

    // What is in the cache afterwards: `value`, or what another thread put first.
    std::shared_ptr<const Value> put(const Key& key, std::shared_ptr<const Value> value, std::size_t bytes) {
        std::list<Node> dropped;  // freed after the lock
        std::lock_guard lock(mutex_);
        if (auto at = index_.find(key); at != index_.end()) return at->second->value;
        if (bytes > limit_) return value;
        order_.push_front(Node{key, value, bytes});
        index_.emplace(key, order_.begin());
        used_ += bytes;
        while (used_ > limit_) {
            Node& last = order_.back();
            used_ -= last.bytes;
            index_.erase(last.key);
            dropped.splice(dropped.begin(), order_, std::prev(order_.end()));
        }
        return value;
    }

  private:
    struct Node {
        Key key;
        std::shared_ptr<const Value> value;
        std::size_t bytes;
    };
    std::mutex mutex_;       // guards all below
    std::list<Node> order_;  // newest first
    std::unordered_map<Key, typename std::list<Node>::iterator> index_;
    std::size_t used_ = 0;
    const std::size_t limit_;
};

struct Repository::Caches {
    LruCache<TreeId, Tree> trees{64u << 20};
    LruCache<CommitId, Commit> commits{16u << 20};
    LruCache<TagId, Tag> tags{1u << 20};
    LruCache<SegmentId, Xattrs> xattrs{4u << 20};
};

}  // namespace coral::repo
