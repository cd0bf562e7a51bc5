// SPDX-License-Identifier: Apache-2.0
// Which way the bytes of an open branch file go. The mode belongs to the inode while it has handles:
//
//   kIdle ──open to save─────► kDirect(n)          kIdle ──any other open──► kCached(n)
//   any open while kDirect: direct                 any open while kCached: cached
//   kIdle without any handle ──begin_passthrough──► kPreparing ──passthrough_ready──► kPassthrough(n)
//   kPreparing: every open waits                      │ passthrough_refused: kIdle
//   any open while kPassthrough: passthrough, with the same backing id
//   last handle closed: kIdle
//   kDirect ──flush or sync of the last handle that binds──► kIdle, though it is open; it writes again ──► kDirect
//
// Each line has a test of its own in tests/unit/vfs/io_mode_test.cpp; that opens wait while kPreparing:
// OpensAtTheSameTimeAgreeOnOneMode.
//
// To save: write-only, or made with O_EXCL (open_mode.cpp). Direct handles cost no second copy in memory, but older
// kernels refuse a shared mapping of them, and the kernel's pages do not see what they write. So a direct handle that
// was flushed or synced and has written nothing since does not bind the inode any more (the kernel's RELEASE comes some
// time after close(2), often after the next OPEN): the next open is cached. If such a handle writes again after all (a
// descriptor shared by fork), the pages have to be dropped by a notification.
//
// Kernels before 6.9 have not been seen to keep such writes and the pages of earlier handles apart: there a write-only
// open is direct only as long as the inode was never open in another way (kDirectUnlessPages).
//
// Passthrough: the kernel reads and writes a file below without us. It answers EIO to an open that is not passthrough
// while one is, and to a passthrough open while one is cached (fs/fuse/iomode.c, Linux 6.9 and later). A handle counts
// here from its OPEN, that is before the kernel knows its mode, until its RELEASE has come, that is after the kernel
// has let go of it: so what is decided here is never looser than the kernel. (Direct handles that the kernel has taken
// bar nothing, but one whose answer is still on its way does, and we cannot tell them apart.)
#pragma once

#include <cstdint>
#include <string_view>

#include "coral/vfs/filesystem.hpp"

namespace coral::vfs {

// Not thread-safe: the node's mutex guards it.
class IoState {
  public:
    enum class State { kIdle, kCached, kDirect, kPreparing, kPassthrough };
    enum class Want { kCached, kDirect, kDirectUnlessPages };
    // One per handle, kept by the handle.
    struct Ticket {
        IoMode mode = IoMode::kCached;
        bool binding = false;  // a direct handle whose writes may go on
        bool open = false;
    };
    struct Decision {
        Ticket ticket;
        bool keep_cache = false;
    };

    // Not while kPreparing or kPassthrough.
    Decision open(Want want);
    bool may_begin_passthrough() const;
    void begin_passthrough() { preparing_ = true; }
    void passthrough_refused() { preparing_ = false; }
    // The first handle, after begin_passthrough, or another one. `writable`: pages the kernel holds become wrong.
    Ticket passthrough_ready(bool writable);
    // A handle that an earlier process had opened.
    Ticket resume(IoMode mode, bool writable);
    void close(Ticket& ticket);
    // A write through the handle. True: pages that the kernel may hold are wrong now and must be dropped.
    bool wrote(Ticket& ticket);
    void flushed(Ticket& ticket);
    // The bytes changed otherwise than through this kernel.
    void changed_outside() { pages_stale_ = true; }

    State state() const;
    std::uint32_t cached() const { return cached_; }
    std::uint32_t direct() const { return direct_; }
    std::uint32_t passthrough() const { return passthrough_; }

  private:
    std::uint32_t cached_ = 0;
    std::uint32_t direct_ = 0;   // all direct handles
    std::uint32_t binding_ = 0;  // of these, those that may go on writing
    std::uint32_t passthrough_ = 0;
    bool preparing_ = false;
    bool was_cached_ = false;   // ever, so the kernel may hold pages
    bool pages_stale_ = false;  // the kernel may hold pages from before a direct write
};

std::string_view to_string(IoState::State state);  // "idle", "cached", …: user.coral.io

}  // namespace coral::vfs
