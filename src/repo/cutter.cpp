// SPDX-License-Identifier: Apache-2.0
#include "repo/cutter.hpp"

#include <algorithm>

#include "coral/codec/segment_codec.hpp"

namespace coral::repo {

Result<std::vector<Piece>> Cutter::cut(const formats::Layout& layout) {
    std::uint64_t position = 0;
    // Where nothing is found there are no more; a vector that grows would hold them twice.
    pieces_.reserve(static_cast<std::size_t>(source_.size() / codec::kMaxSegment) + 2 * layout.tensors.size() + 1);
    for (std::size_t i = 0; i < layout.tensors.size(); ++i) {
        const formats::Tensor& tensor = layout.tensors[i];
        CORAL_CHECK(add_gap(position, tensor.offset));
        CORAL_CHECK(add_tensor(tensor, static_cast<std::int64_t>(i)));
        position = tensor.offset + tensor.length;
    }
    CORAL_CHECK(add_gap(position, source_.size()));
    return std::move(pieces_);
}

void Cutter::add(std::uint64_t begin, std::uint64_t end, std::int64_t tensor, const Found* found) {
    for (std::uint64_t at = begin; at < end; at += codec::kMaxSegment) {
        std::uint64_t length = std::min<std::uint64_t>(end - at, codec::kMaxSegment);
        pieces_.push_back({at, length, tensor, tensor < 0 ? 0 : at - tensor_begin_, nth_++, found});
    }
}

Status Cutter::add_searched(std::uint64_t begin, std::uint64_t end, std::int64_t tensor, std::size_t step) {
    if (end - begin >= kSketchFrom && similar_.has_anchors()) {
        CORAL_TRY(std::vector<Found> all, find_stored(source_, begin, end, step, similar_));
        for (const Found& found : all) {
            add(begin, found.begin, tensor);
            begin = found.begin + found.length;
            add(found.begin, begin, tensor, &found_.emplace_back(found));
        }
    }
    add(begin, end, tensor);
    return {};
}

Status Cutter::add_gap(std::uint64_t begin, std::uint64_t end) {
    for (const Found& found : find_known(known_, begin, end)) {
        CORAL_CHECK(add_searched(begin, found.begin, -1, 1));
        begin = found.begin + found.length;
        add(found.begin, begin, -1, &found_.emplace_back(found));
    }
    return add_searched(begin, end, -1, 1);
}

Status Cutter::add_tensor(const formats::Tensor& tensor, std::int64_t index) {
    const std::uint64_t end = tensor.offset + tensor.length;
    tensor_begin_ = tensor.offset;
    nth_ = 0;
    auto base = bases_.find(tensor.name, static_cast<std::uint8_t>(tensor.dtype), tensor.length);
    if (base && !base->lengths.empty() && base->length == tensor.length) {
        std::uint64_t at = tensor.offset;
        for (std::uint64_t length : base->lengths) {
            add(at, at + length, index);
            at += length;
        }
        return {};
    }
    if (!base && tensor.dtype != formats::Dtype::kUnknown) {
        return add_searched(tensor.offset, end, index, std::max(1u, formats::dtype_width(tensor.dtype)));
    }
    add(tensor.offset, end, index);
    return {};
}

}  // namespace coral::repo
