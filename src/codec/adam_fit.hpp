// SPDX-License-Identifier: Apache-2.0
// What a step of Adam did, from the values before and after it: the numbers of its formula are in no tensor.
#pragma once

#include <optional>
#include <span>

#include "codec/kernels.hpp"
#include "coral/base/bytes.hpp"

namespace coral::codec {

// Samples of one place: F32 elements, all of as many.
struct AdamSample {
    Bytes now, base, first, second;
};

// Least squares, each element weighed by its own size: what is left is rounding. Nothing when the values are none of
// such a step. Doubles, on the encoder's side alone: whatever comes out is only a prediction.
std::optional<AdamStep> fit_adam(Formula formula, std::span<const AdamSample> samples);

}  // namespace coral::codec
