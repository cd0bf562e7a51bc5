// SPDX-License-Identifier: Apache-2.0
#include "repo/tensor_bases.hpp"

#include <algorithm>

namespace coral::repo {

codec::Hint hint_of(const store::TensorEntry& tensor) {
    const auto dtype = static_cast<formats::Dtype>(tensor.dtype);
    codec::Hint hint;
    hint.width = static_cast<std::uint8_t>(std::max(1u, formats::dtype_width(dtype)));
    hint.big_endian = tensor.big_endian;
    hint.detail = tensor.dtype;
    if (formats::dtype_is_float(dtype))
        hint.element = codec::Hint::Class::kFloat;
    else if (dtype != formats::Dtype::kUnknown)
        hint.element = codec::Hint::Class::kInteger;
    return hint;
}

NamedBases named_bases(const BaseMap& bases, const store::TensorEntry& tensor, std::uint64_t offset, std::size_t nth) {
    NamedBases named;
    if (auto base = bases.find(tensor.name, tensor.dtype, tensor.length)) {
        bool alike = base->lengths.empty() || base->length == tensor.length;
        if (alike && nth < base->segments.size()) named.same = base->segments[nth];
    }
    if (auto base = bases.find_cast(tensor.name, tensor.dtype, tensor.length)) {
        const unsigned own = formats::dtype_width(static_cast<formats::Dtype>(tensor.dtype));
        const unsigned other = formats::dtype_width(static_cast<formats::Dtype>(base->dtype));
        const std::uint64_t at = offset / own * other;
        const auto number = static_cast<std::size_t>(at / codec::kMaxSegment);
        const std::vector<SegmentId>& segments = base->entry.segments;
        if (number < segments.size()) {
            named.cast.emplace(
                store::BaseCandidate{segments[number], at % codec::kMaxSegment, base->dtype, SegmentId{}});
            if (other > own && number + 1 < segments.size()) named.cast->next = segments[number + 1];
            named.narrower = own > other ? 8 * (own - other) : 0;
        }
    }
    return named;
}

}  // namespace coral::repo
