// SPDX-License-Identifier: Apache-2.0
#include "service_manager.hpp"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <string_view>

#include "coral/base/log.hpp"

namespace coral::fuse {

void tell_service_manager_ready() {
    const char* variable = ::getenv("NOTIFY_SOCKET");
    std::string_view path = variable ? variable : "";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    // A path, or with @ a name in the abstract namespace.
    if (path.size() < 2 || path.size() >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@')) return;
    path.copy(address.sun_path, path.size());
    if (path[0] == '@') address.sun_path[0] = '\0';
    int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    constexpr std::string_view kText = "READY=1";
    auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    if (::sendto(fd, kText.data(), kText.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), length) < 0)
        log_warn("{}: the service manager could not be told: {}", path, ::strerror(errno));
    ::close(fd);
}

}  // namespace coral::fuse
