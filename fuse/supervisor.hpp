// SPDX-License-Identifier: Apache-2.0
// A daemon's death is a pause: the supervisor mounts, holds the connection and what a worker leaves (vfs/handover.hpp),
// and starts a worker that serves. When one dies the next goes on where it stopped.
//
//   starting ──the mount answers──► serving ──exit 0──► ended: the mount is gone
//      │                              │  ▲
//      │ exit, death                  │  └── next worker ◄── died, or asked to be replaced (exit 75)
//      ▼                              ▼
//   failed: unmounted             given up: ten in a row died without an answer, or the kernel cannot send again
//   (before
//                                 Linux 6.9). The connection is closed: clients get ENOTCONN, the mount point stays.
//
// SIGTERM, SIGINT: the worker unmounts and ends. SIGHUP: the worker is replaced by a new process of the program as it
// is on the disk now; if that one does not work, by the program that the supervisor was started from.
#pragma once

#include <string>
#include <vector>

#include "mount_options.hpp"
#include "startup.hpp"

namespace coral::fuse {

// Until the mount is gone. `words` are the options as they were given. The exit status of the program.
int supervise(const std::string& repository, const std::string& mount_point, const MountOptions& options,
              const std::vector<std::string>& words, Starter starter);

}  // namespace coral::fuse
