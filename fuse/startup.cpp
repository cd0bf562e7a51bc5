// SPDX-License-Identifier: Apache-2.0
#include "startup.hpp"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "coral/base/log.hpp"
#include "coral/base/os.hpp"
#include "mount_point.hpp"

namespace coral::fuse {

namespace {

constexpr int kStartMs = 30'000;
constexpr char kReady = 'R', kFailed = 'E';

const char* program_name = "coralfs";  // as the user knows it; set before there is any thread

int left_ms(std::int64_t deadline_ns) {
    std::int64_t left = (deadline_ns - monotonic_ns()) / 1'000'000;
    return left < 0 ? 0 : static_cast<int>(left);
}

// All that the child has to say: until it closes the pipe, has said that it is ready, or time is over.
std::string listen(int fd, std::int64_t deadline, bool& timed_out) {
    std::string text;
    char buffer[4096];
    while (text.empty() || text[0] != kReady) {
        pollfd item{fd, POLLIN, 0};
        int n = ::poll(&item, 1, left_ms(deadline));
        if (n < 0 && errno == EINTR) continue;
        timed_out = n == 0;
        if (n <= 0) break;
        ssize_t got = ::read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
}

[[noreturn]] void fail(const std::string& message) {
    print_error(message);
    ::_exit(1);
}

// A mount that failed is gone, and nobody is left of it, when its error is told.
void wait_for_end(pid_t child) {
    for (int i = 0; i < 500 && ::waitpid(child, nullptr, WNOHANG) == 0; ++i) ::usleep(10'000);
}

[[noreturn]] void wait_for_daemon(int fd, pid_t child, const std::string& mount_point) {
    std::int64_t deadline = monotonic_ns() + static_cast<std::int64_t>(kStartMs) * 1'000'000;
    bool timed_out = false;
    std::string text = listen(fd, deadline, timed_out);
    if (!text.empty() && text[0] == kFailed) {
        wait_for_end(child);
        fail(text.substr(1));
    }
    if (timed_out)
        fail(
            fmt::format("the daemon (process {}) is not ready after 30 s; see run/coralfs.log in the "
                        "repository",
                        child));
    if (text.empty()) fail("the daemon ended before it was ready; see run/coralfs.log in the repository");
    Probe probe = probe_path(mount_point, std::max(left_ms(deadline), 1000));
    if (!probe.answered || probe.error != 0 || !probe.is_fuse || probe.inode != 1)
        fail(fmt::format("the mount at {} does not answer; see run/coralfs.log in the repository", mount_point));
    ::_exit(0);
}

void redirect(int fd, int flags) {
    int null = ::open("/dev/null", flags | O_CLOEXEC);
    if (null < 0) return;
    ::dup2(null, fd);
    if (null != fd) ::close(null);
}

sigset_t termination_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::sigaddset(&set, SIGINT);
    ::sigaddset(&set, SIGHUP);
    return set;
}

}  // namespace

void called_by_coral() {
    program_name = "coral";
}

bool is_called_by_coral() {
    return std::string_view(program_name) == "coral";
}

void print_error(const std::string& message) {
    std::string line = fmt::format("{}: error: {}\n", program_name, message);
    // Paths are what strangers named them: a line stays a line, and no terminal is told anything.
    for (char& c : line) {
        if (static_cast<unsigned char>(c) < 0x20 && &c != &line.back()) c = '?';
    }
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
}

void Starter::report_failure(const std::string& message) {
    if (fd_ < 0) return print_error(message);
    std::string text = kFailed + message;
    (void)!::write(fd_, text.data(), text.size());
    ::close(std::exchange(fd_, -1));
}

void Starter::report_ready() {
    if (fd_ < 0) return;
    redirect(1, O_WRONLY);
    redirect(2, O_WRONLY);
    (void)!::write(fd_, &kReady, 1);
    leave_to_another();
}

// A caller that reads our output until its end must not wait for the daemon's.
void Starter::leave_to_another() {
    redirect(1, O_WRONLY);
    redirect(2, O_WRONLY);
    ::close(std::exchange(fd_, -1));
}

std::string log_path_of(const std::string& repository) {
    std::string run = path_join(repository, "run");
    if (!real_os().exists(run)) (void)real_os().make_dir(run);
    return path_join(run, "coralfs.log");
}

Result<Starter> go_to_background(const std::string& mount_point) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error(errno, "pipe");
    pid_t child = ::fork();
    if (child < 0) return errno_error(errno, "fork");
    if (child > 0) {
        ::close(ends[1]);
        wait_for_daemon(ends[0], child, mount_point);
    }
    // Descriptor 3 is the pipe, and all others that the caller left open are closed: a lock or a pipe of a script must
    // not stay open for days.
    if (ends[1] != 3) {
        ::dup3(ends[1], 3, O_CLOEXEC);
    }
    ::close_range(4, ~0u, 0);
    ::setsid();
    (void)!::chdir("/");
    redirect(0, O_RDONLY);
    return Starter(3);
}

void set_process_limits() {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &files);
    }
    // Dozens of threads would keep an arena each, and each arena the most that its threads ever used.
    ::mallopt(M_ARENA_MAX, 4);
    // Segment buffers (16 MiB) stay for the next segment: fresh pages for each cost a tenth of encoding. What is free
    // goes back when nothing is encoded any more (DaemonService::give_memory_back). Fixed, so that glibc does not raise
    // it.
    ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
    ::mallopt(M_TRIM_THRESHOLD, 128 << 20);
}

void block_signals() {
    sigset_t set = termination_signals();
    ::sigaddset(&set, SIGUSR1);  // Session::leave
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

int wait_for_termination_signal() {
    sigset_t set = termination_signals();
    int number = 0;
    while (::sigwait(&set, &number) != 0) {
    }
    return number;
}

bool termination_is_due() {
    sigset_t pending;
    return ::sigpending(&pending) == 0 &&
           (::sigismember(&pending, SIGTERM) == 1 || ::sigismember(&pending, SIGINT) == 1);
}

namespace {

std::string readahead_path(const std::string& mount_point) {
    auto entry = mounted_at(mount_point);
    return entry ? fmt::format("/sys/class/bdi/{}/read_ahead_kb", entry->device) : std::string();
}

}  // namespace

void set_kernel_readahead(const std::string& mount_point, unsigned kilobytes) {
    const unsigned usual = kernel_readahead_kb(mount_point);
    if (kilobytes == 0 || usual == 0 || kilobytes == usual) return;
    const std::string path = readahead_path(mount_point);
    if (::geteuid() == 0) {
        std::ofstream file(path);
        file << kilobytes << std::flush;
        if (file) return log_info("the kernel reads ahead {} KiB here, instead of {}", kilobytes, usual);
    }
    log_info("the kernel reads ahead {} KiB here: {} can be set by root only", usual, path);
}

unsigned kernel_readahead_kb(const std::string& mount_point) {
    unsigned kilobytes = 0;
    std::ifstream(readahead_path(mount_point)) >> kilobytes;
    return kilobytes;
}

}  // namespace coral::fuse
