// SPDX-License-Identifier: Apache-2.0
// Which way the bytes of an open branch file go. The mode belongs to the inode while it has handles:
//
//   kIdle ──open write-only──► kDirect(n)          kIdle ──any other open──► kCached(n)
//   any open while kDirect: direct                 any open while kCached: cached
//   last handle closed: kIdle
//
// Direct handles cost no second copy in memory, but a shared mapping of them is refused by the kernel, and the kernel's
// pages do not see what they write. So a direct handle that was flushed or synced and has written nothing since does
// not bind the inode any more (the kernel's RELEASE comes some time after close(2), often after the next OPEN): the
// next open is cached. If such a handle writes again after all (a descriptor shared by fork), the pages have to be
// dropped by a notification.
//
// Passthrough will be a third state here: it excludes both others and needs the backing id of the first open.
#pragma once

#include <cstdint>

#include "coral/vfs/filesystem.hpp"

namespace coral::vfs {

// Not thread-safe: the node's mutex guards it.
class IoState {
  public:
    enum class State { kIdle, kCached, kDirect };
    enum class Want { kCached, kDirect };
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

    Decision open(Want want);
    void close(Ticket& ticket);
    // A write through the handle. True: pages that the kernel may hold are wrong now and must be dropped.
    bool wrote(Ticket& ticket);
    void flushed(Ticket& ticket);
    // The bytes changed otherwise than through this kernel.
    void changed_outside() { pages_stale_ = true; }

    State state() const;
    std::uint32_t cached() const { return cached_; }
    std::uint32_t direct() const { return direct_; }

  private:
    std::uint32_t cached_ = 0;
    std::uint32_t direct_ = 0;   // all direct handles
    std::uint32_t binding_ = 0;  // of these, those that may go on writing
    bool pages_stale_ = false;   // the kernel may hold pages from before a direct write
};

}  // namespace coral::vfs
