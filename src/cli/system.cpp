// SPDX-License-Identifier: Apache-2.0
#include "cli/system.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <string_view>

#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

constexpr std::uint64_t kMountTableLimit = 16u << 20;

std::vector<char*> pointers(const std::string& path, const std::vector<std::string>& arguments) {
    std::vector<char*> out{const_cast<char*>(path.c_str())};
    for (const std::string& argument : arguments) out.push_back(const_cast<char*>(argument.c_str()));
    out.push_back(nullptr);
    return out;
}

// mountinfo writes blanks and backslashes as \040.
std::string unescaped(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        auto digit = [&](std::size_t n) { return i + n < text.size() && text[i + n] >= '0' && text[i + n] <= '7'; };
        if (text[i] == '\\' && digit(1) && digit(2) && digit(3)) {
            out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

std::vector<std::string_view> words_of(std::string_view line) {
    std::vector<std::string_view> words;
    while (!line.empty()) {
        std::size_t end = std::min(line.find(' '), line.size());
        words.push_back(line.substr(0, end));
        line.remove_prefix(std::min(end + 1, line.size()));
    }
    return words;
}

}  // namespace

bool is_terminal(Stream stream) {
    return ::isatty(static_cast<int>(stream)) == 1;
}

std::size_t terminal_width() {
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
    return 80;
}

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

Result<std::string> current_dir() {
    char* dir = ::getcwd(nullptr, 0);
    if (!dir) return errno_error(errno, "the current directory");
    std::string out = dir;
    std::free(dir);
    return out;
}

Status change_dir(const std::string& dir) {
    if (::chdir(dir.c_str()) != 0) return errno_error(errno, dir);
    return {};
}

std::string own_program() {
    char path[PATH_MAX];
    ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0 || static_cast<std::size_t>(length) >= sizeof path) return {};
    return std::string(path, static_cast<std::size_t>(length));
}

Result<std::optional<std::string>> get_xattr(const std::string& path, const char* name) {
    std::string value(64u << 10, '\0');  // the most an attribute can hold
    ssize_t length = ::getxattr(path.c_str(), name, value.data(), value.size());
    if (length >= 0) {
        value.resize(static_cast<std::size_t>(length));
        return std::optional<std::string>(std::move(value));
    }
    if (errno == ENODATA || errno == EOPNOTSUPP || errno == ENOSYS) return std::optional<std::string>();
    if (errno == ENOTCONN) {
        return make_error(Errc::kIo, fmt::format("{}: the daemon of this mount is gone; `coral mount` it again, or "
                                                 "`coral umount` it",
                                                 path));
    }
    return errno_error(errno, path);
}

Error exec_program(const std::string& path, const std::vector<std::string>& arguments) {
    ::execv(path.c_str(), pointers(path, arguments).data());
    return errno_error(errno, path);
}

Result<int> run_program(const std::string& path, const std::vector<std::string>& arguments) {
    std::vector<char*> words = pointers(path, arguments);
    pid_t child = ::fork();
    if (child < 0) return errno_error(errno, path);
    if (child == 0) {
        ::execv(path.c_str(), words.data());
        ::_exit(127);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return errno_error(errno, path);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string find_program(const std::string& name) {
    std::string path = environment("PATH");
    if (path.empty()) path = "/usr/local/bin:/usr/bin:/bin";
    for (std::string_view rest = path;;) {
        std::size_t colon = rest.find(':');
        std::string candidate = path_join(rest.substr(0, colon), name);
        if (candidate.front() == '/' && ::access(candidate.c_str(), X_OK) == 0) return candidate;
        if (colon == std::string_view::npos) return {};
        rest.remove_prefix(colon + 1);
    }
}

Result<std::vector<Mount>> mounts() {
    CORAL_TRY(std::string table, read_file(real_os(), "/proc/self/mountinfo", kMountTableLimit));
    std::vector<Mount> out;
    for (std::string_view rest = table; !rest.empty();) {
        std::size_t end = std::min(rest.find('\n'), rest.size());
        std::vector<std::string_view> words = words_of(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
        // … (5) mount point (6) options, optional fields, "-", type, source, options.
        for (std::size_t i = 6; i + 2 < words.size(); ++i) {
            if (words[i] != "-") continue;
            out.push_back({unescaped(words[4]), std::string(words[i + 1]), unescaped(words[i + 2])});
            break;
        }
    }
    return out;
}

Status unmount(const std::string& point, bool lazy) {
    if (::umount2(point.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) != 0) return errno_error(errno, point);
    return {};
}

bool process_alive(std::uint32_t pid) {
    auto stat = read_file(real_os(), fmt::format("/proc/{}/stat", pid), 4096);
    if (!stat) return false;
    // "pid (name) S …": the name may hold anything, so look behind its last bracket.
    std::size_t bracket = stat->rfind(')');
    return bracket == std::string::npos || bracket + 2 >= stat->size() || (*stat)[bracket + 2] != 'Z';
}

}  // namespace coral::cli
