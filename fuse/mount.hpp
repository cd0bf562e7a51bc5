// SPDX-License-Identifier: Apache-2.0
// What the request handlers know about the mount that they serve.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "coral/vfs/filesystem.hpp"
#include "features.hpp"
#include "late_replies.hpp"

namespace coral::fuse {

struct Mount {
    explicit Mount(vfs::Filesystem& filesystem)
        : fs(filesystem), late_replies([&filesystem] { return filesystem.behind(); }) {}

    vfs::Filesystem& fs;
    LateReplies late_replies;
    Features features;                         // filled by INIT, before any other request
    std::string control_socket;                // user.coral.socket; set before the first request
    std::function<void()> initialised;         // called by INIT; must not block
    std::atomic<std::uint64_t> unanswered{0};  // requests that a handler forgot: bugs, answered with EIO
};

}  // namespace coral::fuse
