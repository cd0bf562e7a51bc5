// SPDX-License-Identifier: Apache-2.0
#include "session.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "coral/base/log.hpp"
#include "mount_point.hpp"
#include "ops.hpp"

namespace coral::fuse {

namespace {

std::mutex last_message_mutex;
std::string last_message;

// libfuse tells why a mount failed only in its log.
void on_libfuse_message(fuse_log_level level, const char* format, va_list arguments) {
    char text[1024];
    std::vsnprintf(text, sizeof text, format, arguments);
    std::string message(text);
    while (!message.empty() && message.back() == '\n') message.pop_back();
    if (message.empty()) return;
    if (level <= FUSE_LOG_ERR) {
        std::lock_guard lock(last_message_mutex);
        last_message = message;
    }
    log_message(level <= FUSE_LOG_ERR ? LogLevel::kWarn : LogLevel::kDebug, message);
}

std::string why() {
    std::lock_guard lock(last_message_mutex);
    return last_message.empty() ? "libfuse does not say why" : last_message;
}

void knock(int) {}

}  // namespace

Result<std::unique_ptr<Session>> Session::create(Mount* mount, const MountOptions& options,
                                                 const std::string& repository) {
    fuse_set_log_func(on_libfuse_message);
    fuse_args args = FUSE_ARGS_INIT(0, nullptr);
    std::string words = fuse_arguments(options, repository);
    bool ok = fuse_opt_add_arg(&args, "coralfs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
              fuse_opt_add_arg(&args, words.c_str()) == 0 && (!options.debug || fuse_opt_add_arg(&args, "-d") == 0);
    fuse_session* session = ok ? fuse_session_new(&args, &operations(), sizeof(fuse_lowlevel_ops), mount) : nullptr;
    fuse_opt_free_args(&args);
    if (!session) return make_error(Errc::kInvalid, fmt::format("cannot make a FUSE session: {}", why()));
    return std::unique_ptr<Session>(new Session(session));
}

Session::~Session() {
    detach();
    fuse_session_destroy(session_);
}

Status Session::attach(const std::string& mount_point) {
    if (fuse_session_mount(session_, mount_point.c_str()) != 0)
        return make_error(Errc::kIo, fmt::format("cannot mount at {}: {}", mount_point, why()));
    attached_ = true;
    if (auto top = mounted_at(mount_point)) device_ = top->device;
    return {};
}

// libfuse's own way of taking a descriptor over.
Status Session::adopt(int descriptor) {
    if (fuse_session_mount(session_, fmt::format("/dev/fd/{}", descriptor).c_str()) != 0)
        return make_error(Errc::kIo, fmt::format("cannot take the mount over: {}", why()));
    return {};
}

bool Session::connected() const {
    pollfd item{descriptor(), 0, 0};
    return ::poll(&item, 1, 0) >= 0 && !(item.revents & (POLLERR | POLLNVAL));
}

// The number stays taken: libfuse closes it once more at its end. It must not unmount then: it could not tell any more
// whose mount is there.
void Session::drop_connection() {
    attached_ = false;
    int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return;
    ::dup3(null, descriptor(), O_CLOEXEC);
    ::close(null);
}

int Session::loop(unsigned max_threads) {
    // leave() interrupts the wait in fuse_session_loop_mt with this signal; without a handler it would end us.
    struct sigaction action {};
    action.sa_handler = knock;
    ::sigaction(SIGUSR1, &action, nullptr);
    sigset_t knocks;
    ::sigemptyset(&knocks);
    ::sigaddset(&knocks, SIGUSR1);
    ::pthread_sigmask(SIG_UNBLOCK, &knocks, nullptr);

    fuse_loop_config* config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 0);  // measured: no faster, often slower
    fuse_loop_cfg_set_max_threads(config, max_threads);
    fuse_loop_cfg_set_idle_threads(config, max_threads);
    looping_ = ::pthread_self();
    in_loop_ = true;
    int rc = fuse_session_loop_mt(session_, config);
    in_loop_ = false;
    fuse_loop_cfg_destroy(config);
    ::pthread_sigmask(SIG_BLOCK, &knocks, nullptr);
    return rc;
}

void Session::leave() {
    fuse_session_exit(session_);
    for (int i = 0; i < 500 && in_loop_; ++i) {
        ::pthread_kill(looping_, SIGUSR1);
        ::usleep(20'000);
    }
}

void Session::detach() {
    if (!attached_) return;
    attached_ = false;
    fuse_session_unmount(session_);
}

}  // namespace coral::fuse
