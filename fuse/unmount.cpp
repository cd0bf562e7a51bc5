// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "mount_point.hpp"

namespace coral::fuse {

namespace {

// What the other end of the pipe says until it is closed; of much of it the beginning.
std::string read_all(int fd) {
    std::string text;
    char piece[512];
    while (true) {
        ssize_t got = ::read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        if (text.size() < 2048) text.append(piece, static_cast<std::size_t>(got));
    }
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

// posix_spawn, not fork: the daemon has threads. Its signal mask must not be inherited, nor its silence about SIGPIPE.
Result<pid_t> spawn_fusermount(const std::string& path, bool lazy, int error_output) {
    std::string program = "fusermount3", unmount = lazy ? "-uz" : "-u", end = "--", mount_point = path;
    char* arguments[] = {program.data(), unmount.data(), end.data(), mount_point.data(), nullptr};
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, error_output, 2);
    pid_t child = 0;
    int error = ::posix_spawnp(&child, program.c_str(), &actions, &attributes, arguments, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error) return errno_error(error, "fusermount3 (package fuse3)");
    return child;
}

Status run_fusermount(const std::string& path, bool lazy) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error(errno, "pipe");
    auto child = spawn_fusermount(path, lazy, ends[1]);
    ::close(ends[1]);
    std::string said = child ? read_all(ends[0]) : std::string();
    ::close(ends[0]);
    CORAL_CHECK(child);
    int state = 0;
    while (::waitpid(*child, &state, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return {};
    if (said.find(std::strerror(EBUSY)) != std::string::npos)
        return make_error(Errc::kBusy, fmt::format("{}: in use; close what uses it (lsof {})", path, path));
    return make_error(Errc::kIo,
                      fmt::format("{}: not unmounted: {}", path, said.empty() ? "fusermount3 failed" : said));
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
