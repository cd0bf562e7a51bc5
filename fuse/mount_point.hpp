// SPDX-License-Identifier: Apache-2.0
// The directory that is mounted over: what is there now, and whether the kernel lets us.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mount_options.hpp"

namespace coral::fuse {

struct MountEntry {
    std::string device;  // "0:45"
    std::string path, type, source;
};
std::vector<MountEntry> mounted_filesystems();  // /proc/self/mountinfo, later ones lie on top
std::optional<MountEntry> mounted_at(const std::string& path);
// Where the filesystem with this device number is: at `path` if it is there, else wherever it has been moved to.
struct OwnMount {
    std::string path;
    bool covered = false;  // something else is mounted over it: whoever unmounts the path unmounts that
};
std::optional<OwnMount> mount_of_device(const std::string& device, const std::string& path);

// Asked in a process of its own, since a mount whose daemon hangs would hang us too.
struct Probe {
    bool answered = false;  // else: nothing within the time
    int error = 0;          // errno of statfs or stat
    std::uint64_t inode = 0, device = 0;
    bool is_fuse = false;
};
Probe probe_path(const std::string& path, int timeout_ms);

// Absolute, symlinks resolved; works for a dead mount, too.
Result<std::string> resolve_mount_point(const std::string& path);
// Heals a dead mount that is in the way; refuses what must not be covered.
Status prepare_mount_point(const std::string& path, const std::string& repository, const MountOptions& options);
// /dev/fuse, fusermount3, allow_other: errors that name the fix.
Status check_fuse_available(const MountOptions& options);

// Not lazy: kBusy when the mount is in use. Runs fusermount3 without root's rights.
Status unmount_now(const std::string& path);
Status unmount_lazily(const std::string& path);

}  // namespace coral::fuse
