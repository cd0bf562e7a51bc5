// SPDX-License-Identifier: Apache-2.0
#include "vfs/io_mode.hpp"

namespace coral::vfs {

IoState::State IoState::state() const {
    if (cached_ > 0) return State::kCached;
    return binding_ > 0 ? State::kDirect : State::kIdle;
}

IoState::Decision IoState::open(Want want) {
    Decision d;
    d.ticket.open = true;
    bool direct = state() == State::kDirect || (state() == State::kIdle && want == Want::kDirect);
    if (direct) {
        d.ticket.mode = IoMode::kDirect;
        d.ticket.binding = want == Want::kDirect;  // a direct reader binds nobody
        ++direct_;
        if (d.ticket.binding) ++binding_;
        return d;
    }
    ++cached_;
    d.keep_cache = !pages_stale_;
    pages_stale_ = false;  // the kernel drops its pages when it sees this answer
    return d;
}

void IoState::close(Ticket& ticket) {
    if (!ticket.open) return;
    ticket.open = false;
    if (ticket.mode == IoMode::kCached) {
        --cached_;
        return;
    }
    --direct_;
    if (ticket.binding) --binding_;
}

bool IoState::wrote(Ticket& ticket) {
    if (ticket.mode == IoMode::kCached) return false;
    pages_stale_ = true;
    if (!ticket.binding) {
        ticket.binding = true;
        ++binding_;
    }
    return cached_ > 0;
}

void IoState::flushed(Ticket& ticket) {
    if (!ticket.binding) return;
    ticket.binding = false;
    --binding_;
}

}  // namespace coral::vfs
