// SPDX-License-Identifier: Apache-2.0
// Measures a segment and makes the tables that its chunks share. Costs are estimates in bits, good to about 1 %.
#pragma once

#include "codec/tensor_model.hpp"

namespace coral::codec {

template <class Model>
struct Trained {
    Model model;
    double bits = 0;  // of all chunks that were measured, tables included
};

// `chunks`: which to measure, by number.
Trained<SoloModel> train_solo(const Kernels& k, const Hint& hint, Bytes raw, unsigned chunk_log2,
                              const std::vector<std::uint32_t>& chunks);

// `base` begins where the segment does; chunks that it does not cover wholly are not to be named.
Trained<DeltaModel> train_delta(const Kernels& k, const Hint& hint, Bytes raw, Bytes base, unsigned chunk_log2,
                                const std::vector<std::uint32_t>& chunks);

}  // namespace coral::codec
