// SPDX-License-Identifier: Apache-2.0
#include "vfs/tensor_order.hpp"

namespace coral::vfs {

void TensorOrder::jumped(std::size_t from, std::size_t to) {
    const std::int64_t step = static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from);
    alike_ = step == step_ ? alike_ + 1 : 1;
    step_ = step;
    const auto key = static_cast<std::uint32_t>(from);
    if (next_.size() < kMost || next_.count(key) != 0) next_[key] = static_cast<std::uint32_t>(to);
}

void TensorOrder::went_on(std::size_t from) {
    alike_ = 0;
    next_.erase(static_cast<std::uint32_t>(from));
}

std::optional<std::size_t> TensorOrder::after(std::size_t tensor, std::size_t count) const {
    if (auto known = next_.find(static_cast<std::uint32_t>(tensor)); known != next_.end())
        return known->second < count ? std::optional<std::size_t>(known->second) : std::nullopt;
    if (alike_ < kProof) return std::nullopt;
    const std::int64_t there = static_cast<std::int64_t>(tensor) + step_;
    if (there < 0 || there >= static_cast<std::int64_t>(count)) return std::nullopt;
    return static_cast<std::size_t>(there);
}

}  // namespace coral::vfs
