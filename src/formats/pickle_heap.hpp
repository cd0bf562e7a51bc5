// SPDX-License-Identifier: Apache-2.0
// The inert objects that a pickle is turned into: numbers, texts, containers, names of globals. Nothing here can be
// called. Everything lies in arenas that only grow, so a few bytes of pickle cost a few bytes of memory, up to one
// fixed limit.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "coral/formats/layout.hpp"
#include "formats/limits.hpp"

namespace coral::formats {

enum class Tag : std::uint8_t {
    kOpaque,  // a value that nothing depends on: float, bytes, long text, set of unknown things
    kNone,
    kBool,
    kInt,  // fits 56 bits; larger ones are kOpaque
    kText,
    kGlobal,   // payload: Global, Dtype, bytes of an element
    kStorage,  // payload: index of a persistent id
    kTensor,   // payload: index of a rebuilt tensor
    kTuple,
    kList,
    kDict,
    kObject,  // payload: index of a node
};

// What a global name means to us. The function or class itself is never looked up.
enum class Global : std::uint8_t {
    kOther,
    kStorageType,    // torch.FloatStorage; kUnknown: UntypedStorage
    kDtype,          // torch.float32
    kRebuild,        // _rebuild_tensor, _rebuild_tensor_v2: storage, offset, size, stride
    kRebuildV3,      // the same, then the dtype in seventh place
    kRebuildQ,       // the same, then the quantiser's parameters in fifth place
    kRebuildFrom,    // _rebuild_from_type_v2: function, type, arguments, state
    kFirstArgument,  // wrappers whose first argument is the thing itself: parameters, TorchScript's typed lists
    kDictType,
};

class Value {
  public:
    Value() = default;
    static Value of(Tag tag, std::uint64_t payload = 0) { return Value(payload << 8 | static_cast<std::uint8_t>(tag)); }
    static Value integer(std::int64_t v);
    static Value global(Global kind, Dtype dtype = Dtype::kUnknown, std::uint8_t element_bytes = 0) {
        const auto number = static_cast<std::uint64_t>(dtype);
        return of(Tag::kGlobal, std::uint64_t{element_bytes} << 16 | number << 8 | static_cast<std::uint8_t>(kind));
    }

    Tag tag() const { return static_cast<Tag>(raw_ & 0xff); }
    std::uint64_t payload() const { return raw_ >> 8; }
    std::uint32_t index() const { return static_cast<std::uint32_t>(payload()); }
    std::int64_t as_int() const { return static_cast<std::int64_t>(raw_) >> 8; }
    Global global_kind() const { return static_cast<Global>(payload() & 0xff); }
    Dtype global_dtype() const { return static_cast<Dtype>(payload() >> 8 & 0xff); }
    std::uint32_t global_element_bytes() const { return static_cast<std::uint32_t>(payload() >> 16); }
    bool is_container() const { return tag() >= Tag::kTuple; }
    bool is_global(Global kind) const { return tag() == Tag::kGlobal && global_kind() == kind; }

  private:
    explicit Value(std::uint64_t raw) : raw_(raw) {}
    std::uint64_t raw_ = 0;  // tag in the low byte
};

// A tuple, list, dict or object. Items lie in a chain of runs in the cells: one run per append.
struct Node {
    std::uint32_t first = 0, last = 0;  // runs; 0: none
    std::uint32_t count = 0;            // items; of a dict, keys and values are both counted
    bool pairs = false;                 // items are keys and values in turn
    bool visited = false;
    Value arguments;  // of an object
    Value state;      // what BUILD gave
};

// Walks the items of a node.
struct Cursor {
    std::uint32_t run = 0;
    std::uint32_t at = 0;
};

class PickleHeap {
  public:
    PickleHeap();

    // All return false, and change nothing, when the memory limit is reached.
    bool charge(std::size_t bytes);
    // A little more for tidying up after the limit was reached.
    void open_reserve() { limit_ = kMaxPickleMemory + kReserve; }
    bool make_text(std::string_view text, Value& out);  // at most kMaxNameLength bytes
    bool make_node(Tag tag, Value& out);
    bool append(Value node, std::span<const Value> items);

    std::string_view text(Value v) const;
    Node& node(Value v) { return nodes_[v.index()]; }
    const Node& node(Value v) const { return nodes_[v.index()]; }
    Cursor begin(const Node& node) const { return {node.first, 0}; }
    bool next(Cursor& cursor, Value& out) const;
    // Item `i` of a tuple or list, kOpaque when there is none. Cheap for tuples, which are one run.
    Value item(Value container, std::uint32_t i) const;

  private:
    static constexpr std::size_t kBlock = 64 * 1024;
    static constexpr std::size_t kReserve = 1 << 20;
    struct Run {
        std::uint32_t next;
        std::uint32_t count;
    };
    Run run_at(std::uint32_t at) const;

    std::deque<Node> nodes_;
    std::deque<std::uint64_t> cells_;  // run header {next, count}, then that many values; cell 0 is not used
    std::vector<std::unique_ptr<std::array<char, kBlock>>> blocks_;
    std::size_t block_used_ = kBlock;
    std::size_t used_ = 0;
    std::size_t limit_ = kMaxPickleMemory;
};

}  // namespace coral::formats
