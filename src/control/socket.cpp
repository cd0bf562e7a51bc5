// SPDX-License-Identifier: Apache-2.0
#include "control/socket.hpp"

#include <errno.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "coral/base/os.hpp"

namespace coral::control {

namespace {

int left_ms(std::int64_t deadline_ns) {
    std::int64_t left = (deadline_ns - monotonic_ns()) / 1'000'000;
    return left < 0 ? 0 : static_cast<int>(left);
}

// Waits for `events`; false when `timeout_ms` (negative: no limit) is over.
Result<bool> wait_for(int fd, short events, int timeout_ms) {
    std::int64_t deadline = monotonic_ns() + static_cast<std::int64_t>(timeout_ms) * 1'000'000;
    while (true) {
        pollfd item{fd, events, 0};
        int n = ::poll(&item, 1, timeout_ms < 0 ? -1 : left_ms(deadline));
        if (n > 0) return true;
        if (n == 0) return false;
        if (errno != EINTR) return errno_error(errno, "poll");
    }
}

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return make_error(Errc::kNameTooLong, fmt::format("{}: too long for a socket", path));
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

Result<UniqueFd> new_socket(int flags) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
    if (!fd) return errno_error(errno, "socket");
    return fd;
}

}  // namespace

UniqueFd::~UniqueFd() {
    if (fd_ >= 0) ::close(fd_);
}

Result<std::string> LineChannel::read_line(int timeout_ms) {
    std::int64_t deadline = monotonic_ns() + static_cast<std::int64_t>(timeout_ms) * 1'000'000;
    std::size_t searched = 0;
    while (true) {
        std::size_t end = pending_.find('\n', searched);
        if (end != std::string::npos && end <= kMaxLine) {
            std::string line = pending_.substr(0, end);
            pending_.erase(0, end + 1);
            return line;
        }
        if (pending_.size() > kMaxLine) return make_error(Errc::kTooLarge, "a line is longer than 16 MiB");
        searched = pending_.size();
        CORAL_TRY(bool ready, wait_for(fd_.get(), POLLIN, timeout_ms < 0 ? -1 : left_ms(deadline)));
        if (!ready) return make_error(Errc::kBusy, fmt::format("the peer says nothing for {} ms", timeout_ms));
        char buffer[64 << 10];
        ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0 && errno != ECONNRESET) return errno_error(errno, "recv");
        if (n <= 0) return make_error(Errc::kNoData, "the peer closed the connection");
        pending_.append(buffer, static_cast<std::size_t>(n));
    }
}

Status LineChannel::write_line(std::string_view text) {
    if (text.size() > kMaxLine) return make_error(Errc::kTooLarge, "a line would be longer than 16 MiB");
    std::string line(text);
    line += '\n';
    std::size_t done = 0;
    while (done < line.size()) {
        // Never SIGPIPE, and never blocked for good by a peer that does not read.
        ssize_t n = ::send(fd_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            done += static_cast<std::size_t>(n);
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return errno_error(errno, "send");
        CORAL_TRY(bool ready, wait_for(fd_.get(), POLLOUT, kPeerTimeoutMs));
        if (!ready) return make_error(Errc::kBusy, "the peer does not read");
    }
    return {};
}

void LineChannel::shut_down() {
    ::shutdown(fd_.get(), SHUT_RDWR);
}

bool LineChannel::wait_closed(int timeout_ms) {
    auto ready = wait_for(fd_.get(), POLLRDHUP, timeout_ms);
    return !ready || *ready;
}

Result<uid_t> LineChannel::peer_uid() const {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return errno_error(errno, "SO_PEERCRED");
    return peer.uid;
}

Result<UniqueFd> listen_at(const std::string& path) {
    CORAL_TRY(sockaddr_un address, address_of(path));
    CORAL_TRY(UniqueFd fd, new_socket(0));
    // Linux takes the file's mode from the socket's: there is no moment at which it is open to others.
    if (::fchmod(fd.get(), 0600) != 0) return errno_error(errno, path);
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return errno_error(errno, path);
    if (::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), 32) != 0) {
        int error = errno;
        ::unlink(path.c_str());
        return errno_error(error, path);
    }
    return fd;
}

Result<UniqueFd> connect_to(const std::string& path, int timeout_ms) {
    CORAL_TRY(sockaddr_un address, address_of(path));
    CORAL_TRY(UniqueFd fd, new_socket(SOCK_NONBLOCK));
    std::int64_t deadline = monotonic_ns() + static_cast<std::int64_t>(timeout_ms) * 1'000'000;
    while (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        // A Unix socket is connected at once, or its backlog is full (EAGAIN): then there is nothing to poll for.
        if (errno != EAGAIN && errno != EINTR) return errno_error(errno, path);
        if (monotonic_ns() > deadline) return make_error(Errc::kBusy, fmt::format("{}: no answer", path));
        ::usleep(20'000);
    }
    return fd;
}

Result<UniqueFd> accept_from(int listener, int wake) {
    while (true) {
        pollfd items[2] = {{listener, POLLIN, 0}, {wake, POLLIN, 0}};
        int n = ::poll(items, 2, -1);
        if (n < 0 && errno != EINTR) return errno_error(errno, "poll");
        if (n <= 0) continue;
        if (items[1].revents) return UniqueFd();
        UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
        if (fd) return fd;
        if (errno == EMFILE || errno == ENFILE) ::usleep(50'000);  // poll would say "ready" again at once
        if (errno == EBADF || errno == EINVAL) return errno_error(errno, "accept");
    }
}

Status make_runtime_dir(const std::string& dir) {
    if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return errno_error(errno, dir);
    struct stat st {};
    if (::lstat(dir.c_str(), &st) != 0) return errno_error(errno, dir);
    // In /tmp anybody could have made it before us.
    if (!S_ISDIR(st.st_mode) || st.st_uid != ::geteuid())
        return make_error(Errc::kAccess, fmt::format("{}: not a directory of this user; remove it", dir));
    if ((st.st_mode & 077) != 0 && ::chmod(dir.c_str(), 0700) != 0) return errno_error(errno, dir);
    return {};
}

void remove_dead_sockets(const std::string& dir) {
    auto names = real_os().list_dir(dir);
    if (!names) return;
    for (const std::string& name : *names) {
        if (!name.ends_with(".sock")) continue;
        std::string path = path_join(dir, name);
        auto address = address_of(path);
        auto fd = new_socket(SOCK_NONBLOCK);
        if (!address || !fd) continue;
        int rc = ::connect(fd->get(), reinterpret_cast<sockaddr*>(&*address), sizeof *address);
        if (rc != 0 && errno == ECONNREFUSED) ::unlink(path.c_str());
    }
}

}  // namespace coral::control
