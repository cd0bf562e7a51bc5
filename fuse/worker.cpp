// SPDX-License-Identifier: Apache-2.0
#include "worker.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "coral/base/log.hpp"
#include "coral/base/os.hpp"

namespace coral::fuse {

std::vector<std::string> to_words(const WorkerArguments& a) {
    constexpr std::size_t kMostPerWord = 1000;
    std::string text = fmt::format("{},{},{},{},{},{},{},{}", a.device, a.handover[0], a.handover[1], a.handover[2],
                                   a.supervisor, a.starter, a.background ? 1 : 0, a.supervisor_pid);
    std::vector<std::string> words{std::move(text)};
    for (std::size_t i = 0; i < a.locks.size(); ++i) {
        if (i % kMostPerWord == 0) words.emplace_back();
        if (!words.back().empty()) words.back() += ',';
        words.back() += fmt::format("{}={}", a.locks[i].first.text(), a.locks[i].second);
    }
    return words;
}

Result<WorkerArguments> worker_arguments_from(const std::vector<std::string>& given) {
    const Error wrong = make_error(Errc::kInvalid, "--worker is for the supervisor only");
    std::vector<std::string_view> words;
    for (const std::string& text : given) {
        for (std::size_t begin = 0; begin <= text.size();) {
            std::size_t end = std::min(text.find(',', begin), text.size());
            words.push_back(std::string_view(text).substr(begin, end - begin));
            begin = end + 1;
        }
    }
    bool good = words.size() >= 8;
    auto number = [&](std::string_view word) {
        int value = -1;
        auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
        good = good && error == std::errc() && end == word.data() + word.size();
        return value;
    };
    if (!good) return wrong;
    WorkerArguments a;
    a.device = number(words[0]);
    for (std::size_t i = 0; i < a.handover.size(); ++i) a.handover[i] = number(words[1 + i]);
    a.supervisor = number(words[4]);
    a.starter = number(words[5]);
    a.background = number(words[6]) == 1;
    a.supervisor_pid = number(words[7]);
    for (std::size_t i = 8; i < words.size(); ++i) {
        std::size_t equals = words[i].find('=');
        auto uuid = Uuid::parse(words[i].substr(0, equals));
        if (!uuid || equals == std::string_view::npos) return wrong;
        a.locks.emplace_back(*uuid, number(words[i].substr(equals + 1)));
    }
    if (!good) return wrong;
    return a;
}

bool send_message(int socket, const SupervisorMessage& message, int descriptor) {
    char bytes[17] = {static_cast<char>(message.order)};
    std::memcpy(bytes + 1, message.worktree.bytes.data(), 16);
    iovec part{bytes, sizeof bytes};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (descriptor >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        cmsghdr* with = CMSG_FIRSTHDR(&header);
        with->cmsg_level = SOL_SOCKET;
        with->cmsg_type = SCM_RIGHTS;
        with->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(with), &descriptor, sizeof descriptor);
    }
    ssize_t sent;
    do sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == static_cast<ssize_t>(sizeof bytes);
}

bool receive_message(int socket, SupervisorMessage& message, int& descriptor) {
    char bytes[17];
    iovec part{bytes, sizeof bytes};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    ssize_t got;
    do got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got != static_cast<ssize_t>(sizeof bytes)) return false;
    message.order = static_cast<SupervisorOrder>(bytes[0]);
    std::memcpy(message.worktree.bytes.data(), bytes + 1, 16);
    descriptor = -1;
    cmsghdr* with = CMSG_FIRSTHDR(&header);
    if (with && with->cmsg_level == SOL_SOCKET && with->cmsg_type == SCM_RIGHTS)
        std::memcpy(&descriptor, CMSG_DATA(with), sizeof descriptor);
    return true;
}

LockBox::LockBox(const WorkerArguments& arguments)
    : socket_(arguments.supervisor), inherited_(arguments.locks.begin(), arguments.locks.end()) {}

std::unique_ptr<File> LockBox::inherited(const Uuid& worktree) {
    std::lock_guard lock(mutex_);
    auto at = inherited_.find(worktree);
    if (at == inherited_.end()) return nullptr;
    int descriptor = at->second;
    inherited_.erase(at);
    return adopt_file(descriptor, "lock of worktree " + worktree.text());
}

void LockBox::keep(const Uuid& worktree, const File& lock) {
    if (!send_message(socket_, {SupervisorOrder::kKeep, worktree}, lock.native_handle()))
        log_warn("the supervisor does not answer: a daemon that follows this one must take the locks anew");
}

void LockBox::drop(const Uuid& worktree) {
    (void)send_message(socket_, {SupervisorOrder::kDrop, worktree}, -1);
}

int LockBox::inherited_socket() {
    std::lock_guard lock(mutex_);
    auto at = inherited_.find(Uuid{});
    if (at == inherited_.end()) return -1;
    int descriptor = at->second;
    inherited_.erase(at);
    return descriptor;
}

void LockBox::keep_socket(int descriptor) {
    (void)send_message(socket_, {SupervisorOrder::kKeep, {}}, descriptor);
}

void LockBox::close_connection() {
    (void)send_message(socket_, {SupervisorOrder::kClose, {}}, -1);
}

}  // namespace coral::fuse
