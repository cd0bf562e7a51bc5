// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string_view>

#include "coral/codec/segment_codec.hpp"
#include "repo/tensor_bases.hpp"

namespace coral::repo {
namespace {

std::string key_of(const std::string& name, std::uint8_t dtype) {
    std::string key = name;
    key += static_cast<char>(dtype);
    return key;
}

// The segments of one tensor, if the record cuts it as ingest does: whole segments in order from the tensor's start,
// each but the last as long as can be, or at what was stored before.
std::optional<BaseMap::Entry> segments_of(const store::FileRecord& record, const store::TensorEntry& tensor,
                                          std::size_t first_extent, std::uint64_t extent_begin) {
    if (extent_begin != tensor.offset) return std::nullopt;
    BaseMap::Entry entry;
    entry.length = tensor.length;
    std::uint64_t left = tensor.length;
    bool regular = true;
    for (std::size_t i = first_extent; left > 0 && i < record.extents.size(); ++i) {
        const store::Extent& extent = record.extents[i];
        if (extent.segment == store::Extent::kInline || extent.offset != 0 || extent.length > left) return std::nullopt;
        regular &= extent.length == std::min<std::uint64_t>(left, codec::kMaxSegment);
        entry.segments.push_back(record.segments[extent.segment]);
        entry.lengths.push_back(extent.length);
        left -= extent.length;
    }
    if (left != 0) return std::nullopt;
    if (regular) entry.lengths.clear();
    return entry;
}

}  // namespace

namespace {

// What wrappers put before the names of the module in them: DistributedDataParallel, torch.compile, Lightning,
// DeepSpeed, and the dictionaries that people save.
constexpr std::string_view kWrappers[] = {"module.",     "_orig_mod.",        "_forward_module.", "model.",
                                          "state_dict.", "model_state_dict.", "network.",         "net."};

std::string unwrapped(std::string_view name) {
    for (bool again = true; again;) {
        again = false;
        for (std::string_view wrapper : kWrappers) {
            if (!name.starts_with(wrapper) || name.size() == wrapper.size()) continue;
            name.remove_prefix(wrapper.size());
            again = true;
        }
    }
    return std::string(name);
}

// "bert.encoder.x.weight" and "encoder.x.weight": a model and the head on it.
std::string without_first(std::string_view name) {
    std::size_t dot = name.find('.');
    bool more = dot != std::string_view::npos && name.find('.', dot + 1) != std::string_view::npos;
    return more ? std::string(name.substr(dot + 1)) : std::string();
}

}  // namespace

std::optional<BaseMap::Entry> BaseMap::find(const std::string& name, std::uint8_t dtype, std::uint64_t length) const {
    std::lock_guard lock(mutex_);
    auto found = map_.find(key_of(name, dtype));
    if (found != map_.end()) return found->second;
    for (const std::string& other : {unwrapped(name), without_first(name)}) {
        found = map_.find(key_of(other, dtype));
        if (found != map_.end() && found->second.length == length) return found->second;
    }
    for (const std::string& other : {name, unwrapped(name)}) {
        auto alias = aliases_.find(key_of(other, dtype));
        if (alias == aliases_.end()) continue;
        found = map_.find(alias->second);
        if (found != map_.end() && found->second.length == length) return found->second;
    }
    return std::nullopt;
}

std::optional<BaseMap::Cast> BaseMap::find_cast(const std::string& name, std::uint8_t dtype,
                                                std::uint64_t length) const {
    constexpr formats::Dtype kFloats[] = {formats::Dtype::kF32, formats::Dtype::kBF16, formats::Dtype::kF16};
    const auto own = static_cast<formats::Dtype>(dtype);
    if (std::find(std::begin(kFloats), std::end(kFloats), own) == std::end(kFloats)) return std::nullopt;
    for (formats::Dtype other : kFloats) {
        if (other == own) continue;
        const std::uint64_t other_length = length / formats::dtype_width(own) * formats::dtype_width(other);
        auto found = find(name, static_cast<std::uint8_t>(other), other_length);
        if (found && found->length == other_length && found->lengths.empty())
            return Cast{std::move(*found), static_cast<std::uint8_t>(other)};
    }
    return std::nullopt;
}

void BaseMap::put(const std::string& name, std::uint8_t dtype, Entry entry) {
    std::lock_guard lock(mutex_);
    // A worktree with this many differently named tensors has bigger worries than a missed base: start afresh.
    if (map_.size() >= kLimit) {
        map_.clear();
        aliases_.clear();
    }
    std::string key = key_of(name, dtype);
    for (const std::string& other : {unwrapped(name), without_first(name)}) {
        if (!other.empty() && other != name) aliases_[key_of(other, dtype)] = key;
    }
    map_[std::move(key)] = std::move(entry);
}

void BaseMap::learn(const store::FileRecord& record) {
    each_cut_tensor(record, [&](const store::TensorEntry& tensor, Entry entry) {
        put(tensor.name, tensor.dtype, std::move(entry));
    });
}

void each_cut_tensor(const store::FileRecord& record,
                     const std::function<void(const store::TensorEntry&, BaseMap::Entry)>& visit) {
    std::size_t extent = 0;
    std::uint64_t begin = 0;
    for (const store::TensorEntry& tensor : record.tensors) {  // both in file order: one pass
        while (extent < record.extents.size() && begin < tensor.offset) begin += record.extents[extent++].length;
        if (tensor.length == 0 || extent == record.extents.size()) continue;
        if (auto entry = segments_of(record, tensor, extent, begin)) visit(tensor, std::move(*entry));
    }
}

}  // namespace coral::repo
