// SPDX-License-Identifier: Apache-2.0
#include "formats/pickle_heap.hpp"

#include <bit>
#include <cstring>

namespace coral::formats {

namespace {

constexpr std::int64_t kMaxInt = (std::int64_t{1} << 55) - 1;

}  // namespace

Value Value::integer(std::int64_t v) {
    if (v > kMaxInt || v < -kMaxInt) return Value();
    return of(Tag::kInt, static_cast<std::uint64_t>(v));
}

PickleHeap::PickleHeap() : cells_(1) {}

bool PickleHeap::charge(std::size_t bytes) {
    if (bytes > limit_ - used_) return false;
    used_ += bytes;
    return true;
}

// Payload: block, offset in it, length.
bool PickleHeap::make_text(std::string_view text, Value& out) {
    if (text.size() > kMaxNameLength) {
        out = Value();
        return true;
    }
    if (text.size() > kBlock - block_used_) {
        if (!charge(kBlock)) return false;
        blocks_.push_back(std::make_unique<std::array<char, kBlock>>());
        block_used_ = 0;
    }
    std::uint64_t payload = text.size();
    if (!text.empty()) {
        std::memcpy(blocks_.back()->data() + block_used_, text.data(), text.size());
        payload |= (blocks_.size() - 1) << 32 | block_used_ << 16;
        block_used_ += text.size();
    }
    out = Value::of(Tag::kText, payload);
    return true;
}

std::string_view PickleHeap::text(Value v) const {
    if (v.tag() != Tag::kText) return {};
    const std::size_t length = v.payload() & 0xffff, offset = (v.payload() >> 16) & 0xffff, block = v.payload() >> 32;
    return length == 0 ? std::string_view{} : std::string_view(blocks_[block]->data() + offset, length);
}

bool PickleHeap::make_node(Tag tag, Value& out) {
    if (!charge(sizeof(Node))) return false;
    out = Value::of(tag, nodes_.size());
    nodes_.emplace_back();
    nodes_.back().pairs = tag == Tag::kDict;
    return true;
}

bool PickleHeap::append(Value container, std::span<const Value> items) {
    if (items.empty()) return true;
    if (!charge((items.size() + 1) * sizeof(std::uint64_t))) return false;
    const auto run = static_cast<std::uint32_t>(cells_.size());
    const auto count = static_cast<std::uint32_t>(items.size());
    cells_.push_back(std::bit_cast<std::uint64_t>(Run{0, count}));
    for (Value v : items) cells_.push_back(std::bit_cast<std::uint64_t>(v));
    Node& n = node(container);
    if (n.last == 0) {
        n.first = run;
    } else {
        cells_[n.last] = std::bit_cast<std::uint64_t>(Run{run, run_at(n.last).count});
    }
    n.last = run;
    n.count += count;
    return true;
}

PickleHeap::Run PickleHeap::run_at(std::uint32_t at) const {
    return std::bit_cast<Run>(cells_[at]);
}

bool PickleHeap::next(Cursor& cursor, Value& out) const {
    if (cursor.run == 0) return false;
    Run run = run_at(cursor.run);
    if (cursor.at == run.count) {
        if (run.next == 0) return false;
        cursor = {run.next, 0};
    }
    ++cursor.at;
    out = std::bit_cast<Value>(cells_[cursor.run + cursor.at]);
    return true;
}

Value PickleHeap::item(Value container, std::uint32_t i) const {
    if (container.tag() != Tag::kTuple && container.tag() != Tag::kList) return Value();
    const Node& n = node(container);
    if (i >= n.count) return Value();
    for (std::uint32_t run = n.first; run != 0; run = run_at(run).next) {
        const std::uint32_t count = run_at(run).count;
        if (i < count) return std::bit_cast<Value>(cells_[run + 1 + i]);
        i -= count;
    }
    return Value();
}

}  // namespace coral::formats
