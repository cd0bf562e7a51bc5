// SPDX-License-Identifier: Apache-2.0
// How tensors of a FILE record lie in segments, how these are best coded, and which bases their names suggest.
#pragma once

#include <functional>
#include <optional>

#include "coral/repo/ingest.hpp"

namespace coral::repo {

codec::Hint hint_of(const store::TensorEntry& tensor);

// What a tensor's name suggests for one of its segments.
struct NamedBases {
    std::optional<SegmentId> same;             // of the same element type
    std::uint64_t offset = 0;                  // in it
    std::optional<store::BaseCandidate> cast;  // of another one
    unsigned narrower = 0;                     // by so many bits are the cast one's elements
    // What the optimizer had besides `same`.
    codec::Formula formula = codec::Formula::kNone;
    SegmentId first = {}, second = {};
};
// For the `nth` segment, which begins at `offset` in the tensor.
NamedBases named_bases(const BaseMap& bases, const store::TensorEntry& tensor, std::uint64_t offset, std::size_t nth);

// Tensors that are cut as ingest does: whole segments in order from the tensor's start.
void each_cut_tensor(const store::FileRecord& record,
                     const std::function<void(const store::TensorEntry&, BaseMap::Entry)>& visit);

}  // namespace coral::repo
