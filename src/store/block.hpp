// SPDX-License-Identifier: Apache-2.0
// Memory of decoded chunks. Whoever streams a file takes and gives back a chunk's worth thousands of times a second:
// memory that is mapped anew each time would cost a page fault for every page, as much as half of the decoding.
#pragma once

#include <cstddef>
#include <memory>

#include "coral/base/ids.hpp"

namespace coral::store {

// Decoded bytes. Never changes once it is shared.
class Block {
  public:
    // Not initialised. Memory of a whole chunk comes from what was given back last, which the processor still has.
    explicit Block(std::size_t size);
    ~Block();
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    MutableBytes writable() { return {data_, size_}; }
    Bytes bytes() const { return {data_, size_}; }
    std::size_t size() const { return size_; }

    // What waits to be used again, of all stores of this process, and the most that may.
    static std::size_t spare_bytes();
    static constexpr std::size_t kMaxSpare = 16u << 20;

  private:
    std::byte* data_;
    std::size_t size_;
};
using BlockPtr = std::shared_ptr<const Block>;

}  // namespace coral::store
