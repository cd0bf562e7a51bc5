// SPDX-License-Identifier: Apache-2.0
// Makes the tables of a segment from its bytes, and tells what it would cost with them.
#pragma once

#include <vector>

#include "codec/tensor_model.hpp"

namespace coral::codec {

template <class Model>
struct Trained {
    Model model;
    double bits = 0;  // of all chunks that were measured, tables included
};

// What differences could be taken from. All begin where the segment does; chunks that they do not cover wholly must not
// be named.
struct DeltaSource {
    Bytes base;
    Bytes before;           // empty: none
    std::uint8_t cast = 0;  // type of the base's elements, 0: the segment's
    // What an optimizer made the segment with, from the base.
    Formula formula = Formula::kNone;
    Bytes first = {}, second = {};
};

// Does it cover [begin, begin + length) of the segment?
bool covers(const DeltaSource& source, const Hint& hint, std::uint64_t begin, std::size_t length);

// `chunks`: which to measure, by number.
Trained<SoloModel> train_solo(const Kernels& k, const Hint& hint, Bytes raw, unsigned chunk_log2,
                              const std::vector<std::uint32_t>& chunks);
Trained<DeltaModel> train_delta(const Kernels& k, const Hint& hint, Bytes raw, const DeltaSource& source,
                                unsigned chunk_log2, const std::vector<std::uint32_t>& chunks);

// Bits an element, about, from a few samples: to choose among bases before tables are made.
double sample_delta(const Kernels& k, const Hint& hint, Bytes raw, const DeltaSource& source, unsigned chunk_log2,
                    const std::vector<std::uint32_t>& chunks);

}  // namespace coral::codec
