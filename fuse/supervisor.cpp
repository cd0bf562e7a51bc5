// SPDX-License-Identifier: Apache-2.0
#include "supervisor.hpp"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <thread>

#include "coral/base/log.hpp"
#include "coral/base/os.hpp"
#include "coral/vfs/handover.hpp"
#include "session.hpp"
#include "worker.hpp"

namespace coral::fuse {

namespace {

using namespace std::chrono_literals;

constexpr int kMostBarren = 10;                       // workers in a row that die without an answer
constexpr int kBarrenUpgrade = 3;                     // of these, of a program that was put in place of ours
constexpr std::int64_t kLongEnough = 10'000'000'000;  // a worker that nobody asked anything is of use after 10 s
constexpr auto kNoThreadsPause = 500ms;

// One thread: it forks.
class Supervisor {
  public:
    Supervisor(const std::string& repository, const std::string& mount_point, const MountOptions& options,
               const std::vector<std::string>& words, Starter starter)
        : repository_(repository), mount_point_(mount_point), options_(options), words_(words), starter_(starter) {}
    int run();

  private:
    Status set_up();
    Status start_worker();
    pid_t fork_in_the_end();
    [[noreturn]] void become_worker(const std::vector<std::string>& arguments);
    std::vector<std::string> command() const;
    // The status that waitpid told.
    int wait_for_worker();
    void take_messages();
    void on_signal();
    std::optional<int> after_death(int status);
    void give_up(const std::string& why);

    const std::string repository_, mount_point_;
    const MountOptions& options_;
    const std::vector<std::string>& words_;
    Starter starter_;
    std::string program_;
    int own_program_ = -1;  // the program as it was when we started
    bool use_own_program_ = false;
    std::unique_ptr<Session> session_;
    std::unique_ptr<vfs::Handover> handover_;
    int socket_ = -1, workers_socket_ = -1, signals_ = -1;
    std::map<Uuid, int> locks_;
    pid_t worker_ = -1;
    bool stopping_ = false, connection_closed_ = false;
    int barren_ = 0;
    std::uint64_t answers_before_ = 0;
    std::int64_t started_ns_ = 0;
};

Status Supervisor::set_up() {
    char path[4096];
    ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0) return errno_error(errno, "/proc/self/exe");
    program_.assign(path, static_cast<std::size_t>(length));
    own_program_ = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CORAL_TRY(session_, Session::create(nullptr, options_, repository_));
    CORAL_CHECK(session_->attach(mount_point_));
    CORAL_TRY(handover_, vfs::Handover::create());
    handover_->keep_device(session_->device());
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error(errno, "socketpair");
    socket_ = ends[0];
    workers_socket_ = ends[1];
    sigset_t set;
    ::sigemptyset(&set);
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) ::sigaddset(&set, number);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals_ < 0) return errno_error(errno, "signalfd");
    return {};
}

std::vector<std::string> Supervisor::command() const {
    WorkerArguments given;
    given.device = session_->descriptor();
    given.handover = handover_->descriptors();
    given.supervisor = workers_socket_;
    given.starter = starter_.descriptor();
    given.background = !words_.empty() && words_.front() == "background";
    given.supervisor_pid = ::getpid();
    for (const auto& [worktree, descriptor] : locks_) given.locks.emplace_back(worktree, descriptor);
    std::vector<std::string> arguments{program_};
    for (std::string& word : to_words(given)) {
        arguments.emplace_back("--worker");
        arguments.push_back(std::move(word));
    }
    for (std::size_t i = 1; i < words_.size(); ++i) {
        arguments.push_back("-o");
        arguments.push_back(words_[i]);
    }
    if (options_.debug) arguments.push_back("-d");
    if (is_called_by_coral()) arguments.push_back("--from-coral");
    arguments.push_back("--");
    arguments.push_back(repository_);
    arguments.push_back(mount_point_);
    return arguments;
}

void Supervisor::become_worker(const std::vector<std::string>& arguments) {
    // Blocked as the worker wants them: one that comes before it can wait for it would else kill it, and the next, ...
    sigset_t awaited;
    ::sigemptyset(&awaited);
    for (int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&awaited, number);
    ::pthread_sigmask(SIG_SETMASK, &awaited, nullptr);
    ::setpgid(0, 0);  // a terminal's ^C is for the supervisor, who passes it on
    auto inherit = [](int descriptor) {
        if (descriptor >= 0) ::fcntl(descriptor, F_SETFD, 0);
    };
    inherit(session_->descriptor());
    for (int descriptor : handover_->descriptors()) inherit(descriptor);
    inherit(workers_socket_);
    inherit(starter_.descriptor());
    for (const auto& [worktree, descriptor] : locks_) inherit(descriptor);
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    if (use_own_program_)
        ::fexecve(own_program_, argv.data(), environ);
    else
        ::execv(program_.c_str(), argv.data());
    ::_exit(127);
}

// At the limit of tasks, or of memory, clients wait: that passes. But who asked us to stop does not wait for ever.
pid_t Supervisor::fork_in_the_end() {
    for (int tries = 1;; ++tries) {
        pid_t child = ::fork();
        int error = errno;
        if (child >= 0 || (error != EAGAIN && error != ENOMEM) || !handover_->ready()) return child;
        if (tries == 1) log_warn("{}: no daemon can be started yet: {}", mount_point_, std::strerror(error));
        on_signal();
        if (stopping_ && tries > kMostBarren) {
            errno = error;
            return child;
        }
        std::this_thread::sleep_for(kNoThreadsPause);
    }
}

Status Supervisor::start_worker() {
    answers_before_ = handover_->answers();
    std::vector<std::string> arguments = command();
    pid_t child = fork_in_the_end();
    if (child < 0) return errno_error(errno, "fork");
    if (child == 0) become_worker(arguments);
    worker_ = child;
    started_ns_ = monotonic_ns();
    // Whoever waits for the mount hears from the first worker alone, or sees the end of the pipe.
    if (starter_.in_background()) starter_.leave_to_another();
    return {};
}

void Supervisor::take_messages() {
    SupervisorMessage message{};
    int descriptor = -1;
    while (receive_message(socket_, message, descriptor)) {
        if (message.order == SupervisorOrder::kClose) {
            session_->drop_connection();
            connection_closed_ = true;
            continue;
        }
        if (auto at = locks_.find(message.worktree); at != locks_.end()) {
            ::close(at->second);
            locks_.erase(at);
        }
        if (message.order == SupervisorOrder::kKeep && descriptor >= 0) locks_[message.worktree] = descriptor;
    }
}

void Supervisor::on_signal() {
    signalfd_siginfo info;
    while (::read(signals_, &info, sizeof info) == sizeof info) {
        int number = static_cast<int>(info.ssi_signo);
        if (number == SIGTERM || number == SIGINT) stopping_ = true;
        if (number != SIGCHLD && worker_ > 0) ::kill(worker_, number == SIGHUP ? SIGHUP : SIGTERM);
    }
}

int Supervisor::wait_for_worker() {
    while (true) {
        int status = 0;
        pid_t ended = ::waitpid(-1, &status, WNOHANG);  // fusermount3 may be a child, too
        if (ended == worker_) {
            take_messages();
            worker_ = -1;
            return status;
        }
        if (ended > 0) continue;
        pollfd items[2] = {{signals_, POLLIN, 0}, {socket_, POLLIN, 0}};
        (void)::poll(items, 2, 1000);
        on_signal();
        take_messages();
    }
}

void Supervisor::give_up(const std::string& why) {
    log_error("{}: {}; the mount is dead until it is mounted again", mount_point_, why);
    ::_exit(1);  // closes the connection: clients get ENOTCONN. Not unmounted: nobody shall write beside it.
}

// The program's exit status, when nobody shall follow.
std::optional<int> Supervisor::after_death(int status) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    bool replace = WIFEXITED(status) && WEXITSTATUS(status) == kReplaceMe;
    if (!handover_->ready()) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    std::string how = WIFSIGNALED(status) ? fmt::format("died of signal {}", WTERMSIG(status))
                                          : fmt::format("ended with status {}", WEXITSTATUS(status));
    if (connection_closed_) return 1;
    if (!handover_->resends()) give_up("the daemon " + how + ", and this kernel cannot send its requests again");
    bool was_of_use = handover_->answers() != answers_before_ || monotonic_ns() - started_ns_ > kLongEnough;
    // At the limit of tasks clients wait: that passes. But who asked us to stop does not wait for ever.
    bool no_threads = WIFEXITED(status) && WEXITSTATUS(status) == kNoThreads && !stopping_;
    barren_ = replace || was_of_use || no_threads ? 0 : barren_ + 1;
    if (replace) use_own_program_ = false;
    if (barren_ >= kBarrenUpgrade) use_own_program_ = true;
    if (barren_ >= kMostBarren)
        give_up(fmt::format("{} daemons in a row did not answer anything, the last {}", barren_, how));
    if (!replace) log_warn("{}: the daemon {}; another one goes on", mount_point_, how);
    if (no_threads) std::this_thread::sleep_for(kNoThreadsPause);
    if (barren_ > 0) std::this_thread::sleep_for(std::min(10ms * (1 << barren_), 1000ms));
    return std::nullopt;
}

int Supervisor::run() {
    if (Status done = set_up(); !done) {
        starter_.report_failure(done.error().message);
        return 1;
    }
    while (true) {
        if (Status done = start_worker(); !done) {
            if (!handover_->ready()) {
                starter_.report_failure(done.error().message);
                return 1;
            }
            give_up(done.error().message);
        }
        if (stopping_) ::kill(worker_, SIGTERM);
        int status = wait_for_worker();
        if (auto end = after_death(status)) return *end;
    }
}

}  // namespace

int supervise(const std::string& repository, const std::string& mount_point, const MountOptions& options,
              const std::vector<std::string>& words, Starter starter) {
    std::vector<std::string> all{starter.in_background() ? "background" : "foreground"};
    all.insert(all.end(), words.begin(), words.end());
    set_process_limits();  // one descriptor for each branch
    log_setup(starter.in_background() ? log_path_of(repository) : std::string());
    return Supervisor(repository, mount_point, options, all, starter).run();
}

}  // namespace coral::fuse
