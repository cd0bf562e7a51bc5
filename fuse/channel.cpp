// SPDX-License-Identifier: Apache-2.0
#include "channel.hpp"

#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "coral/base/log.hpp"
#include "passthrough.hpp"

namespace coral::fuse {

namespace {

constexpr std::uint32_t kOpInit = 26;
constexpr std::int32_t kNotifyResend = 7;
constexpr std::uint64_t kSentAgain = std::uint64_t{1} << 63;
constexpr std::uint64_t kOurInit = std::uint64_t{1} << 62;  // the kernel's numbers begin at 2 and never come so far
constexpr std::uint32_t kInitExt = 1u << 30;
constexpr std::uint32_t kInit2Resend = 1u << 7;  // FUSE_HAS_RESEND, bit 39 of both

struct InHeader {
    std::uint32_t length, opcode;
    std::uint64_t unique;
};
struct OutHeader {
    std::uint32_t length;
    std::int32_t error;
    std::uint64_t unique;
};
constexpr std::size_t kPage = 4096;
constexpr std::size_t kInHeaderSize = 40, kUniqueOffset = 8, kInitFlags = 12, kInitFlags2 = 16;

vfs::Handover* handover = nullptr;
enum class Replay { kNone, kDue, kHanded };
std::atomic<Replay> replay{Replay::kNone};

template <class T>
T load(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

bool offers_resend(const char* init, std::size_t size) {
    if (size < kInHeaderSize + kInitFlags2 + 4) return false;
    return (load<std::uint32_t>(init + kInHeaderSize + kInitFlags) & kInitExt) &&
           (load<std::uint32_t>(init + kInHeaderSize + kInitFlags2) & kInit2Resend);
}

ssize_t hand_init_again(void* buffer, std::size_t size) {
    Buffer init = handover->init();
    if (init.size() > size) {
        errno = EIO;
        return -1;
    }
    std::memcpy(buffer, init.data(), init.size());
    std::memcpy(static_cast<char*>(buffer) + kUniqueOffset, &kOurInit, sizeof kOurInit);
    return static_cast<ssize_t>(init.size());
}

void note(const char* bytes, std::size_t size) {
    Passthrough::note_request(bytes, size);
    vfs::CurrentRequest& current = vfs::current_request();
    current = {};
    if (size < kInHeaderSize || !handover) return;
    auto header = load<InHeader>(bytes);
    current.unique = header.unique & ~kSentAgain;
    current.again = header.unique & kSentAgain;
    if (header.opcode != kOpInit || header.unique == kOurInit) return;
    handover->set_resends(offers_resend(bytes, size));
    handover->keep_init(as_bytes({bytes, size}));
}

// When a process is killed while the kernel copies a request into a page of it that is not there yet, the request ends
// with EIO: the kernel cannot fault the page in any more, and takes that for a wrong address (fuse_dev_do_read). With
// pages that are there it copies to the end. So each thread's buffer is touched before its first use.
void make_present(void* buffer, std::size_t size) {
    thread_local void* present = nullptr;
    if (!handover || present == buffer) return;
    auto* bytes = static_cast<volatile char*>(buffer);
    for (std::size_t at = 0; at < size; at += kPage) bytes[at] = 0;
    present = buffer;
}

ssize_t read_request(int fd, void* buffer, size_t size, void*) {
    make_present(buffer, size);
    ssize_t got;
    Replay due = Replay::kDue;
    if (replay != Replay::kNone && replay.compare_exchange_strong(due, Replay::kHanded)) {
        got = hand_init_again(buffer, size);
    } else {
        // libfuse starts the next thread before the first one has dealt with INIT.
        while (replay != Replay::kNone) ::usleep(200);
        got = ::read(fd, buffer, size);
    }
    note(static_cast<const char*>(buffer), got < 0 ? 0 : static_cast<std::size_t>(got));
    return got;
}

// The kernel has been answered long ago. Now it may send again what our predecessor has left.
ssize_t swallow_init(int fd, const iovec* iov, int count) {
    ssize_t length = 0;
    for (int i = 0; i < count; ++i) length += static_cast<ssize_t>(iov[i].iov_len);
    OutHeader resend{sizeof(OutHeader), kNotifyResend, 0};
    if (::write(fd, &resend, sizeof resend) < 0)
        log_error("the kernel does not send again what was not answered: {}", std::strerror(errno));
    replay = Replay::kNone;
    return length;
}

ssize_t write_answer(int fd, iovec* iov, int count, void*) {
    auto header = load<OutHeader>(iov[0].iov_base);
    if (header.unique == kOurInit && replay == Replay::kHanded) return swallow_init(fd, iov, count);
    Passthrough::amend_answer(iov, count);
    ssize_t written = ::writev(fd, iov, count);
    if (handover && header.unique != 0) {
        int error = errno;
        handover->answered();
        handover->count_answer();
        errno = error;
    }
    return written;
}

}  // namespace

Status open_channel(fuse_session* session, vfs::Handover* of_worker) {
    handover = of_worker;
    replay = handover && !handover->init().empty() ? Replay::kDue : Replay::kNone;
    fuse_custom_io io{};
    io.read = read_request;
    io.writev = write_answer;
    if (int error = fuse_session_custom_io(session, &io, fuse_session_fd(session)); error != 0)
        return make_error(Errc::kUnsupported, fmt::format("fuse_session_custom_io: {}", std::strerror(-error)));
    return {};
}

}  // namespace coral::fuse
