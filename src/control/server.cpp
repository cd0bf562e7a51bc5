// SPDX-License-Identifier: Apache-2.0
#include "control/server.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

#include "control/commands.hpp"
#include "control/socket.hpp"
#include "coral/base/log.hpp"
#include "coral/base/thread_pool.hpp"

namespace coral::control {

namespace {

constexpr std::size_t kMaxConnections = 64;
constexpr auto kHeartbeat = std::chrono::seconds(2);
constexpr int kBeatsToEnd = 2;  // a daemon that was asked to stop has begun to leave by then, if it can
constexpr auto kLook = std::chrono::milliseconds(50);
constexpr auto kLastAnswers = std::chrono::milliseconds(kPeerTimeoutMs);  // for clients to take them

class SocketServer final : public Server {
  public:
    SocketServer(uid_t owner, Service& service, std::string path, UniqueFd listener, UniqueFd wake)
        : owner_(owner),
          service_(service),
          path_(std::move(path)),
          listener_(std::move(listener)),
          wake_(std::move(wake)) {
        acceptor_ = std::thread([this] { accept_all(); });
    }

    ~SocketServer() override {
        drain();
        stop_accepting();
        ::unlink(path_.c_str());
        for (Connection& connection : connections_) connection.channel.shut_down();
        for (Connection& connection : connections_) connection.thread.join();
    }

    const std::string& socket_path() const override { return path_; }
    int descriptor() const override { return listener_.get(); }

    void drain() override {
        std::unique_lock lock(mutex_);
        draining_ = ending_ = true;
        idle_.wait(lock, [this] { return running_ == 0; });
        // A daemon that left before its answer did would seem to have failed. Not for ever: a client may be stopped.
        if (!idle_.wait_for(lock, kLastAnswers, [this] { return answering_ == 0; }))
            log_warn("control: {} clients do not take their answers", answering_);
    }

    // A command that is cut off is sent again to the process that follows, as after a death.
    void leave_to_another(const std::function<bool()>& cut_short) override {
        stop_accepting();
        std::unique_lock lock(mutex_);
        leaving_ = ending_ = true;
        auto end = std::chrono::steady_clock::now() + kLastAnswers;
        auto idle = [this] { return answering_ == 0; };
        while (!idle_.wait_for(lock, kLook, idle)) {
            if (std::chrono::steady_clock::now() > end || (cut_short && cut_short())) return;
        }
    }

  private:
    struct Connection {
        explicit Connection(UniqueFd fd) : channel(std::move(fd)) {}
        LineChannel channel;
        std::thread thread;
        std::atomic<bool> done{false};
    };

    void accept_all() {
        set_thread_name("control");
        while (true) {
            auto fd = accept_from(listener_.get(), wake_.get());
            if (!fd) {
                log_error("control: {}", fd.error().message);
                return;
            }
            if (!*fd) return;
            connections_.remove_if([](Connection& old) {
                if (!old.done) return false;
                old.thread.join();
                return true;
            });
            admit(std::move(*fd));
        }
    }

    void admit(UniqueFd fd) {
        Connection& connection = connections_.emplace_back(std::move(fd));
        bool full = connections_.size() > kMaxConnections;
        try {
            connection.thread = std::thread([this, &connection, full] { handle(connection, full); });
        } catch (const std::system_error& e) {  // at the limit of tasks: no reason for a mount to end
            log_error("control: no thread for a connection: {}", e.what());
            (void)connection.channel.write_line(to_json(no_thread()).dump());
            connections_.pop_back();
        }
    }

    void handle(Connection& connection, bool full) {
        set_thread_name("control-peer");
        try {
            if (full) {
                (void)connection.channel.write_line(
                    to_json(make_error(Errc::kBusy, "too many connections to the daemon; try again")).dump());
            } else {
                serve(connection.channel);
            }
        } catch (const std::exception& e) {  // out of memory
            log_error("control: {}", e.what());
        }
        connection.channel.shut_down();
        connection.done = true;
    }

    void stop_accepting() {
        (void)::eventfd_write(wake_.get(), 1);
        if (acceptor_.joinable()) acceptor_.join();
    }

    static Error no_thread() {
        return make_error(Errc::kBusy, "the daemon is refused another thread (a limit of tasks, or memory); try again");
    }

    void serve(LineChannel& channel) {
        // The directory's mode says so already, but /tmp and copied sockets make one wish for both.
        auto peer = channel.peer_uid();
        if (!peer || !may_connect(*peer, owner_)) {
            log_warn("control: a connection by another user was refused");
            (void)channel.write_line(to_json(make_error(Errc::kAccess, "the daemon belongs to another user")).dump());
            return;
        }
        while (true) {
            auto line = channel.read_line(kPeerTimeoutMs);
            if (!line) {
                if (line.error().code == Errc::kTooLarge) (void)channel.write_line(to_json(line.error()).dump());
                return;
            }
            bool stopped = false;
            if (!answer(channel, *line, stopped)) return;
            if (stopped) return wait_for_the_end(channel);
        }
    }

    // From a request to the end of its answer: drain waits for it.
    class Answering {
      public:
        explicit Answering(SocketServer& server) : server_(server) {
            std::lock_guard lock(server_.mutex_);
            ++server_.answering_;
        }
        ~Answering() {
            std::lock_guard lock(server_.mutex_);
            if (--server_.answering_ == 0) server_.idle_.notify_all();
        }
        Answering(const Answering&) = delete;
        Answering& operator=(const Answering&) = delete;

      private:
        SocketServer& server_;
    };

    // False when the connection is of no more use.
    bool answer(LineChannel& channel, const std::string& line, bool& stopped) {
        Answering answering(*this);
        auto request = parse_line(line);
        // What is not even an object comes from no client of ours: there is no telling where its next line begins.
        if (!request) {
            (void)channel.write_line(to_json(request.error()).dump());
            return false;
        }
        auto result = run(channel, *request);
        // Nothing was done, perhaps for our sake: its client hears nothing, and asks the process that follows.
        if (!result && leaving_ && result.error().code == Errc::kBusy) return false;
        if (!result) return channel.write_line(to_json(result.error()).dump()).ok();
        for (const std::string& part : result->parts) {
            if (!channel.write_line(part)) return false;
        }
        auto command = request->find("command");
        stopped = command != request->end() && *command == kStopCommand;
        return channel.write_line(Json{{"ok", true}, {"result", result->result}}.dump()).ok();
    }

    // The command runs in a thread of its own, so that this one can say every two seconds that it is alive.
    Result<Answer> run(LineChannel& channel, const Json& request) {
        {
            std::lock_guard lock(mutex_);
            if (draining_) return make_error(Errc::kBusy, "the daemon is shutting down");
            ++running_;
        }
        Running until_return(*this);
        Activity activity(ending_);
        auto command = [&]() -> Result<Answer> {
            set_thread_name("control-run");
            try {
                return execute(service_, request, activity);
            } catch (const std::exception& e) {
                log_error("control: {}: {}", request.value("command", "?"), e.what());
                return make_error(Errc::kInternal, e.what());
            }
        };
        std::future<Result<Answer>> future;
        try {
            future = std::async(std::launch::async, command);
        } catch (const std::system_error& e) {
            log_error("control: no thread for a command: {}", e.what());
            return no_thread();
        }
        // A client that has gone does not stop its command, for a commit half done is of no use to anybody; one that
        // only waits has not begun.
        bool gone = false;
        while (future.wait_for(kHeartbeat) != std::future_status::ready) {
            if (gone) continue;
            auto [done, total] = activity.progress();
            Json line = {{"progress", {{"done", done}, {"total", total}}}};
            gone = !channel.write_line(line.dump()).ok();
            if (gone) activity.client_has_gone();
        }
        return future.get();
    }

    // A command, however it ends.
    class Running {
      public:
        explicit Running(SocketServer& server) : server_(server) {}  // counted already
        ~Running() {
            std::lock_guard lock(server_.mutex_);
            if (--server_.running_ == 0) server_.idle_.notify_all();
        }
        Running(const Running&) = delete;
        Running& operator=(const Running&) = delete;

      private:
        SocketServer& server_;
    };

    void wait_for_the_end(LineChannel& channel) {
        for (int beats = 0; !channel.wait_closed(std::chrono::milliseconds(kHeartbeat).count()); ++beats) {
            if (auto reason = beats < kBeatsToEnd ? std::nullopt : service_.goes_on_because()) {
                (void)channel.write_line(to_json(make_error(Errc::kBusy, *reason)).dump());
                return;
            }
            if (!channel.write_line(R"({"progress":{"done":0,"total":0}})")) return;
        }
    }

    const uid_t owner_;
    Service& service_;
    const std::string path_;
    UniqueFd listener_, wake_;
    std::thread acceptor_;
    std::list<Connection> connections_;  // touched by the acceptor only, and by the destructor after it
    std::mutex mutex_;                   // guards the numbers below; never held while a command runs
    std::condition_variable idle_;
    bool draining_ = false;
    std::atomic<bool> ending_{false}, leaving_{false};  // read without it: to leave_to_another
    std::size_t running_ = 0;                           // commands
    std::size_t answering_ = 0;                         // requests that were read and are not answered to the end
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(Service& service, const Listener& inherited) {
    return start_server_of(::geteuid(), service, inherited);
}

Result<std::unique_ptr<Server>> start_server_of(uid_t owner, Service& service, const Listener& inherited) {
    if (inherited.descriptor >= 0) {
        UniqueFd listener(inherited.descriptor), wake(::eventfd(0, EFD_CLOEXEC));
        if (!wake) return errno_error(errno, "eventfd");
        return std::unique_ptr<Server>(
            new SocketServer(owner, service, inherited.path, std::move(listener), std::move(wake)));
    }
    std::string dir = runtime_dir();
    CORAL_CHECK(make_runtime_dir(dir));
    remove_dead_sockets(dir);
    // The random part: process ids repeat, in containers that share /tmp above all.
    std::string path = fmt::format("{}/{}-{}.sock", dir, ::getpid(), Uuid::random().text().substr(0, 8));
    CORAL_TRY(UniqueFd listener, listen_at(path));
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC));
    if (!wake) {
        ::unlink(path.c_str());
        return errno_error(errno, "eventfd");
    }
    return std::unique_ptr<Server>(new SocketServer(owner, service, path, std::move(listener), std::move(wake)));
}

}  // namespace coral::control
