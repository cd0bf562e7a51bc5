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

// What differences could be taken from. All begin where the segment does, and may end earlier.
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
// Those of `chunks` that it covers wholly.
std::vector<std::uint32_t> covered_by(const DeltaSource& source, const Hint& hint, Bytes raw, unsigned chunk_log2,
                                      const std::vector<std::uint32_t>& chunks);
// The source without what the model does not use, which then does not bound what is covered either.
DeltaSource needed_of(const DeltaSource& source, const DeltaModel& model);

// `chunks`: which to measure, by number.
Trained<SoloModel> train_solo(const Kernels& k, const Hint& hint, Bytes raw, unsigned chunk_log2,
                              const std::vector<std::uint32_t>& chunks);
// Samples are taken of the chunks that `source` covers, of which there must be one. What is measured, and gets its
// codes, are those that needed_of() the model covers, which may be more: all for which differences may be taken.
Trained<DeltaModel> train_delta(const Kernels& k, const Hint& hint, Bytes raw, const DeltaSource& source,
                                unsigned chunk_log2, const std::vector<std::uint32_t>& chunks);

// Bits an element, about, from a few samples: to choose among bases before tables are made. Of `chunks`, the source
// must cover all.
double sample_delta(const Kernels& k, const Hint& hint, Bytes raw, const DeltaSource& source, unsigned chunk_log2,
                    const std::vector<std::uint32_t>& chunks);

}  // namespace coral::codec
