// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coral/codec/segment_codec.hpp"
#include "coral/repo/ingest.hpp"

namespace coral::repo {
namespace {

std::string key_of(const std::string& name, std::uint8_t dtype) {
    std::string key = name;
    key += static_cast<char>(dtype);
    return key;
}

// The segments of one tensor, if the record cuts it as ingest does: whole segments in order from the tensor's start.
std::optional<BaseMap::Entry> segments_of(const store::FileRecord& record, const store::TensorEntry& tensor,
                                          std::size_t first_extent, std::uint64_t extent_begin) {
    if (extent_begin != tensor.offset) return std::nullopt;
    BaseMap::Entry entry;
    entry.length = tensor.length;
    std::uint64_t left = tensor.length;
    for (std::size_t i = first_extent; left > 0 && i < record.extents.size(); ++i) {
        const store::Extent& extent = record.extents[i];
        if (extent.segment == store::Extent::kInline || extent.offset != 0 || extent.length > left) return std::nullopt;
        if (extent.length != std::min<std::uint64_t>(left, codec::kMaxSegment)) return std::nullopt;
        entry.segments.push_back(record.segments[extent.segment]);
        left -= extent.length;
    }
    if (left != 0) return std::nullopt;
    return entry;
}

}  // namespace

std::optional<BaseMap::Entry> BaseMap::find(const std::string& name, std::uint8_t dtype) const {
    std::lock_guard lock(mutex_);
    auto found = map_.find(key_of(name, dtype));
    if (found == map_.end()) return std::nullopt;
    return found->second;
}

void BaseMap::put(const std::string& name, std::uint8_t dtype, Entry entry) {
    std::lock_guard lock(mutex_);
    // A worktree with this many differently named tensors has bigger worries than a missed base: start afresh.
    if (map_.size() >= kLimit) map_.clear();
    map_[key_of(name, dtype)] = std::move(entry);
}

void BaseMap::learn(const store::FileRecord& record) {
    std::size_t extent = 0;
    std::uint64_t begin = 0;
    for (const store::TensorEntry& tensor : record.tensors) {  // both in file order: one pass
        while (extent < record.extents.size() && begin < tensor.offset) begin += record.extents[extent++].length;
        if (tensor.length == 0 || extent == record.extents.size()) continue;
        if (auto entry = segments_of(record, tensor, extent, begin)) put(tensor.name, tensor.dtype, std::move(*entry));
    }
}

}  // namespace coral::repo
