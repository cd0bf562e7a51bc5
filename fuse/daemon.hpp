// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "mount_options.hpp"
#include "startup.hpp"
#include "worker.hpp"

namespace coral::fuse {

// Serves `repository` at `mount_point` until it is unmounted or told to stop. The exit status of the program.
int run_daemon(const std::string& repository, const std::string& mount_point, const MountOptions& options,
               Starter starter, const std::optional<WorkerArguments>& worker);

}  // namespace coral::fuse
