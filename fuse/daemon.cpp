// SPDX-License-Identifier: Apache-2.0
#include "daemon.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>

#include "channel.hpp"
#include "coral/base/log.hpp"
#include "coral/base/os.hpp"
#include "coral/base/thread_pool.hpp"
#include "daemon_service.hpp"
#include "invalidator.hpp"
#include "mount_point.hpp"
#include "passthrough.hpp"
#include "service_manager.hpp"
#include "session.hpp"

namespace coral::fuse {

namespace {

using namespace std::chrono_literals;

constexpr unsigned kDefaultReadaheadKb = 1024;
constexpr auto kFence = 10s;  // a command waits this long for the kernel to forget
constexpr auto kPinnedPause = 20ms;
constexpr int kPinnedPauses = 250;
constexpr int kLoopWithoutThread = -1;  // what libfuse returns when it could not start the first one
constexpr auto kLastSync = 20s;         // SIGTERM with a busy mount: for pages that mappings have dirtied

// Everything that lives from mount to unmount, in the order in which it is made. Taken down by shut_down().
class Daemon {
  public:
    Daemon(std::string repository, std::string mount_point, MountOptions options, Starter starter,
           const std::optional<WorkerArguments>& worker)
        : repository_path_(std::move(repository)),
          mount_point_(std::move(mount_point)),
          options_(std::move(options)),
          starter_(starter),
          worker_(worker) {}

    Status set_up();
    int serve();
    void shut_down();
    bool clean() const { return clean_; }
    // Clients wait for another process when this one ends: it must not unmount, nor answer anything any more.
    bool others_go_on() const { return worker_ && handover_ && handover_->ready() && !stopping_; }

  private:
    Status take_over();
    Status open_repository();
    Status open_mount();
    void after_init();
    void start_passthrough();
    void look_branches_up();
    void wait_for_signal();
    bool leave_to_another();
    void end_session();
    std::optional<OwnMount> own_mount() const;
    Status request_stop();
    bool pinned() const;
    Status request_replacement();
    // Somebody will start another process when this one ends.
    bool supervised() const {
        return worker_ && handover_->resends() && ::getppid() == static_cast<pid_t>(worker_->supervisor_pid);
    }
    void stop_by_force();
    void sync_mount();

    const std::string repository_path_, mount_point_;
    MountOptions options_;
    Starter starter_;
    const std::optional<WorkerArguments> worker_;  // nothing: we mount ourselves, and nobody follows
    std::string device_;                           // of the mount; empty: not known

    std::unique_ptr<vfs::Handover> handover_;
    std::unique_ptr<LockBox> locks_;
    std::unique_ptr<repo::Repository> repo_;
    std::unique_ptr<vfs::Filesystem> fs_;
    std::unique_ptr<Mount> mount_;
    Passthrough passthrough_;
    Invalidator invalidator_;
    std::unique_ptr<Session> session_;
    std::unique_ptr<DaemonService> service_;
    std::unique_ptr<control::Server> server_;
    std::promise<void> initialised_;
    std::thread after_init_, signals_;
    std::atomic<bool> serving_{false}, replace_{false};
    std::atomic<bool> stopping_{false};   // somebody has asked for it
    std::atomic<bool> unmounted_{false};  // by us
    std::atomic<bool> told_anew_{false};  // the kernel, by a process that follows one that was cut off
    bool clean_ = true;
};

Status Daemon::take_over() {
    if (!worker_) return {};
    vfs::Handover::Files files;
    for (std::size_t i = 0; i < files.size(); ++i) files[i] = adopt_file(worker_->handover[i], "handover");
    CORAL_TRY(handover_, vfs::Handover::adopt(std::move(files)));
    handover_->count_worker();
    locks_ = std::make_unique<LockBox>(*worker_);
    return {};
}

Status Daemon::open_repository() {
    repo::RepositoryOptions repository_options;
    if (options_.memory) repository_options.store.cache_bytes = *options_.memory;
    CORAL_TRY(repo_, repo::Repository::open(real_os(), repository_path_, repository_options));
    vfs::Options fs_options;
    fs_options.threads = options_.threads.value_or(0);
    if (options_.readahead) fs_options.readahead = *options_.readahead;
    options_.read_only = options_.read_only || repo_->read_only();
    fs_options.read_only = options_.read_only;
    fs_options.share = options_.share;
    fs_options.hot_size = options_.hot_size;
    fs_options.backlog = options_.backlog;
    fs_options.cache_size = options_.cache_size;
    fs_options.keep_new_pages = options_.keep_new_pages;
    fs_options.materialize = options_.materialize;
    fs_options.handover = handover_.get();
    fs_options.locks = locks_.get();
    CORAL_TRY(fs_, vfs::Filesystem::open(*repo_, fs_options));
    return {};
}

Status Daemon::open_mount() {
    mount_ = std::make_unique<Mount>(*fs_);
    mount_->initialised = [this, told = std::make_shared<std::atomic<bool>>(false)] {
        if (told->exchange(true)) return;
        told_anew_ = invalidator_.open();
        initialised_.set_value();
    };
    fs_->set_notifier(&invalidator_);
    CORAL_TRY(session_, Session::create(mount_.get(), options_, repository_path_));
    CORAL_CHECK(worker_ ? session_->adopt(worker_->device) : session_->attach(mount_point_));
    device_ = handover_ ? handover_->device() : session_->device();
    CORAL_CHECK(open_channel(session_->raw(), handover_.get()));
    passthrough_.attach(session_->raw(), !options_.passthrough ? "switched off (option passthrough=off)"
                                         : options_.read_only  ? "the mount, or its repository, is read-only"
                                                               : "");
    // Before the first OPEN: the kernel may have files open in this way already.
    if (handover_ && handover_->passthrough() != vfs::Handover::Tri::kUnknown) {
        passthrough_.go_on(handover_->passthrough() == vfs::Handover::Tri::kYes);
        if (passthrough_.usable()) fs_->set_backing_files(&passthrough_);
    }
    invalidator_.start(session_->raw());
    return {};
}

Status Daemon::set_up() {
    CORAL_CHECK(take_over());
    CORAL_CHECK(open_repository());
    CORAL_CHECK(open_mount());
    DaemonService::Hooks hooks{[this] { return request_stop(); },
                               [this] { (void)invalidator_.wait_drained(kFence); },
                               [this] { return passthrough_.usable() ? std::string("on") : passthrough_.why_not(); },
                               [this] { return request_replacement(); },
                               handover_.get(),
                               worker_ ? static_cast<std::uint32_t>(worker_->supervisor_pid) : 0,
                               [this] { return supervised(); },
                               [this] { return pinned(); },
                               options_.read_only};
    service_ = std::make_unique<DaemonService>(*fs_, *repo_, mount_point_, std::move(hooks));
    control::Listener listener;
    if (worker_) listener = {locks_->inherited_socket(), handover_->socket_path()};
    auto server = control::Server::start(*service_, listener);
    if (server) {
        server_ = std::move(*server);
        if (worker_ && listener.descriptor < 0) {
            handover_->keep_socket_path(server_->socket_path());
            locks_->keep_socket(server_->descriptor());
        }
        mount_->control_socket = server_->socket_path();
        service_->start_publishing(server_->socket_path());
    } else {
        // The mount works without it; only commands about its branches do not.
        log_error("no control socket: {}", server.error().message);
    }
    return {};
}

int Daemon::serve() {
    serving_ = true;
    after_init_ = std::thread([this] { after_init(); });
    signals_ = std::thread([this] { wait_for_signal(); });
    const unsigned threads = serving_threads();
    log_info("serving {} at {}, process {}, {} threads", repository_path_, mount_point_, ::getpid(), threads);
    int rc = session_->loop(threads);
    serving_ = false;
    mount_->late_replies.stop();
    if (replace_) ::_exit(kReplaceMe);
    if (rc == 0 || stopping_ || !session_->connected()) {
        log_info("{}: unmounted ({})", mount_point_, rc);
        return 0;
    }
    // The mount is there still: nobody has asked us to leave.
    std::string why = rc == kLoopWithoutThread ? "no thread that could take requests" : std::strerror(-rc);
    log_error("{}: requests are not served any more: {}", mount_point_, why);
    if (others_go_on()) ::_exit(rc == kLoopWithoutThread ? kNoThreads : 1);
    starter_.report_failure(why);
    return 1;
}

// The backing filesystem is the one that staging files are on. The kernel takes backing files once it has taken our
// answer to INIT: whoever is answered by the mount knows that it has.
void Daemon::start_passthrough() {
    (void)real_os().stat(mount_point_);
    if (auto file = real_os().open(path_join(repository_path_, "FORMAT"), OpenMode::kRead))
        passthrough_.probe((*file)->native_handle());
    if (passthrough_.usable()) {
        fs_->set_backing_files(&passthrough_);
        log_info("passthrough: on");
    } else {
        log_info("passthrough: off: {}", passthrough_.why_not());
    }
    if (handover_) handover_->set_passthrough(passthrough_.usable());
}

// A folder that the kernel was told to forget has no path until somebody looks it up: a shell that stands in a branch
// would not know where it is.
void Daemon::look_branches_up() {
    (void)invalidator_.wait_drained(kFence);
    auto branches = repo_->branches();
    auto ours = own_mount();
    if (!branches || !ours || ours->covered) return;
    for (const repo::Branch& branch : *branches) (void)real_os().stat(path_join(ours->path, "branches/" + branch.name));
}

// In a thread of its own: what needs an answer from the mount may not happen inside INIT.
void Daemon::after_init() {
    set_thread_name("after-init");
    auto ready = initialised_.get_future();
    while (ready.wait_for(100ms) != std::future_status::ready) {
        if (!serving_) return;
    }
    if (!handover_ || handover_->passthrough() == vfs::Handover::Tri::kUnknown) start_passthrough();
    if (handover_ && handover_->ready()) {
        if (told_anew_) look_branches_up();
        return;
    }
    set_kernel_readahead(mount_point_, options_.readahead_kb.value_or(kDefaultReadaheadKb));
    if (handover_) handover_->set_ready();
    starter_.report_ready();
    tell_service_manager_ready();
}

// Everything that was answered is in the repository or in the handover, so the next process could as well follow a
// crash: but hardly a command of a client is cut off, and no request waits for the kernel to send it again. False when
// we are to end altogether meanwhile.
bool Daemon::leave_to_another() {
    if (server_) server_->leave_to_another(termination_is_due);
    if (!termination_is_due()) (void)invalidator_.wait_drained(kFence);
    if (termination_is_due() || !serving_) return false;
    replace_ = true;  // the main thread ends the process once the loop has returned
    log_info("another process goes on");
    invalidator_.disarm();
    session_->leave();
    return true;
}

void Daemon::wait_for_signal() {
    set_thread_name("signals");
    int number = wait_for_termination_signal();
    while (number == SIGHUP && serving_ && !supervised()) {
        log_info("SIGHUP: there is no supervisor that could start another process");
        number = wait_for_termination_signal();
    }
    if (!serving_) return;  // shut_down woke us
    if (number == SIGHUP && leave_to_another()) return;
    while (number == SIGHUP) number = wait_for_termination_signal();
    if (!serving_) return;
    log_info("signal {}: unmounting", number);
    if (!request_stop()) return stop_by_force();
    for (int i = 0; i < kPinnedPauses && serving_; ++i) std::this_thread::sleep_for(kPinnedPause);
    if (!pinned()) return;
    log_warn("{}: another mount namespace has it still; whoever uses it there will see errors", mount_point_);
    session_->leave();
}

// Wherever it has been moved to; and nothing that somebody else has mounted in its place. The number is ours as long as
// we are connected.
std::optional<OwnMount> Daemon::own_mount() const {
    if (unmounted_ || !session_->connected()) return std::nullopt;
    if (!device_.empty()) return mount_of_device(device_, mount_point_);
    auto top = mounted_at(mount_point_);
    if (!top || top->type != "fuse.coral") return std::nullopt;
    return OwnMount{mount_point_};
}

// The kernel ends the session by itself when the mount goes. Pages that mappings have dirtied are written out by
// umount, and we are here to take them.
Status Daemon::request_stop() {
    stopping_ = true;
    (void)invalidator_.wait_drained(kFence);
    auto ours = own_mount();
    if (!ours) {
        session_->leave();
        return {};
    }
    Status done = ours->covered
                      ? make_error(Errc::kBusy, fmt::format("{}: something else is mounted over it", ours->path))
                      : unmount_now(ours->path);
    if (done)
        unmounted_ = true;
    else
        stopping_ = false;  // in use: the mount stays
    return done;
}

// Mount namespaces that were made while the mount was there have it too: only when all let go does the kernel end the
// session.
bool Daemon::pinned() const {
    return serving_ && unmounted_ && session_->connected();
}

Status Daemon::request_replacement() {
    if (!supervised())
        return make_error(Errc::kUnsupported, fmt::format("{}: its daemon has no supervisor that could start another "
                                                          "one; unmount it and mount it again",
                                                          mount_point_));
    ::kill(::getpid(), SIGHUP);  // wait_for_signal: once this command is answered
    return {};
}

void Daemon::stop_by_force() {
    stopping_ = true;
    log_warn("{}: still in use; whoever uses it will see errors", mount_point_);
    sync_mount();
    (void)invalidator_.wait_drained(kFence);
    // While requests are still answered: a notification that waits for one of them could otherwise never end.
    invalidator_.disarm();
    session_->leave();
}

void Daemon::sync_mount() {
    auto ours = own_mount();
    if (!ours || ours->covered) return;  // detached: no path leads to it
    auto done = std::make_shared<std::promise<void>>();
    auto finished = done->get_future();
    std::thread([path = ours->path, done] {
        int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            ::syncfs(fd);
            ::close(fd);
        }
        done->set_value();
    }).detach();
    if (finished.wait_for(kLastSync) != std::future_status::ready) log_warn("{}: sync takes too long", mount_point_);
}

// No request is answered afterwards, and none waits: the mount goes, lazily if somebody still uses it.
void Daemon::end_session() {
    if (!session_) return;
    if (!worker_ && device_.empty()) return session_->detach();  // mounted nothing, or nobody knows what
    std::optional<OwnMount> ours;
    if (!worker_ || handover_->ready()) ours = own_mount();
    if (!worker_) session_->drop_connection();
    if (ours && !ours->covered) (void)unmount_lazily(ours->path);
    unmounted_ = true;  // from now on the number may be another's
    if (!worker_) return;
    locks_->close_connection();
    session_->drop_connection();
}

void Daemon::shut_down() {
    serving_ = false;
    invalidator_.disarm();
    if (fs_) fs_->set_backing_files(nullptr);  // its descriptor goes now
    end_session();
    if (server_) server_->drain();
    if (service_) service_->stop_publishing();
    if (fs_) {
        fs_->set_notifier(nullptr);
        if (Status done = fs_->shut_down(); !done) log_error("shutting down: {}", done.error().message);
    }
    if (signals_.joinable()) {
        ::pthread_kill(signals_.native_handle(), SIGTERM);
        signals_.join();
    }
    if (after_init_.joinable()) after_init_.join();
    if (mount_ && mount_->unanswered) log_error("{} requests were left unanswered", mount_->unanswered.load());
    clean_ = invalidator_.stop(5s);
    if (!clean_) return;  // a thread hangs in the kernel with the session: let everything lie, the caller leaves
    // Locks are free before the last answer on the socket ends.
    fs_.reset();
    repo_.reset();
    server_.reset();
    service_.reset();
    session_.reset();
}

}  // namespace

int run_daemon(const std::string& repository, const std::string& mount_point, const MountOptions& options,
               Starter starter, const std::optional<WorkerArguments>& worker) {
    set_process_limits();
    block_signals();
    bool in_background = worker ? worker->background : starter.in_background();
    log_setup(in_background ? log_path_of(repository) : std::string());
    Daemon daemon(repository, mount_point, options, starter, worker);
    int exit_status = 1;
    try {
        if (Status status = daemon.set_up(); status) {
            exit_status = daemon.serve();
        } else {
            if (in_background) log_error("{}", status.error().message);  // else it would be said twice
            starter.report_failure(status.error().message);
            if (daemon.others_go_on()) ::_exit(exit_status);
        }
    } catch (const std::system_error& e) {
        log_error("{}", e.what());
        bool refused = e.code() == std::errc::resource_unavailable_try_again;
        if (daemon.others_go_on()) ::_exit(refused ? kNoThreads : 1);
        throw;
    }
    daemon.shut_down();
    if (!daemon.clean()) ::_exit(exit_status);
    log_info("ended");
    return exit_status;
}

}  // namespace coral::fuse
