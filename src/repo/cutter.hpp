// SPDX-License-Identifier: Apache-2.0
// Cuts a file into the stretches that ingest stores: the first half of the work, by positional reads.
#pragma once

#include <deque>
#include <vector>

#include "coral/formats/layout.hpp"
#include "coral/repo/ingest.hpp"
#include "repo/base_index.hpp"
#include "repo/probe.hpp"

namespace coral::repo {

// A stretch of the file in file order: (a piece of) one tensor or bytes between tensors. At most a segment long. Small,
// as the largest file has a million at least.
struct Piece {
    std::uint64_t offset = 0, length = 0;
    std::int64_t tensor = -1;         // index into the layout; -1: skeleton
    std::uint64_t tensor_offset = 0;  // of this piece in the tensor
    std::size_t nth = 0;              // piece of the tensor
    const Found* found = nullptr;     // stored bytes that it resembles or is; the cutter's
};
static_assert(sizeof(Piece) <= 48);

// The cut: tensors at 16 MiB multiples from their start; what lies between goes, in order, into the skeleton stream.
// Where stored segments are recognised in what has no name yet, they are cut out whole, so that they are stored once.
class Cutter {
  public:
    Cutter(const formats::ByteSource& source, const BaseIndex& similar, const BaseMap& bases,
           const std::vector<KnownRange>& known)
        : source_(source), similar_(similar), bases_(bases), known_(known) {}

    Result<std::vector<Piece>> cut(const formats::Layout& layout);

  private:
    void add(std::uint64_t begin, std::uint64_t end, std::int64_t tensor, const Found* found = nullptr);
    Status add_searched(std::uint64_t begin, std::uint64_t end, std::int64_t tensor, std::size_t step);
    Status add_gap(std::uint64_t begin, std::uint64_t end);
    Status add_tensor(const formats::Tensor& tensor, std::int64_t index);

    const formats::ByteSource& source_;
    const BaseIndex& similar_;
    const BaseMap& bases_;
    const std::vector<KnownRange>& known_;
    std::uint64_t tensor_begin_ = 0;
    std::size_t nth_ = 0;
    std::vector<Piece> pieces_;
    std::deque<Found> found_;  // a deque: pieces point into it
};

}  // namespace coral::repo
