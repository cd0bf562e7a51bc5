// SPDX-License-Identifier: Apache-2.0
// In which order a file's tensors are read, where that is not the order of the file: loaders go by the names of layers,
// from the last one to the first, or by what they need first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

namespace coral::vfs {

// Not thread-safe. Tensors are numbers in the order of the file. Bounded: of more than kMost jumps none is added.
class TensorOrder {
  public:
    // Somebody who had read `from` to its end went on at the beginning of `to`.
    void jumped(std::size_t from, std::size_t to);
    // Or simply went on in the file.
    void went_on(std::size_t from);
    // Which of `count` tensors is probably read after `tensor`: the one that was the last time, or, when the last steps
    // were all alike, the one a step further. Empty: the next one of the file, for all we know.
    std::optional<std::size_t> after(std::size_t tensor, std::size_t count) const;

  private:
    static constexpr std::size_t kMost = 4096;
    static constexpr int kProof = 2;  // equal steps that make a habit

    std::unordered_map<std::uint32_t, std::uint32_t> next_;  // jumps only
    std::int64_t step_ = 0;
    int alike_ = 0;  // how often in a row that step was seen
};

}  // namespace coral::vfs
