// SPDX-License-Identifier: Apache-2.0
// The server against good clients and bad ones.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "control/server.hpp"
#include "control/socket.hpp"
#include "control/wire.hpp"

namespace coral::control {
namespace {

using namespace std::chrono_literals;

class FakeService final : public Service {
  public:
    Result<DaemonInfo> info() override {
        DaemonInfo info{42, "/mnt/\xff", "/r,\n", "1", 7, 8, "off: \xff", 9, 10, 11, 12, 13, 14};
        info.version.append(more_bytes, 'x');
        info.read_only_branches = {"main", "\xff"};
        ++infos;
        return info;
    }
    Result<std::shared_ptr<repo::Worktree>> worktree(const std::string& branch) override {
        asked = branch;
        return make_error(Errc::kNotFound, "no branch " + branch);
    }
    Status branches_changed() override {
        std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
        ++changes;
        return {};
    }
    Status release_branch(const std::string& branch) override {
        if (branch == "throw") throw std::runtime_error("a bug");
        return make_error(Errc::kBusy, branch + ": open files");
    }
    Status stop() override {
        ++stops;
        return refuse_stop ? Status(make_error(Errc::kBusy, "in use")) : Status();
    }
    std::optional<std::string> goes_on_because() override {
        return pinned ? std::optional<std::string>("somebody has it still") : std::nullopt;
    }
    void settle() override { ++settled; }

    std::string asked;
    std::atomic<int> infos{0}, changes{0}, stops{0}, settled{0}, delay_ms{0};
    std::atomic<std::size_t> more_bytes{0};
    std::atomic<bool> refuse_stop{false}, pinned{false};
};

class ServerTest : public testing::Test {
  protected:
    void SetUp() override {
        char pattern[] = "/tmp/coral-control-XXXXXX";
        dir_ = ::mkdtemp(pattern);
        ::setenv("XDG_RUNTIME_DIR", dir_.c_str(), 1);
        auto server = Server::start(service_);
        ASSERT_TRUE(server.ok()) << server.error().message;
        server_ = std::move(*server);
    }
    void TearDown() override {
        server_.reset();
        std::filesystem::remove_all(dir_);
    }

    std::unique_ptr<Client> client() {
        auto connected = Client::connect(server_->socket_path());
        EXPECT_TRUE(connected.ok()) << connected.error().message;
        return connected ? std::move(*connected) : nullptr;
    }
    LineChannel raw() {
        auto fd = connect_to(server_->socket_path(), 1000);
        EXPECT_TRUE(fd.ok());
        return LineChannel(std::move(*fd));
    }
    // The server is still in its right mind.
    void expect_alive() {
        Result<std::unique_ptr<Client>> one = make_error(Errc::kBusy, "not tried");
        for (int i = 0; i < 100 && !one; ++i) {  // it may still count connections that are about to end
            if (i) std::this_thread::sleep_for(20ms);
            one = Client::connect(server_->socket_path());
        }
        ASSERT_TRUE(one.ok()) << one.error().message;
        EXPECT_TRUE((*one)->info().ok());
    }

    std::string dir_;
    FakeService service_;
    std::unique_ptr<Server> server_;
};

constexpr uid_t kSomebody = 54321;

// The line of the test's process that is wrong, or 0.
int serve_without_threads(FakeService& service) {
    if (::geteuid() == 0 && ::setuid(kSomebody) != 0) return __LINE__;
    auto server = Server::start(service);
    if (!server) return __LINE__;
    auto early = connect_to((*server)->socket_path(), 1000);  // has a thread, whose command will get none
    if (!early) return __LINE__;
    std::this_thread::sleep_for(300ms);
    rlimit tasks{};
    ::getrlimit(RLIMIT_NPROC, &tasks);
    rlimit none{0, tasks.rlim_max};
    ::setrlimit(RLIMIT_NPROC, &none);
    for (int i = 0; i < 3; ++i) {
        auto refused = Client::connect((*server)->socket_path());
        if (refused || refused.error().code != Errc::kBusy) return __LINE__;
    }
    LineChannel channel(std::move(*early));
    if (!channel.write_line(R"({"command":"info"})")) return __LINE__;
    auto answer = channel.read_line(5000);
    if (!answer || Json::parse(*answer).at("ok").get<bool>()) return __LINE__;
    ::setrlimit(RLIMIT_NPROC, &tasks);
    auto again = Client::connect((*server)->socket_path());
    if (!again || !(*again)->info()) return __LINE__;
    server->reset();  // waits for no command that was never begun
    return 0;
}

TEST_F(ServerTest, AnswersWithBytesThatAreNotUtf8) {
    auto info = client()->info();
    ASSERT_TRUE(info.ok());
    EXPECT_EQ(info->mount_point, "/mnt/\xff");
    EXPECT_EQ(info->repository, "/r,\n");
    EXPECT_EQ(info->pid, 42u);
    EXPECT_FALSE(info->read_only);
    EXPECT_EQ(info->read_only_branches, (std::vector<std::string>{"main", "\xff"}));
    auto status = client()->status("br\xff\x01nch");
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(service_.asked, "br\xff\x01nch");
    EXPECT_EQ(status.error().code, Errc::kNotFound);
    EXPECT_EQ(status.error().message, "no branch br\xff\x01nch");
}

TEST_F(ServerTest, ErrorsTravel) {
    auto released = client()->release_branch("main");
    ASSERT_FALSE(released.ok());
    EXPECT_EQ(released.error().code, Errc::kBusy);
    EXPECT_EQ(released.error().message, "main: open files");
    auto thrown = client()->release_branch("throw");
    ASSERT_FALSE(thrown.ok());
    EXPECT_EQ(thrown.error().code, Errc::kInternal);
    expect_alive();
}

TEST_F(ServerTest, ChangingCommandsWaitForTheKernel) {
    EXPECT_TRUE(client()->branches_changed().ok());
    EXPECT_EQ(service_.changes, 1);
    EXPECT_EQ(service_.settled, 1);
}

TEST_F(ServerTest, SocketAndItsDirectoryAreClosedToOthers) {
    struct stat st {};
    ASSERT_EQ(::stat(server_->socket_path().c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u);
    ASSERT_EQ(::stat(runtime_dir().c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0700u);
    std::string path = server_->socket_path();
    server_.reset();
    EXPECT_NE(::stat(path.c_str(), &st), 0);
}

TEST_F(ServerTest, OnlyItsOwnUserAndRootMayConnect) {
    EXPECT_TRUE(may_connect(1000, 1000));
    EXPECT_TRUE(may_connect(0, 1000));
    EXPECT_TRUE(may_connect(0, 0));
    EXPECT_FALSE(may_connect(1001, 1000));
    EXPECT_FALSE(may_connect(1000, 0));
}

// By the credentials that the kernel tells of the peer. Root may connect everywhere, so there it is a child that
// becomes somebody else; a user without such rights asks the daemon of somebody else.
TEST_F(ServerTest, AnotherUserIsRefused) {
    bool root = ::geteuid() == 0;
    if (!root) {
        auto other = start_server_of(::geteuid() + 1, service_);
        ASSERT_TRUE(other.ok()) << other.error().message;
        server_ = std::move(*other);
    }
    ::chmod(dir_.c_str(), 0755);
    ::chmod(runtime_dir().c_str(), 0755);
    ::chmod(server_->socket_path().c_str(), 0666);
    pid_t child = ::fork();
    if (child == 0) {
        if (root && ::setuid(65534) != 0) ::_exit(3);
        auto connected = Client::connect(server_->socket_path());
        ::_exit(!connected && connected.error().code == Errc::kAccess ? 0 : 1);
    }
    int state = 0;
    ::waitpid(child, &state, 0);
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << state;
    EXPECT_EQ(service_.infos, 0);
}

TEST_F(ServerTest, ForeignRuntimeDirectoryIsNotUsed) {
    std::string dir = "/usr";  // root's
    if (::geteuid() == 0) {
        dir = dir_ + "/foreign";
        ASSERT_EQ(::mkdir(dir.c_str(), 0777), 0);
        ASSERT_EQ(::chown(dir.c_str(), 65534, 65534), 0);
    }
    auto made = make_runtime_dir(dir);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().code, Errc::kAccess);
    std::filesystem::create_symlink(dir, dir_ + "/link");
    EXPECT_FALSE(make_runtime_dir(dir_ + "/link").ok());
    ::setenv("XDG_RUNTIME_DIR", dir.c_str(), 1);  // as under sudo
    EXPECT_NE(runtime_dir(), dir + "/coral");
    ::setenv("XDG_RUNTIME_DIR", dir_.c_str(), 1);
    EXPECT_EQ(runtime_dir(), dir_ + "/coral");
}

TEST_F(ServerTest, GarbageIsRefusedAndTheConnectionEnds) {
    for (const char* line : {"hello", "{", "[]", "\xff\xfe", "", "{\"command\":"}) {
        LineChannel channel = raw();
        ASSERT_TRUE(channel.write_line(line).ok());
        auto answer = channel.read_line(5000);
        ASSERT_TRUE(answer.ok()) << line;
        EXPECT_FALSE(Json::parse(*answer).at("ok").get<bool>());
        EXPECT_EQ(channel.read_line(5000).error().code, Errc::kNoData);
    }
    expect_alive();
}

TEST_F(ServerTest, WrongRequestsAreRefusedAndTheConnectionGoesOn) {
    LineChannel channel = raw();
    const char* lines[] = {
        "{}",
        R"({"command":7})",
        R"({"command":"fly"})",
        R"({"command":"commit"})",
        R"({"command":"commit","branch":"main","options":[]})",
        R"({"command":"status","branch":"%f"})",
        R"({"command":"restore","branch":"main","source":"zz","paths":[]})",
        R"({"command":"restore","branch":"main","source":"00","paths":{"a":1}})",
        R"({"command":"place","branch":"main","requests":[{"path":"x"}]})",
        R"({"command":"hello","branch":"main"})",
        R"({"command":["info"]})",
    };
    for (const char* line : lines) {
        ASSERT_TRUE(channel.write_line(line).ok());
        auto answer = channel.read_line(5000);
        ASSERT_TRUE(answer.ok()) << line;
        EXPECT_FALSE(Json::parse(*answer).at("ok").get<bool>()) << *answer;
    }
    ASSERT_TRUE(channel.write_line(R"({"command":"info"})").ok());
    EXPECT_TRUE(Json::parse(*channel.read_line(5000)).at("ok").get<bool>());
}

TEST_F(ServerTest, AnEndlessLineIsCutOff) {
    LineChannel channel = raw();
    std::string piece(1 << 20, 'x');
    auto fd = connect_to(server_->socket_path(), 1000);
    ASSERT_TRUE(fd.ok());
    bool refused = false;
    for (int i = 0; i < 64 && !refused; ++i) {
        std::size_t done = 0;
        while (done < piece.size() && !refused) {
            ssize_t n = ::send(fd->get(), piece.data() + done, piece.size() - done, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n > 0)
                done += static_cast<std::size_t>(n);
            else if (errno == EAGAIN)
                std::this_thread::sleep_for(1ms);
            else
                refused = true;
        }
    }
    EXPECT_TRUE(refused);
    expect_alive();
}

TEST_F(ServerTest, HalfALineAndAway) {
    for (int i = 0; i < 100; ++i) {
        auto fd = connect_to(server_->socket_path(), 1000);
        ASSERT_TRUE(fd.ok());
        (void)!::send(fd->get(), "{\"comm", 6, MSG_NOSIGNAL);
    }
    expect_alive();
}

TEST_F(ServerTest, LeavesWithoutWaitingForTheAnswer) {
    service_.delay_ms = 100;
    for (int i = 0; i < 5; ++i) {
        LineChannel channel = raw();
        ASSERT_TRUE(channel.write_line(R"({"command":"branches_changed"})").ok());
    }
    for (int i = 0; i < 200 && service_.changes < 5; ++i) std::this_thread::sleep_for(10ms);
    EXPECT_EQ(service_.changes, 5);
    expect_alive();
}

TEST_F(ServerTest, ManyRequestsInOnePiece) {
    LineChannel channel = raw();
    std::string requests;
    for (int i = 0; i < 99; ++i) requests += "{\"command\":\"info\"}\n";
    ASSERT_TRUE(channel.write_line(requests + R"({"command":"info"})").ok());
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(channel.read_line(5000).ok()) << i;
}

TEST_F(ServerTest, TooManyConnectionsAreToldSo) {
    std::vector<LineChannel> held;
    bool told = false;
    for (int i = 0; i < 80 && !told; ++i) {
        held.push_back(raw());
        (void)held.back().write_line(R"({"command":"info"})");
        auto answer = held.back().read_line(5000);
        if (!answer) continue;
        Json json = Json::parse(*answer);
        told = !json.at("ok").get<bool>() && error_from(json).code == Errc::kBusy;
    }
    EXPECT_TRUE(told);
    held.clear();
    for (int i = 0; i < 100; ++i) {
        if (Client::connect(server_->socket_path()).ok()) return;
        std::this_thread::sleep_for(20ms);
    }
    FAIL() << "connections that ended are still counted";
}

// By a user who may have no more tasks: root is never refused one.
TEST_F(ServerTest, WithoutAnotherThreadTheServerGoesOn) {
    server_.reset();
    std::filesystem::remove_all(runtime_dir());
    ASSERT_TRUE(::geteuid() != 0 || ::chown(dir_.c_str(), kSomebody, kSomebody) == 0);
    pid_t child = ::fork();
    if (child == 0) {
        ::alarm(60);
        ::_exit(serve_without_threads(service_));
    }
    int state = 0;
    ::waitpid(child, &state, 0);
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << state;
}

TEST_F(ServerTest, LongCommandsGiveSignsOfLife) {
    service_.delay_ms = 4500;
    LineChannel channel = raw();
    ASSERT_TRUE(channel.write_line(R"({"command":"branches_changed"})").ok());
    auto line = channel.read_line(3500);
    ASSERT_TRUE(line.ok());
    EXPECT_TRUE(Json::parse(*line).contains("progress"));
    EXPECT_TRUE(client()->info().ok());  // others are served meanwhile
}

TEST_F(ServerTest, DestructorWaitsForRunningCommands) {
    service_.delay_ms = 400;
    LineChannel channel = raw();
    ASSERT_TRUE(channel.write_line(R"({"command":"branches_changed"})").ok());
    std::this_thread::sleep_for(100ms);
    server_.reset();
    EXPECT_EQ(service_.changes, 1);
}

// More than a socket's buffer holds: the answer is half way when the server ends.
TEST_F(ServerTest, DestructorWaitsForAnswersToBeTaken) {
    service_.more_bytes = 8 << 20;
    LineChannel channel = raw();
    ASSERT_TRUE(channel.write_line(R"({"command":"info"})").ok());
    for (int i = 0; i < 500 && !service_.infos; ++i) std::this_thread::sleep_for(10ms);
    ASSERT_EQ(service_.infos, 1);
    std::thread ender([&] { server_.reset(); });
    std::this_thread::sleep_for(300ms);
    auto answer = channel.read_line(5000);
    ender.join();
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_GT(answer->size(), std::size_t{8 << 20});
}

TEST_F(ServerTest, StopIsAnsweredThoughTheServerEndsAtOnce) {
    for (int round = 0; round < 100; ++round) {
        std::thread ender([&] {
            while (!service_.stops) std::this_thread::yield();
            server_.reset();
        });
        auto stopped = client()->stop();
        ender.join();
        ASSERT_TRUE(stopped.ok()) << "round " << round << ": " << stopped.error().message;
        service_.stops = 0;
        auto again = Server::start(service_);
        ASSERT_TRUE(again.ok());
        server_ = std::move(*again);
    }
}

TEST_F(ServerTest, DrainedServerRefuses) {
    server_->drain();
    auto connected = Client::connect(server_->socket_path());
    ASSERT_FALSE(connected.ok());
    EXPECT_EQ(connected.error().code, Errc::kBusy);
}

TEST_F(ServerTest, StopReturnsWhenTheServerIsGone) {
    std::atomic<bool> gone{false}, early{false};
    std::thread ender([&] {
        while (!service_.stops) std::this_thread::sleep_for(1ms);
        server_->drain();
        std::this_thread::sleep_for(300ms);
        gone = true;
        server_.reset();
    });
    EXPECT_TRUE(client()->stop().ok());
    early = !gone;
    ender.join();
    EXPECT_FALSE(early);
}

TEST_F(ServerTest, StopThatIsRefusedLeavesTheServer) {
    service_.refuse_stop = true;
    auto stopped = client()->stop();
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().code, Errc::kBusy);
    expect_alive();
}

TEST_F(ServerTest, WhoAskedToStopIsToldWhyTheDaemonGoesOn) {
    service_.pinned = true;
    auto stopped = client()->stop();
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().code, Errc::kBusy);
    EXPECT_EQ(stopped.error().message, "somebody has it still");
    expect_alive();
}

TEST_F(ServerTest, DeadSocketsAreRemovedLiveOnesStay) {
    std::string dead = runtime_dir() + "/1-dead.sock";
    { auto fd = listen_at(dead); }
    ASSERT_EQ(::access(dead.c_str(), F_OK), 0);
    FakeService other;
    auto second = Server::start(other);
    ASSERT_TRUE(second.ok());
    EXPECT_NE(::access(dead.c_str(), F_OK), 0);
    expect_alive();
}

TEST_F(ServerTest, ConnectToNothing) {
    auto connected = Client::connect(dir_ + "/none.sock");
    ASSERT_FALSE(connected.ok());
    EXPECT_EQ(connected.error().code, Errc::kNotFound);
    EXPECT_FALSE(Client::connect("/tmp/" + std::string(200, 'x')).ok());
}

TEST_F(ServerTest, ClientDropsAServerThatLies) {
    std::string path = dir_ + "/liar.sock";
    auto listener = listen_at(path);
    ASSERT_TRUE(listener.ok());
    const char* answers[] = {"nonsense",
                             "[]",
                             "{}",
                             R"({"ok":true,"result":{"pid":"x"}})",
                             R"({"ok":false})",
                             R"({"ok":false,"errc":1,"error":"%"})",
                             R"({"progress":3})"};
    std::thread liar([&] {
        for (const char* answer : answers) {
            auto fd = accept_from(listener->get(), -1);
            LineChannel channel(std::move(*fd));
            (void)channel.read_line(5000);
            (void)channel.write_line(answer);
        }
    });
    for (const char* answer : answers) EXPECT_FALSE(Client::connect(path).ok()) << answer;
    liar.join();
}

}  // namespace
}  // namespace coral::control
