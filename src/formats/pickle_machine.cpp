// SPDX-License-Identifier: Apache-2.0
#include "formats/pickle_machine.hpp"

#include <array>

#include "formats/limits.hpp"

namespace coral::formats {

namespace {

// A pickler numbers its memo from 0 without gaps. A gap this long is a lie that would only cost memory.
constexpr std::uint64_t kMaxMemoGap = 1024;
constexpr std::size_t kMaxLine = 256;

}  // namespace

bool PickleMachine::run() {
    Step result = Step::kNext;
    for (std::uint64_t ops = 0; result == Step::kNext && ops < kMaxPickleOps; ++ops) result = dispatch(reader_.get());
    if (result == Step::kStop && stack_.size() > floor()) {
        out_.roots_.assign(1, stack_.back());
        return true;
    }
    close_marks();
    out_.roots_ = std::move(stack_);
    return false;
}

PickleMachine::Step PickleMachine::dispatch(int op) {
    if (op == '.') return Step::kStop;
    if (op == 0x80) return step(reader_.skip(1));  // PROTO
    if (op == 0x95) return step(reader_.skip(8));  // FRAME
    for (auto group :
         {&PickleMachine::stack_or_memo, &PickleMachine::constant, &PickleMachine::text_or_bytes,
          &PickleMachine::build_container, &PickleMachine::fill_container, &PickleMachine::call_or_global}) {
        Step result = (this->*group)(op);
        if (result != Step::kOther) return result;
    }
    return Step::kFail;  // the end of the bytes, or an opcode of protocol 0, which torch never wrote
}

template <std::unsigned_integral T>
bool PickleMachine::read_number(T& out) {
    std::array<std::byte, sizeof(T)> raw;
    if (!reader_.read(raw)) return false;
    out = load_le<T>(raw.data());
    return true;
}

// Up to the line feed; what is longer than any name that matters is cut.
bool PickleMachine::read_line(std::string& out) {
    out.clear();
    for (int c = reader_.get(); c != '\n'; c = reader_.get()) {
        if (c == SourceReader::kEnd) return false;
        if (out.size() < kMaxLine) out.push_back(static_cast<char>(c));
    }
    return true;
}

PickleMachine::Step PickleMachine::constant(int op) {
    std::uint8_t n8 = 0;
    std::uint16_t n16 = 0;
    std::uint32_t n32 = 0;
    switch (op) {
        case 'N':
            return step(push(Value::of(Tag::kNone)));
        case 0x88:
            return step(push(Value::of(Tag::kBool, 1)));
        case 0x89:
            return step(push(Value::of(Tag::kBool, 0)));
        case 'K':
            return step(read_number(n8) && push(Value::integer(n8)));  // BININT1
        case 'M':
            return step(read_number(n16) && push(Value::integer(n16)));  // BININT2
        case 'J':
            return step(read_number(n32) && push(Value::integer(static_cast<std::int32_t>(n32))));  // BININT
        case 'G':
            return step(reader_.skip(8) && push(Value()));  // BINFLOAT
        case 0x8a:
            return step(read_number(n8) && push_long(n8));  // LONG1
        case 0x8b:
            return step(read_number(n32) && push_long(n32));  // LONG4
        default:
            return Step::kOther;
    }
}

PickleMachine::Step PickleMachine::text_or_bytes(int op) {
    std::uint8_t n8 = 0;
    std::uint32_t n32 = 0;
    std::uint64_t n64 = 0;
    switch (op) {
        case 'U':  // SHORT_BINSTRING: Python 2's str
        case 0x8c:
            return step(read_number(n8) && push_text(n8));  // SHORT_BINUNICODE
        case 'T':                                           // BINSTRING
        case 'X':
            return step(read_number(n32) && push_text(n32));  // BINUNICODE
        case 0x8d:
            return step(read_number(n64) && push_text(n64));  // BINUNICODE8
        case 'C':
            return step(read_number(n8) && push_bytes(n8));  // SHORT_BINBYTES
        case 'B':
            return step(read_number(n32) && push_bytes(n32));  // BINBYTES
        case 0x8e:                                             // BINBYTES8
        case 0x96:
            return step(read_number(n64) && push_bytes(n64));  // BYTEARRAY8
        default:
            return Step::kOther;
    }
}

// Two's complement, little-endian.
bool PickleMachine::push_long(std::uint64_t length) {
    if (length > 8) return push_bytes(length);
    std::array<std::byte, 8> raw{};
    if (!reader_.read(MutableBytes(raw).first(static_cast<std::size_t>(length)))) return false;
    auto bits = load_le<std::uint64_t>(raw.data());
    if (length == 0) return push(Value::integer(0));
    const auto unused = static_cast<unsigned>(64 - 8 * length);
    return push(Value::integer(static_cast<std::int64_t>(bits << unused) >> unused));
}

bool PickleMachine::push_text(std::uint64_t length) {
    if (length > kMaxNameLength) return push_bytes(length);
    std::array<char, kMaxNameLength> raw;
    const auto n = static_cast<std::size_t>(length);
    Value v;
    return reader_.read(std::as_writable_bytes(std::span(raw.data(), n))) && heap_.make_text({raw.data(), n}, v) &&
           push(v);
}

bool PickleMachine::push_bytes(std::uint64_t length) {
    return reader_.skip(length) && push(Value());
}

PickleMachine::Step PickleMachine::build_container(int op) {
    switch (op) {
        case '(':
            return step(push_mark());
        case ')':
            return step(push_container(Tag::kTuple, 0));
        case ']':
            return step(push_container(Tag::kList, 0));
        case '}':
            return step(push_container(Tag::kDict, 0));
        case 0x8f:
            return step(push_container(Tag::kList, 0));  // EMPTY_SET
        case 0x85:
            return step(push_container(Tag::kTuple, 1));  // TUPLE1
        case 0x86:
            return step(push_container(Tag::kTuple, 2));  // TUPLE2
        case 0x87:
            return step(push_container(Tag::kTuple, 3));  // TUPLE3
        case 't':
            return step(push_marked(Tag::kTuple));
        case 'l':
            return step(push_marked(Tag::kList));
        case 'd':
            return step(push_marked(Tag::kDict));
        case 0x91:
            return step(push_marked(Tag::kList));  // FROZENSET
        default:
            return Step::kOther;
    }
}

PickleMachine::Step PickleMachine::fill_container(int op) {
    switch (op) {
        case 'a':
            return step(append_to_top(1, false));  // APPEND
        case 's':
            return step(append_to_top(2, true));  // SETITEM
        case 'u':
            return step(append_marked(true));  // SETITEMS
        case 'e':                              // APPENDS
        case 0x90:
            return step(append_marked(false));  // ADDITEMS
        case 'b': {                             // BUILD
            Value state, target;
            if (!pop(state) || !top(target)) return Step::kFail;
            if (target.is_container() && target.tag() != Tag::kTuple) heap_.node(target).state = state;
            return Step::kNext;
        }
        default:
            return Step::kOther;
    }
}

PickleMachine::Step PickleMachine::stack_or_memo(int op) {
    std::uint8_t n8 = 0;
    std::uint32_t n32 = 0;
    Value v;
    switch (op) {
        case 'q':
            return step(read_number(n8) && put(n8));  // BINPUT
        case 'r':
            return step(read_number(n32) && put(n32));  // LONG_BINPUT
        case 0x94:
            return step(put(memo_.size()));  // MEMOIZE
        case 'h':
            return step(read_number(n8) && get(n8));  // BINGET
        case 'j':
            return step(read_number(n32) && get(n32));  // LONG_BINGET
        case '2':
            return step(top(v) && push(v));  // DUP
        case '0':                            // POP, which also drops a mark
            if (stack_.size() > floor()) return step(pop(v));
            [[fallthrough]];
        case '1':  // POP_MARK
            if (marks_.empty()) return Step::kFail;
            stack_.resize(floor());
            marks_.pop_back();
            return Step::kNext;
        default:
            return Step::kOther;
    }
}

PickleMachine::Step PickleMachine::call_or_global(int op) {
    Value a, b, c;
    switch (op) {
        case 'c':  // GLOBAL
            return step(read_line(module_) && read_line(name_) && push(resolve_global(module_, name_)));
        case 0x93:  // STACK_GLOBAL
            return step(pop(b) && pop(a) && push(resolve_global(heap_.text(a), heap_.text(b))));
        case 'R':  // REDUCE
        case 0x81:
            return step(pop(b) && pop(a) && push_call(a, b));  // NEWOBJ
        case 0x92:
            return step(pop(c) && pop(b) && pop(a) && push_object(b, c));  // NEWOBJ_EX
        case 'Q':
            return step(pop(a) && push_persistent(a));  // BINPERSID
        default:
            return Step::kOther;
    }
}

bool PickleMachine::push(Value v) {
    if (stack_.size() == paid_stack_) {
        if (!heap_.charge(2 * sizeof v)) return false;  // a vector doubles
        ++paid_stack_;
    }
    stack_.push_back(v);
    return true;
}

bool PickleMachine::pop(Value& out) {
    if (!top(out)) return false;
    stack_.pop_back();
    return true;
}

bool PickleMachine::top(Value& out) const {
    if (stack_.size() == floor()) return false;
    out = stack_.back();
    return true;
}

bool PickleMachine::push_mark() {
    if (marks_.size() == paid_marks_) {
        if (!heap_.charge(2 * sizeof(std::uint32_t))) return false;
        ++paid_marks_;
    }
    marks_.push_back(static_cast<std::uint32_t>(stack_.size()));
    return true;
}

bool PickleMachine::push_container(Tag tag, std::size_t items) {
    if (stack_.size() - floor() < items) return false;
    Value container;
    if (!heap_.make_node(tag, container)) return false;
    if (!heap_.append(container, std::span(stack_).last(items))) return false;
    stack_.resize(stack_.size() - items);
    return push(container);
}

bool PickleMachine::push_marked(Tag tag) {
    if (marks_.empty()) return false;
    const std::size_t items = stack_.size() - floor();
    if (tag == Tag::kDict && items % 2 != 0) return false;
    if (!push_container(tag, items)) return false;
    marks_.pop_back();
    return true;
}

bool PickleMachine::append_marked(bool pairs) {
    if (marks_.empty()) return false;
    const std::size_t items = stack_.size() - floor();
    marks_.pop_back();
    return append_to_top(items, pairs);
}

// Whether `target` takes items, of that kind. An object (a subclass of list or dict) becomes what its first items are.
bool PickleMachine::takes_items(Value target, bool pairs) {
    if (target.tag() != Tag::kList && target.tag() != Tag::kDict && target.tag() != Tag::kObject) return false;
    Node& node = heap_.node(target);
    if (target.tag() == Tag::kObject && node.count == 0) node.pairs = pairs;
    return node.pairs == pairs;
}

// Adds the last `items` values to what lies below them. What takes no items swallows them.
bool PickleMachine::append_to_top(std::size_t items, bool pairs) {
    if (stack_.size() - floor() < items + 1 || (pairs && items % 2 != 0)) return false;
    Value target = stack_[stack_.size() - items - 1];
    if (takes_items(target, pairs) && !heap_.append(target, std::span(stack_).last(items))) return false;
    stack_.resize(stack_.size() - items);
    return true;
}

bool PickleMachine::put(std::uint64_t slot) {
    Value v;
    if (!top(v) || slot > memo_.size() + kMaxMemoGap) return false;
    if (slot >= memo_.size()) {
        if (!heap_.charge(static_cast<std::size_t>(slot + 1 - memo_.size()) * sizeof v)) return false;
        memo_.resize(static_cast<std::size_t>(slot) + 1);
    }
    memo_[static_cast<std::size_t>(slot)] = v;
    return true;
}

bool PickleMachine::get(std::uint64_t slot) {
    return slot < memo_.size() && push(memo_[static_cast<std::size_t>(slot)]);
}

// After an early end: as if every open container were closed here, so that what is in them has a path.
void PickleMachine::close_marks() {
    heap_.open_reserve();
    while (!marks_.empty()) {
        std::size_t items = stack_.size() - floor();
        const std::size_t below = floor();
        marks_.pop_back();
        const Value target = below > floor() ? stack_[below - 1] : Value();
        const bool pairs = target.tag() == Tag::kDict || target.tag() == Tag::kObject;
        if (!pairs && target.tag() != Tag::kList) {
            if (!push_container(Tag::kTuple, items)) return;
            continue;
        }
        if (pairs && items % 2 != 0) {
            stack_.pop_back();
            --items;
        }
        if (!append_to_top(items, pairs)) return;
    }
}

}  // namespace coral::formats
