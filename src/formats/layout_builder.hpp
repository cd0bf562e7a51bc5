// SPDX-License-Identifier: Apache-2.0
// Collects tensors within the limits and hands out a layout only if it keeps its promises.
#pragma once

#include <optional>
#include <span>

#include "coral/formats/layout.hpp"

namespace coral::formats {

// Counts what all tensors of one layout may take together.
class LayoutBudget {
  public:
    // False, and nothing taken, when it would exceed a limit.
    bool take_tensor();
    bool take_name(std::size_t bytes);
    bool take_shape(std::size_t rank);

  private:
    std::size_t tensors_ = 0;
    std::size_t name_bytes_ = 0;
    std::size_t dimensions_ = 0;
};

// Product of the dimensions; nothing when it does not fit (also when a later dimension is 0: as safetensors does).
std::optional<std::uint64_t> element_count(std::span<const std::uint64_t> shape);
// Bytes of `count` packed elements of `bits` each; nothing on overflow or when they end inside a byte.
std::optional<std::uint64_t> packed_bytes(std::uint64_t count, std::uint32_t bits);

// Sorts by offset, then length; nothing if a tensor leaves the file or two overlap.
std::optional<Layout> finish_layout(Layout layout, std::uint64_t file_size);

}  // namespace coral::formats
