// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "coral/control/protocol.hpp"

namespace coral::control {

// A client, if the daemon behind `socket_path` owns this very worktree.
Result<std::unique_ptr<Client>> connect_as_owner(const std::string& socket_path, const std::string& branch,
                                                 const Uuid& worktree);

}  // namespace coral::control
