// SPDX-License-Identifier: Apache-2.0
// torch.save since 1.6, and TorchScript: a zip whose members all begin with the archive's name; data.pkl describes the
// tensors, data/<key> holds the bytes of one storage each. TorchScript adds constants.pkl and constants/<key>.
// Spec: caffe2/serialize/inline_container.h, torch/serialization.py (_save, _load),
// torch/csrc/jit/serialization/import.cpp of github.com/pytorch/pytorch.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"
#include "formats/pickle.hpp"
#include "formats/utf8.hpp"
#include "formats/zip_directory.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::uint32_t kNoSlot = 0xffffffff;
constexpr std::size_t kMaxKeyLength = 64;

// What the pickle says about one member.
struct Slot {
    const ZipMember* member = nullptr;
    std::string_view key;
    Dtype dtype = Dtype::kUnknown;
    bool described = false;  // by a persistent id
    bool untyped = false;
    bool shaped = false;
    std::uint64_t count = 0;
    std::string name;
    std::vector<std::uint64_t> shape;
};

// One pickle with its storages: data.pkl with data/, constants.pkl with constants/.
class Group {
  public:
    Group(const ByteSource& source, const ZipDirectory& directory, const std::string& folder, std::string name_prefix)
        : source_(source), name_prefix_(std::move(name_prefix)) {
        auto [first, last] = directory.range(folder);
        slots_.reserve(last - first);
        for (std::size_t i = first; i < last; ++i) {
            Slot slot;
            slot.member = &directory.members()[i];
            slot.key = slot.member->name.substr(folder.size());
            slots_.push_back(std::move(slot));
        }
    }

    // A pickle that is not there, or cannot be read to its end, leaves slots undescribed; that is no error.
    Status read_pickle(const ZipMember* member, LayoutBudget& budget) {
        if (!member || !member->stored) return {};
        SourceReader reader(source_, member->offset, member->offset + member->size);
        TorchPickle pickle;
        pickle.read(reader);
        if (reader.error()) return *reader.error();
        std::vector<std::uint32_t> slot_of = describe_storages(pickle);
        pickle.walk([&](std::uint32_t storage, const PickledTensor* tensor, std::string_view path) {
            if (slot_of[storage] == kNoSlot) return;
            Slot& slot = slots_[slot_of[storage]];
            name_slot(slot, path, budget);
            if (tensor) shape_slot(slot, pickle, *tensor, budget);
        });
        return {};
    }

    void add_tensors(bool big_endian, LayoutBudget& budget, Layout& layout) {
        for (Slot& slot : slots_) {
            if (!slot.member->stored || is_folder(slot) || !size_matches(slot) || !budget.take_tensor()) continue;
            Tensor tensor;
            tensor.dtype = slot.untyped && slot.dtype == Dtype::kUnknown ? Dtype::kU8 : slot.dtype;
            tensor.big_endian = big_endian && dtype_width(tensor.dtype) > 1;
            tensor.offset = slot.member->offset;
            tensor.length = slot.member->size;
            tensor.name = final_name(slot, budget);
            if (slot.shaped) {
                tensor.shape = std::move(slot.shape);
            } else {
                tensor.shape = {flat_count(tensor)};
            }
            layout.tensors.push_back(std::move(tensor));
        }
    }

  private:
    // Slots are sorted by key, as the members are by name. Keys are small numbers; long ones would only make this slow.
    std::uint32_t find_slot(std::string_view key) const {
        if (key.size() > kMaxKeyLength) return kNoSlot;
        auto it = std::lower_bound(slots_.begin(), slots_.end(), key,
                                   [](const Slot& slot, std::string_view k) { return slot.key < k; });
        return it != slots_.end() && it->key == key ? static_cast<std::uint32_t>(it - slots_.begin()) : kNoSlot;
    }

    // For each persistent id its slot, or kNoSlot. The first one to name a member describes it.
    std::vector<std::uint32_t> describe_storages(const TorchPickle& pickle) {
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

    void name_slot(Slot& slot, std::string_view path, LayoutBudget& budget) {
        if (!slot.name.empty() || path.empty() || !is_utf8(path)) return;
        if (budget.take_name(name_prefix_.size() + path.size())) slot.name.append(name_prefix_).append(path);
    }

    // The first tensor that covers the storage exactly gives the shape; of an untyped one also the dtype.
    void shape_slot(Slot& slot, const TorchPickle& pickle, const PickledTensor& tensor, LayoutBudget& budget) {
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

    // Other zip programs add members for folders.
    static bool is_folder(const Slot& slot) { return slot.key.empty() || slot.key.back() == '/'; }

    // Whether the member holds what the pickle promised. Without a promise everything goes.
    static bool size_matches(const Slot& slot) {
        if (!slot.described || slot.dtype == Dtype::kQuantised) return true;
        if (slot.untyped) return slot.count == slot.member->size;
        return packed_bytes(slot.count, dtype_bits(slot.dtype)) == slot.member->size;
    }

    // Elements of a tensor of one dimension; one that does not divide becomes bytes.
    static std::uint64_t flat_count(Tensor& tensor) {
        const std::uint64_t bytes = dtype_bits(tensor.dtype) / 8;
        if (tensor.dtype == Dtype::kF4) return tensor.length * 2;
        if (bytes == 0 || tensor.length % bytes == 0) return tensor.length / std::max<std::uint64_t>(bytes, 1);
        tensor.dtype = Dtype::kUnknown;
        tensor.big_endian = false;
        return tensor.length;
    }

    std::string final_name(Slot& slot, LayoutBudget& budget) const {
        constexpr std::string_view kPrefix = "storage:";
        if (!slot.name.empty()) return std::move(slot.name);
        const bool is_data = name_prefix_.empty();
        std::string name(kPrefix);
        if (!is_data) name += "constants/";
        if (is_utf8(slot.key) && budget.take_name(name.size() + slot.key.size())) return name.append(slot.key);
        return name;
    }

    const ByteSource& source_;
    std::string name_prefix_;  // of tensor names
    std::vector<Slot> slots_;
    std::vector<std::uint64_t> shape_;
};

Result<bool> is_big_endian(const ByteSource& source, const ZipMember* member) {
    constexpr std::string_view kBig = "big";
    std::array<std::byte, kBig.size()> text;
    if (!member || !member->stored || member->size != text.size()) return false;
    CORAL_CHECK(source.read_at(member->offset, text));
    return as_text(text) == kBig;
}

}  // namespace

Result<std::optional<Layout>> parse_torch_zip(const ByteSource& source) {
    CORAL_TRY(std::optional<ZipDirectory> directory, ZipDirectory::read(source));
    if (!directory) return std::optional<Layout>{};
    const std::size_t slash = directory->first_name().find('/');
    if (slash == std::string_view::npos) return std::optional<Layout>{};
    const std::string archive(directory->first_name().substr(0, slash + 1));
    const ZipMember* data_pickle = directory->find(archive + "data.pkl");
    if (!data_pickle) return std::optional<Layout>{};
    CORAL_TRY(bool big_endian, is_big_endian(source, directory->find(archive + "byteorder")));

    Layout layout{Parser::kTorchZip, kVersion, {}};
    LayoutBudget budget;
    Group data(source, *directory, archive + "data/", "");
    CORAL_CHECK(data.read_pickle(data_pickle, budget));
    data.add_tensors(big_endian, budget, layout);
    Group constants(source, *directory, archive + "constants/", "constants.");
    CORAL_CHECK(constants.read_pickle(directory->find(archive + "constants.pkl"), budget));
    constants.add_tensors(big_endian, budget, layout);
    return finish_layout(std::move(layout), source.size());
}

}  // namespace coral::formats
