// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "coral/vfs/filesystem.hpp"
#include "coral/vfs/handover.hpp"

namespace coral::vfs {

// Open handles by number. Numbers come from a counter and are never used again: one that comes too late finds nothing,
// and a number means something to a later process where a pointer would not. Thread-safe.
template <class T>
class HandleTable {
  public:
    // With a handover the numbers go on where the process before stopped.
    explicit HandleTable(Handover* handover = nullptr) : handover_(handover) {}
    HandleId next() { return handover_ ? handover_->next_handle() : ++last_; }
    // Once all that the handle has is in its place: whoever finds it sees that.
    void put(HandleId id, std::shared_ptr<T> value) {
        std::unique_lock lock(mutex_);
        table_.emplace(id, std::move(value));
    }
    Result<std::shared_ptr<T>> find(HandleId id) const {
        std::shared_lock lock(mutex_);
        auto at = table_.find(id);
        if (at == table_.end()) return make_error(Errc::kBadHandle, "the handle is closed");
        return at->second;
    }
    std::shared_ptr<T> take(HandleId id) {
        std::unique_lock lock(mutex_);
        auto at = table_.find(id);
        if (at == table_.end()) return nullptr;
        std::shared_ptr<T> value = std::move(at->second);
        table_.erase(at);
        return value;
    }
    std::size_t size() const {
        std::shared_lock lock(mutex_);
        return table_.size();
    }

  private:
    Handover* const handover_;
    std::atomic<HandleId> last_{0};
    mutable std::shared_mutex mutex_;  // guards the rest
    std::unordered_map<HandleId, std::shared_ptr<T>> table_;
};

}  // namespace coral::vfs
