// SPDX-License-Identifier: Apache-2.0
// The stack machine of pickle, see pickle.hpp. Work is linear in the opcodes, memory is charged to the heap.
#pragma once

#include <string>

#include "formats/pickle.hpp"

namespace coral::formats {

class PickleMachine {
  public:
    PickleMachine(TorchPickle& out, SourceReader& reader) : out_(out), heap_(out.heap_), reader_(reader) {}

    // Runs to STOP. False when it had to end before; either way the roots are set.
    bool run();

  private:
    // kOther: not an opcode of this group.
    enum class Step { kNext, kStop, kFail, kOther };
    static Step step(bool ok) { return ok ? Step::kNext : Step::kFail; }

    Step dispatch(int op);
    Step constant(int op);
    Step text_or_bytes(int op);
    Step build_container(int op);
    Step fill_container(int op);
    Step stack_or_memo(int op);
    Step call_or_global(int op);

    template <std::unsigned_integral T>
    bool read_number(T& out);
    bool read_line(std::string& out);
    bool push_long(std::uint64_t length);
    bool push_text(std::uint64_t length);
    bool push_bytes(std::uint64_t length);

    bool push(Value v);
    bool pop(Value& out);
    bool top(Value& out) const;
    std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
    bool push_mark();
    bool push_container(Tag tag, std::size_t items);  // from the top of the stack
    bool push_marked(Tag tag);                        // from everything above the last mark
    bool append_marked(bool pairs);
    bool takes_items(Value target, bool pairs);
    bool append_to_top(std::size_t items, bool pairs);
    bool put(std::uint64_t slot);
    bool get(std::uint64_t slot);
    void close_marks();

    // pickle_torch.cpp
    bool push_persistent(Value id);
    bool push_call(Value callable, Value arguments);
    bool push_tensor(Global kind, Value arguments);
    bool push_object(Value arguments, Value state);

    TorchPickle& out_;
    PickleHeap& heap_;
    SourceReader& reader_;
    std::vector<Value> stack_;
    std::vector<std::uint32_t> marks_;  // sizes of the stack
    std::size_t paid_stack_ = 0, paid_marks_ = 0;
    std::deque<Value> memo_;
    std::string module_, name_;
};

}  // namespace coral::formats
