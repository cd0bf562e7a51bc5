// SPDX-License-Identifier: Apache-2.0
// Where the storages of a torch file lie, joined with what its pickle says about them: the tensors of the layout.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/layout_builder.hpp"
#include "formats/pickle.hpp"

namespace coral::formats {

// The bytes of one storage.
struct StorageBytes {
    std::string_view key;  // by which the pickle names it; must outlive the storages
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
};

class TorchStorages {
  public:
    // What a storage that no path leads to is called after: its key, or where keys are addresses, its place.
    enum class Unnamed { kByKey, kByIndex };

    // `bytes` sorted by key.
    TorchStorages(std::vector<StorageBytes> bytes, std::string name_prefix, Unnamed unnamed);

    // Takes names, dtypes and shapes from the pickle. Call at most once.
    void describe(TorchPickle& pickle, LayoutBudget& budget);
    // Leaves out what is not as long as the pickle says. Call once.
    void add_tensors(bool big_endian, LayoutBudget& budget, Layout& layout);

  private:
    // What the pickle says about one storage.
    struct Slot {
        StorageBytes bytes;
        Dtype dtype = Dtype::kUnknown;
        bool described = false;  // by a persistent id
        bool untyped = false;
        bool shaped = false;
        std::uint64_t count = 0;
        std::string name;
        std::vector<std::uint64_t> shape;
    };

    std::uint32_t find_slot(std::string_view key) const;
    std::vector<std::uint32_t> describe_storages(const TorchPickle& pickle);
    void name_slot(Slot& slot, std::string_view path, LayoutBudget& budget);
    void shape_slot(Slot& slot, const TorchPickle& pickle, const PickledTensor& tensor, LayoutBudget& budget);
    static bool size_matches(const Slot& slot);
    static std::uint64_t flat_count(Tensor& tensor);
    std::string final_name(Slot& slot, LayoutBudget& budget) const;

    std::string name_prefix_;  // of tensor names
    Unnamed unnamed_;
    std::vector<Slot> slots_;
    std::vector<std::uint64_t> shape_;
};

}  // namespace coral::formats
