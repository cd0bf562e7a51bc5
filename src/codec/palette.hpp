// SPDX-License-Identifier: Apache-2.0
// Segments with at most 256 different values: weights that share them, or that were quantised and kept as floats.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "codec/tensor_train.hpp"

namespace coral::codec {

// Numbers of values, in the order in which they came.
class ValueNumbers {
  public:
    static constexpr std::size_t kMost = 256;
    // The number of `value`; nothing if it would be one more than kMost.
    std::optional<unsigned> number(std::uint64_t value) {
        std::size_t at = static_cast<std::size_t>((value * 0x9e3779b97f4a7c15u) >> (64 - kLog2));
        for (; used_[at]; at = (at + 1) % kSlots) {
            if (keys_[at] == value) return numbers_[at];
        }
        if (values_.size() == kMost) return std::nullopt;
        used_[at] = true;
        keys_[at] = value;
        numbers_[at] = static_cast<std::uint8_t>(values_.size());
        values_.push_back(value);
        return numbers_[at];
    }
    const std::vector<std::uint64_t>& values() const { return values_; }

  private:
    static constexpr unsigned kLog2 = 10;
    static constexpr std::size_t kSlots = std::size_t{1} << kLog2;
    std::array<std::uint64_t, kSlots> keys_;
    std::array<std::uint8_t, kSlots> numbers_;
    std::array<bool, kSlots> used_{};
    std::vector<std::uint64_t> values_;
};

// `bits`: of all chunks that were measured, tables included; infinite where there are more values, or one alone.
Trained<PaletteModel> train_palette(const Hint& hint, Bytes raw, unsigned chunk_log2,
                                    const std::vector<std::uint32_t>& chunks);

// The number of each element in the palette, in which all of them must be.
void palette_numbers(const PaletteModel& model, unsigned width, const std::uint8_t* elements, std::size_t n,
                     std::uint8_t* out);

}  // namespace coral::codec
