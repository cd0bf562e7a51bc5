// SPDX-License-Identifier: Apache-2.0
#include "store/block.hpp"

#include <mutex>
#include <new>
#include <vector>

#include "coral/codec/segment_codec.hpp"

namespace coral::store {
namespace {

// Pages of their own: the kernel copies such memory to and from its pages one by one.
constexpr std::align_val_t kAlignment{4096};

class Spares {
  public:
    static Spares& get() {
        static Spares* all = new Spares;  // blocks may outlive all that is static
        return *all;
    }
    std::byte* take() {
        std::lock_guard lock(mutex_);
        if (spare_.empty()) return nullptr;
        std::byte* last = spare_.back();
        spare_.pop_back();
        return last;
    }
    bool give(std::byte* data) {
        std::lock_guard lock(mutex_);
        if (spare_.size() >= kMost) return false;
        spare_.push_back(data);
        return true;
    }
    std::size_t bytes() {
        std::lock_guard lock(mutex_);
        return spare_.size() * codec::kChunkSize;
    }

  private:
    static constexpr std::size_t kMost = Block::kMaxSpare / codec::kChunkSize;
    Spares() { spare_.reserve(kMost); }
    std::mutex mutex_;  // a leaf
    std::vector<std::byte*> spare_;
};

}  // namespace

Block::Block(std::size_t size) : data_(nullptr), size_(size) {
    if (size == codec::kChunkSize) {
        data_ = Spares::get().take();
        if (!data_) data_ = static_cast<std::byte*>(::operator new(size, kAlignment));
    } else {
        data_ = static_cast<std::byte*>(::operator new(size));
    }
}

Block::~Block() {
    if (size_ != codec::kChunkSize) {
        ::operator delete(data_);
    } else if (!Spares::get().give(data_)) {
        ::operator delete(data_, kAlignment);
    }
}

std::size_t Block::spare_bytes() {
    return Spares::get().bytes();
}

}  // namespace coral::store
