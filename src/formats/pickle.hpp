// SPDX-License-Identifier: Apache-2.0
// Reads the pickle inside a torch zip far enough to know its storages and what the tensors in them are called.
// A closed interpreter: it knows the opcodes that Python's and TorchScript's picklers emit for protocols 2 to 5 and
// about forty names; every other global is an inert object, and nothing is imported, called or built. An opcode that it
// does not know, or a limit, ends it early: what was found so far stays. Spec: CPython Lib/pickletools.py;
// torch/_utils.py (_rebuild_*), torch/serialization.py (persistent_id), torch/csrc/jit/serialization/pickler.cpp.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "formats/pickle_heap.hpp"
#include "formats/source_reader.hpp"

namespace coral::formats {

// A persistent id ('storage', type, key, location, count). The same key may come many times.
struct PickledStorage {
    Value key;
    Dtype dtype = Dtype::kUnknown;
    bool untyped = false;  // count is bytes; the dtype is in the tensors (_rebuild_tensor_v3)
    std::uint64_t count = 0;
    std::uint32_t element_bytes = 0;  // of what count counts; 0: not known
};

// A tensor that shows (a part of) a storage.
struct PickledTensor {
    std::uint32_t storage = 0;
    Dtype dtype = Dtype::kUnknown;  // only for untyped storages
    bool visited = false;
    std::int64_t offset = 0;  // elements
    Value size, stride;       // tuples of integers, or anything else
    Value quantiser;          // parameters that may hold tensors themselves
};

class TorchPickle {
  public:
    // False when it did not reach the end. Check reader.error() too.
    bool read(SourceReader& reader);

    // The value that the pickle is; after an early end, the first of what was there.
    Value root() const { return roots_.empty() ? Value() : roots_.front(); }
    const PickleHeap& heap() const { return heap_; }

    const std::deque<PickledStorage>& storages() const { return storages_; }
    std::string_view key(const PickledStorage& storage) const { return heap_.text(storage.key); }

    // For each storage or tensor, in the order of first appearance: its path ("optimizer.state.0.exp_avg"; empty: it
    // has none) and how it was shown. `tensor` is null where the storage itself was pickled. Call once.
    using Visitor = std::function<void(std::uint32_t storage, const PickledTensor* tensor, std::string_view path)>;
    void walk(const Visitor& visit);

    // Dimensions in elements, if the tensor lies in its storage from the start, row-major and without holes.
    bool dense_shape(const PickledTensor& tensor, std::vector<std::uint64_t>& out) const;

  private:
    friend class PickleMachine;
    friend class PickleWalk;

    PickleHeap heap_;
    std::deque<PickledStorage> storages_;
    std::deque<PickledTensor> tensors_;
    std::vector<Value> roots_;  // what was left on the stack
};

// pickle_torch.cpp: what names and calls mean.
Value resolve_global(std::string_view module, std::string_view name);

}  // namespace coral::formats
