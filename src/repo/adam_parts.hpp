// SPDX-License-Identifier: Apache-2.0
// Which tensors of a file an optimizer has made of each other: a parameter and the moments that Adam keeps of it.
#pragma once

#include <cstddef>
#include <vector>

#include "coral/store/store.hpp"

namespace coral::repo {

// By tensor: what it was made with, besides its own earlier state.
struct AdamPart {
    codec::Formula formula = codec::Formula::kNone;
    std::size_t first = 0;   // the first moment
    std::size_t second = 0;  // of weights: the second moment
};

// Moments are found by their names ("exp_avg" beside "exp_avg_sq"). States are mostly numbered, not named after the
// parameter: the nth pair of a shape belongs to the nth tensor of that shape. A wrong guess costs bytes of no one: the
// encoder looks whether the formula fits.
std::vector<AdamPart> adam_parts(const std::vector<store::TensorEntry>& tensors);

}  // namespace coral::repo
