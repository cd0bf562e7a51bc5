// SPDX-License-Identifier: Apache-2.0
#include "mount_point.hpp"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <sstream>

#include "coral/base/log.hpp"
#include "coral/base/os.hpp"

namespace coral::fuse {

namespace {

constexpr long kFuseMagic = 0x65735546;
constexpr int kProbeMs = 5000;
constexpr int kMostStacked = 8;

// The kernel writes space, tab, newline and backslash as \ooo.
std::string unescape_octal(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '3') {
            out += static_cast<char>((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 | (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

bool is_dead(int error) {
    return error == ENOTCONN || error == ECONNABORTED;
}

// Only calls that are safe after a fork.
[[noreturn]] void probe_child(const char* path, int out) {
    Probe result;
    struct stat st {};
    struct statfs fs {};
    result.answered = true;
    // statfs is never answered from the kernel's cache, as a stat of a dead mount's root may be.
    if (::statfs(path, &fs) != 0 || ::stat(path, &st) != 0) {
        result.error = errno;
    } else {
        result.inode = st.st_ino;
        result.device = st.st_dev;
        result.is_fuse = fs.f_type == kFuseMagic;
    }
    (void)!::write(out, &result, sizeof result);
    ::_exit(0);
}

Status refuse_live_mount(const MountEntry& top, const std::string& path, const std::string& repository,
                         const MountOptions& options) {
    if (top.type != "fuse.coral") return {};  // anything else may be covered, as with any mount
    if (top.source == source_name(options, repository))
        return make_error(
            Errc::kExists,
            fmt::format("{}: {} is mounted there already; use it as it is, or unmount it first with: coral umount {}",
                        path, top.source, path));
    return make_error(Errc::kBusy, fmt::format("{}: {} is mounted there; unmount it first with: coral umount {}", path,
                                               top.source, path));
}

Status heal(const std::string& path, const std::string& repository, const MountOptions& options) {
    for (int i = 0; i < kMostStacked; ++i) {
        auto top = mounted_at(path);
        if (!top || !top->type.starts_with("fuse")) return {};
        Probe probe = probe_path(path, kProbeMs);
        if (!probe.answered)
            return make_error(Errc::kBusy, fmt::format("{}: the {} mount there does not answer; end its daemon, or "
                                                       "force it away with: umount -l {}",
                                                       path, top->type, path));
        if (!is_dead(probe.error)) return refuse_live_mount(*top, path, repository, options);
        log_info("{}: a dead mount of {} is there (its daemon was killed); unmounting it", path, top->source);
        CORAL_CHECK(unmount_lazily(path));
    }
    return make_error(Errc::kBusy, fmt::format("{}: too many dead mounts on top of each other", path));
}

Status check_directory(const std::string& path, const MountOptions& options) {
    auto st = real_os().stat(path);
    if (!st) return std::move(st).error();
    if (st->type != FileType::kDirectory)
        return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", path));
    if (options.nonempty) return {};
    auto names = real_os().list_dir(path);
    if (names && !names->empty())
        return make_error(Errc::kNotEmpty,
                          fmt::format("{}: not empty, and its files would be hidden; choose another directory or mount "
                                      "with -o nonempty",
                                      path));
    return {};
}

bool config_allows_other() {
    std::ifstream file("/etc/fuse.conf");
    std::string line;
    while (std::getline(file, line)) {
        auto begin = line.find_first_not_of(" \t");
        if (begin == std::string::npos || line[begin] == '#') continue;
        auto end = line.find_last_not_of(" \t\r");
        if (line.substr(begin, end - begin + 1) == "user_allow_other") return true;
    }
    return false;
}

bool in_path(const std::string& program) {
    const char* variable = ::getenv("PATH");
    std::istringstream path(variable ? variable : "/usr/bin:/bin");
    std::string dir;
    while (std::getline(path, dir, ':')) {
        if (::access(path_join(dir, program).c_str(), X_OK) == 0) return true;
    }
    return ::access(("/usr/bin/" + program).c_str(), X_OK) == 0;
}

}  // namespace

std::vector<MountEntry> mounted_filesystems() {
    std::vector<MountEntry> out;
    std::ifstream file("/proc/self/mountinfo");
    std::string line;
    while (std::getline(file, line)) {
        std::istringstream fields(line);
        std::string id, parent, device, root, path, word;
        fields >> id >> parent >> device >> root >> path;
        while (fields >> word && word != "-") {
        }
        std::string type, source;
        fields >> type >> source;
        out.push_back({device, unescape_octal(path), type, unescape_octal(source)});
    }
    return out;
}

std::optional<MountEntry> mounted_at(const std::string& path) {
    std::optional<MountEntry> top;
    for (MountEntry& entry : mounted_filesystems()) {
        if (entry.path == path) top = std::move(entry);
    }
    return top;
}

std::optional<OwnMount> mount_of_device(const std::string& device, const std::string& path) {
    std::map<std::string, std::string> top;  // of each path, its device
    std::optional<OwnMount> found;
    for (const MountEntry& entry : mounted_filesystems()) {
        top[entry.path] = entry.device;
        if (entry.device == device && (!found || found->path != path)) found = OwnMount{entry.path};
    }
    if (found) found->covered = top[found->path] != device;
    return found;
}

Probe probe_path(const std::string& path, int timeout_ms) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {};
    pid_t child = ::fork();
    if (child == 0) probe_child(path.c_str(), ends[1]);
    ::close(ends[1]);
    Probe result;
    if (child > 0) {
        pollfd item{ends[0], POLLIN, 0};
        int ready;
        do ready = ::poll(&item, 1, timeout_ms);
        while (ready < 0 && errno == EINTR);
        Probe read_result;
        if (ready > 0 && ::read(ends[0], &read_result, sizeof read_result) == sizeof read_result) result = read_result;
        ::kill(child, SIGKILL);
        // A child that hangs in the kernel cannot be waited for; it goes when its mount does.
        for (int i = 0; i < 50 && ::waitpid(child, nullptr, WNOHANG) == 0; ++i) ::usleep(2000);
    }
    ::close(ends[0]);
    return result;
}

Result<std::string> resolve_mount_point(const std::string& path) {
    std::string plain = path;
    while (plain.size() > 1 && plain.back() == '/') plain.pop_back();
    auto whole = absolute_path(plain);
    if (whole) return whole;
    // A dead mount refuses even lstat: resolve what lies above it.
    std::string name = path_name(plain);
    if (name.empty() || name == "." || name == "..") return whole;
    std::string above = path_parent(plain);
    CORAL_TRY(std::string parent, absolute_path(above.empty() ? "." : above));
    return path_join(parent, name);
}

namespace {

// What the flag i of chattr(1) says holds for root, too, and mounting over the folder is no change of it.
Status guard(const std::string& path) {
    const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return errno_error(errno, path);
    int flags = 0;
    const bool done =
        ::ioctl(folder, FS_IOC_GETFLAGS, &flags) == 0 &&
        ((flags & FS_IMMUTABLE_FL) || (flags |= FS_IMMUTABLE_FL, ::ioctl(folder, FS_IOC_SETFLAGS, &flags) == 0));
    const int error = errno;
    ::close(folder);
    if (done) return {};
    const bool permission = error == EPERM || error == EACCES;
    return make_error(permission ? Errc::kPermission : Errc::kUnsupported,
                      fmt::format("guard: {}: {}; {}", path,
                                  permission ? "only root can make a folder unchangeable"
                                             : "the filesystem of this folder cannot make it unchangeable",
                                  "mount without this option"));
}

}  // namespace

Status prepare_mount_point(const std::string& path, const std::string& repository, const MountOptions& options) {
    CORAL_CHECK(heal(path, repository, options));
    // The daemon opens the repository's files by path: covered by its own mount it would wait for itself.
    if (repository == path || repository.starts_with(path == "/" ? path : path + "/"))
        return make_error(Errc::kInvalid,
                          fmt::format("{}: the repository {} lies in it and would be hidden; choose another directory",
                                      path, repository));
    CORAL_CHECK(check_directory(path, options));
    return options.guard ? guard(path) : Status();
}

Status check_fuse_available(const MountOptions& options) {
    int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        if (error == ENOENT || error == ENODEV || error == ENXIO)
            return make_error(
                Errc::kNotFound,
                "/dev/fuse: not there; load the kernel module with: sudo modprobe fuse (in a container: run "
                "it with --device /dev/fuse)");
        if (error == EACCES || error == EPERM)
            return make_error(
                Errc::kAccess,
                "/dev/fuse: closed to this user; open it with: sudo chmod 666 /dev/fuse (what Debian's udev "
                "rule does)");
        return errno_error(error, "/dev/fuse");
    }
    ::close(fd);
    bool root = ::geteuid() == 0;
    if ((!root || options.auto_unmount) && !in_path("fusermount3"))
        return make_error(Errc::kNotFound, "fusermount3: not found; install it with: sudo apt install fuse3");
    if (!root && (options.allow_other || options.allow_root) && !config_allows_other())
        return make_error(
            Errc::kPermission,
            "allow_other: only root may let others in, unless /etc/fuse.conf has a line user_allow_other");
    if (options.allow_other && options.allow_root)
        return make_error(Errc::kInvalid, "allow_other and allow_root exclude each other");
    return {};
}

}  // namespace coral::fuse
