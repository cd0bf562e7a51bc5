// SPDX-License-Identifier: Apache-2.0
// What differences are taken from, and by what their classes are chosen.
#pragma once

#include "codec/tensor_model.hpp"

namespace coral::codec {

// Arrays of the calling thread, or the caller's own bytes; good until the next call.
struct PreparedBase {
    const std::uint8_t* values = nullptr;  // little-endian elements of the segment's type
    const std::uint8_t* keys = nullptr;    // of each; by DeltaModel::last, or by LastStep::class_of
};

// `base` holds base_range() bytes for `n` elements, `before` as many, with a step; `first` and
// `second`, with a formula.
PreparedBase prepare_base(const Kernels& k, const DeltaModel& model, const Hint& hint, const DeltaBase& base,
                          std::size_t n);

}  // namespace coral::codec
