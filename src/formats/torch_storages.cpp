// SPDX-License-Identifier: Apache-2.0
#include "formats/torch_storages.hpp"

#include <algorithm>
#include <utility>

#include "formats/limits.hpp"
#include "formats/utf8.hpp"

namespace coral::formats {

namespace {

constexpr std::uint32_t kNoSlot = 0xffffffff;
constexpr std::size_t kMaxKeyLength = 64;

}  // namespace

TorchStorages::TorchStorages(std::vector<StorageBytes> bytes, std::string name_prefix, Unnamed unnamed)
    : name_prefix_(std::move(name_prefix)), unnamed_(unnamed), slots_(bytes.size()) {
    for (std::size_t i = 0; i < bytes.size(); ++i) slots_[i].bytes = bytes[i];
}

void TorchStorages::describe(TorchPickle& pickle, LayoutBudget& budget) {
    std::vector<std::uint32_t> slot_of = describe_storages(pickle);
    pickle.walk([&](std::uint32_t storage, const PickledTensor* tensor, std::string_view path) {
        if (slot_of[storage] == kNoSlot) return;
        Slot& slot = slots_[slot_of[storage]];
        name_slot(slot, path, budget);
        if (tensor) shape_slot(slot, pickle, *tensor, budget);
    });
}

void TorchStorages::add_tensors(bool big_endian, LayoutBudget& budget, Layout& layout) {
    for (Slot& slot : slots_) {
        if (!size_matches(slot) || !budget.take_tensor()) continue;
        Tensor tensor;
        tensor.dtype = slot.untyped && slot.dtype == Dtype::kUnknown ? Dtype::kU8 : slot.dtype;
        tensor.big_endian = big_endian && dtype_width(tensor.dtype) > 1;
        tensor.offset = slot.bytes.offset;
        tensor.length = slot.bytes.length;
        tensor.name = final_name(slot, budget);
        if (slot.shaped) {
            tensor.shape = std::move(slot.shape);
        } else {
            tensor.shape = {flat_count(tensor)};
        }
        layout.tensors.push_back(std::move(tensor));
    }
}

// Keys are short numbers; long ones would only make this slow.
std::uint32_t TorchStorages::find_slot(std::string_view key) const {
    if (key.size() > kMaxKeyLength) return kNoSlot;
    auto it = std::lower_bound(slots_.begin(), slots_.end(), key,
                               [](const Slot& slot, std::string_view k) { return slot.bytes.key < k; });
    return it != slots_.end() && it->bytes.key == key ? static_cast<std::uint32_t>(it - slots_.begin()) : kNoSlot;
}

// For each persistent id its slot, or kNoSlot. The first one to name a storage describes it.
std::vector<std::uint32_t> TorchStorages::describe_storages(const TorchPickle& pickle) {
    std::vector<std::uint32_t> slot_of;
    slot_of.reserve(pickle.storages().size());
    for (const PickledStorage& storage : pickle.storages()) {
        slot_of.push_back(find_slot(pickle.key(storage)));
        if (slot_of.back() == kNoSlot) continue;
        Slot& slot = slots_[slot_of.back()];
        if (std::exchange(slot.described, true)) continue;
        slot.dtype = storage.dtype;
        slot.untyped = storage.untyped;
        slot.count = storage.count;
    }
    return slot_of;
}

void TorchStorages::name_slot(Slot& slot, std::string_view path, LayoutBudget& budget) {
    if (!slot.name.empty() || path.empty() || !is_utf8(path)) return;
    if (budget.take_name(name_prefix_.size() + path.size())) slot.name.append(name_prefix_).append(path);
}

// The first tensor that covers the storage exactly gives the shape; of an untyped one also the dtype.
void TorchStorages::shape_slot(Slot& slot, const TorchPickle& pickle, const PickledTensor& tensor,
                               LayoutBudget& budget) {
    if (slot.untyped && slot.dtype == Dtype::kUnknown) slot.dtype = tensor.dtype;
    if (slot.shaped || !pickle.dense_shape(tensor, shape_)) return;
    const Dtype dtype = slot.untyped ? tensor.dtype : slot.dtype;
    // torch counts bytes of packed pairs, safetensors counts their halves.
    if (dtype == Dtype::kF4 && !shape_.empty() && !checked_mul<std::uint64_t>(shape_.back(), 2, shape_.back())) {
        return;
    }
    std::optional<std::uint64_t> count = element_count(shape_);
    if (!count || dtype != slot.dtype) return;
    const bool covers = slot.untyped ? packed_bytes(*count, dtype_bits(dtype)) == slot.count : *count == slot.count;
    if (!covers || !budget.take_shape(shape_.size())) return;
    slot.shape = shape_;
    slot.shaped = true;
}

// Whether the bytes are what the pickle promised. Without a promise everything goes.
bool TorchStorages::size_matches(const Slot& slot) {
    if (!slot.described || slot.dtype == Dtype::kQuantised) return true;
    if (slot.untyped) return slot.count == slot.bytes.length;
    return packed_bytes(slot.count, dtype_bits(slot.dtype)) == slot.bytes.length;
}

// Elements of a tensor of one dimension; one that does not divide becomes bytes.
std::uint64_t TorchStorages::flat_count(Tensor& tensor) {
    const std::uint64_t bytes = dtype_bits(tensor.dtype) / 8;
    if (tensor.dtype == Dtype::kF4) return tensor.length * 2;
    if (bytes == 0 || tensor.length % bytes == 0) return tensor.length / std::max<std::uint64_t>(bytes, 1);
    tensor.dtype = Dtype::kUnknown;
    tensor.big_endian = false;
    return tensor.length;
}

std::string TorchStorages::final_name(Slot& slot, LayoutBudget& budget) const {
    if (!slot.name.empty()) return std::move(slot.name);
    std::string name = "storage:";
    if (unnamed_ == Unnamed::kByIndex) return name += std::to_string(&slot - slots_.data());
    if (!name_prefix_.empty()) name += "constants/";
    const std::string_view key = slot.bytes.key;
    if (is_utf8(key) && budget.take_name(name.size() + key.size())) name += key;
    return name;
}

}  // namespace coral::formats
