// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "coral/base/os.hpp"
#include "coral/control/protocol.hpp"

namespace coral::control {

namespace {

// sun_path has 108 bytes; "/coral/<pid>-<8 hex>.sock" needs some of them.
constexpr std::size_t kLongestParent = 70;

bool usable(const std::string& dir) {
    if (dir.empty() || dir[0] != '/' || dir.size() > kLongestParent) return false;
    auto st = real_os().stat(dir);
    // Under sudo the variable still names the caller's directory: root's files do not belong there.
    return st && st->type == FileType::kDirectory && st->uid == ::geteuid();
}

}  // namespace

std::string runtime_dir() {
    const char* variable = std::getenv("XDG_RUNTIME_DIR");
    if (variable && usable(variable)) return path_join(variable, "coral");
    std::string run = fmt::format("/run/user/{}", ::geteuid());
    if (usable(run)) return path_join(run, "coral");
    return fmt::format("/tmp/coral-{}", ::geteuid());
}

}  // namespace coral::control
