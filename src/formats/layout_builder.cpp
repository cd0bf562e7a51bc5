// SPDX-License-Identifier: Apache-2.0
#include "formats/layout_builder.hpp"

#include <algorithm>

#include "formats/limits.hpp"

namespace coral::formats {

namespace {

bool take(std::size_t& used, std::size_t n, std::size_t limit) {
    if (n > limit - used) return false;
    used += n;
    return true;
}

}  // namespace

bool LayoutBudget::take_tensor() {
    return take(tensors_, 1, kMaxTensors);
}

bool LayoutBudget::take_name(std::size_t bytes) {
    return bytes <= kMaxNameLength && take(name_bytes_, bytes, kMaxNameBytes);
}

bool LayoutBudget::take_shape(std::size_t rank) {
    return rank <= kMaxRank && take(dimensions_, rank, kMaxDimensions);
}

std::optional<std::uint64_t> element_count(std::span<const std::uint64_t> shape) {
    std::uint64_t count = 1;
    for (std::uint64_t dimension : shape) {
        if (!checked_mul<std::uint64_t>(count, dimension, count)) return std::nullopt;
    }
    return count;
}

std::optional<std::uint64_t> packed_bytes(std::uint64_t count, std::uint32_t bits) {
    std::uint64_t total = 0;
    if (!checked_mul<std::uint64_t>(count, bits, total) || total % 8 != 0) return std::nullopt;
    return total / 8;
}

std::optional<Layout> finish_layout(Layout layout, std::uint64_t file_size) {
    std::stable_sort(layout.tensors.begin(), layout.tensors.end(), [](const Tensor& a, const Tensor& b) {
        return a.offset != b.offset ? a.offset < b.offset : a.length < b.length;
    });
    std::uint64_t free_from = 0;
    for (const Tensor& tensor : layout.tensors) {
        if (tensor.offset < free_from || tensor.offset > file_size) return std::nullopt;
        if (tensor.length > file_size - tensor.offset) return std::nullopt;
        free_from = tensor.offset + tensor.length;
    }
    return layout;
}

}  // namespace coral::formats
