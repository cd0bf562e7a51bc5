// SPDX-License-Identifier: Apache-2.0
#include "vfs/io_mode.hpp"

namespace coral::vfs {

IoState::State IoState::state() const {
    if (preparing_) return State::kPreparing;
    if (passthrough_ > 0) return State::kPassthrough;
    if (cached_ > 0) return State::kCached;
    return binding_ > 0 ? State::kDirect : State::kIdle;
}

IoState::Decision IoState::open(Want want) {
    Decision d;
    d.ticket.open = true;
    if (want == Want::kDirectUnlessPages) want = was_cached_ ? Want::kCached : Want::kDirect;
    bool direct = state() == State::kDirect || (state() == State::kIdle && want == Want::kDirect);
    if (direct) {
        d.ticket.mode = IoMode::kDirect;
        d.ticket.binding = want == Want::kDirect;  // a direct reader binds nobody
        ++direct_;
        if (d.ticket.binding) ++binding_;
        return d;
    }
    ++cached_;
    was_cached_ = true;
    d.keep_cache = !pages_stale_;
    pages_stale_ = false;  // the kernel drops its pages when it sees this answer
    return d;
}

bool IoState::may_begin_passthrough() const {
    return state() == State::kIdle && direct_ == 0;
}

IoState::Ticket IoState::passthrough_ready(bool writable) {
    preparing_ = false;
    ++passthrough_;
    if (writable) pages_stale_ = true;
    Ticket ticket;
    ticket.mode = IoMode::kPassthrough;
    ticket.open = true;
    return ticket;
}

IoState::Ticket IoState::resume(IoMode mode, bool writable) {
    if (mode == IoMode::kPassthrough) return passthrough_ready(writable);
    Ticket ticket;
    ticket.mode = mode;
    ticket.open = true;
    ticket.binding = mode == IoMode::kDirect && writable;
    if (mode == IoMode::kCached) {
        ++cached_;
        was_cached_ = true;
    } else {
        ++direct_;
    }
    if (ticket.binding) ++binding_;
    return ticket;
}

void IoState::close(Ticket& ticket) {
    if (!ticket.open) return;
    ticket.open = false;
    if (ticket.mode == IoMode::kPassthrough) {
        --passthrough_;
        return;
    }
    if (ticket.mode == IoMode::kCached) {
        --cached_;
        return;
    }
    --direct_;
    if (ticket.binding) --binding_;
}

bool IoState::wrote(Ticket& ticket) {
    if (ticket.mode != IoMode::kDirect) return false;
    pages_stale_ = true;
    if (!ticket.binding) {
        ticket.binding = true;
        ++binding_;
    }
    return cached_ > 0;
}

std::string_view to_string(IoState::State state) {
    switch (state) {
        case IoState::State::kCached:
            return "cached";
        case IoState::State::kDirect:
            return "direct";
        case IoState::State::kPreparing:
        case IoState::State::kPassthrough:
            return "passthrough";
        case IoState::State::kIdle:
            break;
    }
    return "idle";
}

void IoState::flushed(Ticket& ticket) {
    if (!ticket.binding) return;
    ticket.binding = false;
    --binding_;
}

}  // namespace coral::vfs
