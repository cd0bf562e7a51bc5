// SPDX-License-Identifier: Apache-2.0
#include "passthrough.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "coral/base/log.hpp"

namespace coral::fuse {

namespace {

// The kernel's interface. Debian 12's <linux/fuse.h> is older than passthrough, so it is written down here.
constexpr std::uint32_t kOpSetattr = 4, kOpOpen = 14, kOpWrite = 16, kOpInit = 26, kOpCreate = 35;
constexpr std::uint32_t kInitExt = 1u << 30;             // of flags: flags2 means something
constexpr std::uint32_t kInit2Passthrough = 1u << 5;     // of flags2: FUSE_PASSTHROUGH, bit 37 of both
constexpr std::uint32_t kInit2DirectMaps = 1u << 4;      // of flags2: FUSE_DIRECT_IO_ALLOW_MMAP, bit 36
constexpr std::uint32_t kInitKillPrivileges = 1u << 28;  // of flags: FUSE_HANDLE_KILLPRIV_V2
constexpr std::uint32_t kOpenPassthrough = 1u << 7;      // FOPEN_PASSTHROUGH

struct InHeader {
    std::uint32_t length, opcode;
    std::uint64_t unique;
};
struct OutHeader {
    std::uint32_t length;
    std::int32_t error;
    std::uint64_t unique;
};
constexpr std::size_t kInHeaderSize = 40, kInitIn2Offset = 16;
constexpr std::size_t kInitFlags = 12, kInitFlags2 = 32, kInitStackDepth = 36, kInitSize = 64;
// Where a request says that set-user-id must go: the field's offset in its body, and the bit.
struct KillBit {
    std::uint32_t opcode, offset, bit;
};
constexpr KillBit kKillBits[] = {
    {kOpSetattr, 0, 1u << 11},  // FATTR_KILL_SUIDGID of valid
    {kOpOpen, 4, 1u << 0},      // FUSE_OPEN_KILL_SUIDGID of open_flags
    {kOpWrite, 20, 1u << 2},    // FUSE_WRITE_KILL_SUIDGID of write_flags
    {kOpCreate, 12, 1u << 0},
};
struct OpenOut {
    std::uint64_t handle;
    std::uint32_t flags;
    std::int32_t backing;
};
constexpr std::size_t kEntryOutSize = 128;

struct BackingMap {
    std::int32_t descriptor;
    std::uint32_t flags;
    std::uint64_t padding;
};
#define CORAL_BACKING_OPEN _IOW(229, 1, BackingMap)
#define CORAL_BACKING_CLOSE _IOW(229, 2, std::uint32_t)

// libfuse handles a request in the thread that has read it, and our handlers answer in theirs.
struct Current {
    std::uint64_t unique = 0;
    std::uint32_t opcode = 0, backing = 0;
    bool kills_privileges = false;
};
thread_local Current current;
std::atomic<bool> wanted_passthrough{false};  // one session per process
std::atomic<bool> kernel_offers{false}, kernel_kills{false}, kernel_maps_direct{false};

template <class T>
T load(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class T>
void store(char* to, T value) {
    std::memcpy(to, &value, sizeof value);
}

// The answer's body lies in one piece behind the header (libfuse's own structs), or there is nothing for us in it.
void amend(iovec* iov, int count) {
    if (count < 2 || iov[0].iov_len != sizeof(OutHeader)) return;
    auto header = load<OutHeader>(static_cast<const char*>(iov[0].iov_base));
    if (header.unique != current.unique || header.error != 0) return;
    char* body = static_cast<char*>(iov[1].iov_base);
    std::size_t size = iov[1].iov_len;
    if (current.opcode == kOpInit && kernel_kills && size >= kInitFlags + 4)
        store(body + kInitFlags, load<std::uint32_t>(body + kInitFlags) | kInitKillPrivileges);
    if (current.opcode == kOpInit && size >= kInitSize) {
        std::uint32_t wanted = kernel_maps_direct ? kInit2DirectMaps : 0;
        if (wanted_passthrough && kernel_offers) {
            wanted |= kInit2Passthrough;
            store(body + kInitStackDepth, std::uint32_t{1});
        }
        if (wanted == 0) return;
        store(body + kInitFlags, load<std::uint32_t>(body + kInitFlags) | kInitExt);
        store(body + kInitFlags2, load<std::uint32_t>(body + kInitFlags2) | wanted);
        return;
    }
    if (current.backing == 0) return;
    std::size_t at = current.opcode == kOpCreate ? kEntryOutSize : 0;
    if ((current.opcode != kOpOpen && current.opcode != kOpCreate) || size < at + sizeof(OpenOut)) return;
    auto open = load<OpenOut>(body + at);
    open.flags |= kOpenPassthrough;
    open.backing = static_cast<std::int32_t>(current.backing);
    store(body + at, open);
}

}  // namespace

void Passthrough::note_request(const char* bytes, std::size_t size) {
    current = {};
    if (size < kInHeaderSize) return;
    auto header = load<InHeader>(bytes);
    current.unique = header.unique;
    current.opcode = header.opcode;
    const char* body = bytes + kInHeaderSize;
    std::size_t size_of_body = size - kInHeaderSize;
    for (const KillBit& one : kKillBits) {
        if (header.opcode == one.opcode && size_of_body >= one.offset + 4)
            current.kills_privileges = load<std::uint32_t>(body + one.offset) & one.bit;
    }
    if (header.opcode == kOpInit && size_of_body >= kInitFlags + 4)
        kernel_kills = load<std::uint32_t>(body + kInitFlags) & kInitKillPrivileges;
    if (header.opcode == kOpInit && size_of_body >= kInitIn2Offset + 4) {
        const bool more = load<std::uint32_t>(body + kInitFlags) & kInitExt;
        const auto offered = more ? load<std::uint32_t>(body + kInitIn2Offset) : 0u;
        kernel_offers = offered & kInit2Passthrough;
        kernel_maps_direct = offered & kInit2DirectMaps;
    }
}

void Passthrough::amend_answer(iovec* iov, int count) {
    if (current.opcode == kOpInit || current.backing != 0) amend(iov, count);
}

void Passthrough::attach(fuse_session* session, const std::string& why_not) {
    wanted_passthrough = why_not.empty();
    if (!why_not.empty()) refuse(why_not);
    device_ = fuse_session_fd(session);
}

void Passthrough::go_on(bool usable) {
    if (usable)
        usable_ = true;
    else if (wanted_passthrough)  // else the reason is known
        refuse("the kernel or the user's rights do not allow it");
}

void Passthrough::refuse(std::string reason) {
    std::lock_guard lock(mutex_);
    usable_ = false;
    why_not_ = std::move(reason);
}

std::string Passthrough::why_not() const {
    std::lock_guard lock(mutex_);
    return usable_ ? std::string() : why_not_;
}

void Passthrough::probe(int descriptor) {
    if (!wanted_passthrough) return;
    if (!kernel_offers) {
        refuse("the kernel does not offer it (Linux 6.9 or later, with CONFIG_FUSE_PASSTHROUGH)");
        return;
    }
    auto id = open_backing(descriptor);
    if (!id) {
        refuse(id.error().message);
        return;
    }
    close_backing(*id);
    usable_ = true;
}

Result<std::uint32_t> Passthrough::open_backing(int descriptor) {
    BackingMap map{descriptor, 0, 0};
    int id = ::ioctl(device_, CORAL_BACKING_OPEN, &map);
    if (id > 0) return static_cast<std::uint32_t>(id);
    switch (errno) {
        case EPERM:
            return make_error(Errc::kPermission, "it needs CAP_SYS_ADMIN (mount as root)");
        case ELOOP:
            return make_error(Errc::kUnsupported,
                              "the repository's filesystem is stacked upon another one (overlayfs)");
        default:
            return make_error(Errc::kUnsupported, fmt::format("the kernel refuses the file: {}", std::strerror(errno)));
    }
}

void Passthrough::close_backing(std::uint32_t id) {
    if (::ioctl(device_, CORAL_BACKING_CLOSE, &id) != 0)
        log_debug("passthrough: closing backing file {}: {}", id, std::strerror(errno));
}

bool Passthrough::kills_privileges() {
    return current.kills_privileges;
}

bool Passthrough::direct_can_be_mapped() {
    return kernel_maps_direct;
}

void Passthrough::answer_with(std::uint32_t backing) {
    current.backing = backing;
}

}  // namespace coral::fuse
