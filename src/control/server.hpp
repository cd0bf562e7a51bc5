// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>

#include "coral/control/protocol.hpp"

namespace coral::control {

// The daemon's own user and root.
constexpr bool may_connect(uid_t peer, uid_t owner) {
    return peer == owner || peer == 0;
}

// Server::start, for the daemon of `owner`: tests play somebody else's without root's rights.
Result<std::unique_ptr<Server>> start_server_of(uid_t owner, Service& service, const Listener& inherited = {});

}  // namespace coral::control
