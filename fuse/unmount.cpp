// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mount_point.hpp"

namespace coral::fuse {

namespace {

// posix_spawn, not fork: the daemon has threads. Its signal mask must not be inherited, nor its silence about SIGPIPE.
Status run_fusermount(const std::string& path, bool lazy) {
    std::string program = "fusermount3", unmount = lazy ? "-uz" : "-u", quiet = "-q", mount_point = path;
    char* arguments[] = {program.data(), unmount.data(), quiet.data(), mount_point.data(), nullptr};
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    pid_t child = 0;
    int error = ::posix_spawnp(&child, program.c_str(), &actions, &attributes, arguments, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error) return errno_error(error, "fusermount3");
    int state = 0;
    while (::waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return {};
    return make_error(Errc::kBusy, fmt::format("{}: in use, or mounted by another user", path));
}

Status unmount(const std::string& path, int flags) {
    if (::umount2(path.c_str(), flags | UMOUNT_NOFOLLOW) == 0) return {};
    // EPERM without root's rights: fusermount3 has them.
    if (errno == EPERM) return run_fusermount(path, flags & MNT_DETACH);
    if (errno == EBUSY)
        return make_error(Errc::kBusy, fmt::format("{}: in use; close what uses it (lsof {})", path, path));
    return errno_error(errno, path);
}

}  // namespace

Status unmount_now(const std::string& path) {
    return unmount(path, 0);
}
Status unmount_lazily(const std::string& path) {
    return unmount(path, MNT_DETACH);
}

}  // namespace coral::fuse
