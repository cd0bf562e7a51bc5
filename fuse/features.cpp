// SPDX-License-Identifier: Apache-2.0
#include "features.hpp"

#include <fmt/format.h>

#include "coral/base/thread_pool.hpp"

namespace coral::fuse {

namespace {

// Found in libfuse 3.9; a bit by number where an older header lacks the name.
#ifndef FUSE_CAP_EXPLICIT_INVAL_DATA
#define FUSE_CAP_EXPLICIT_INVAL_DATA (1 << 25)
#endif

// Not wanted, each for a reason:
//   WRITEBACK_CACHE   turns sequential writes into unordered ones and owns mtime (docs/decisions.md)
//   SPLICE_*          replies from memory are faster than from a descriptor, measured
//   AUTO_INVAL_DATA   drops a file's pages when its mtime changes, so after each of our own writes; contents of a node
//   never
//                     change behind the kernel's back here, that is what EXPLICIT_INVAL_DATA says
//   CACHE_SYMLINKS    HEAD and tags/ must be seen to move at once, whoever moves them
//   FLOCK, POSIX_LOCKS  the kernel does both by itself for a filesystem on one machine
//   HANDLE_KILLPRIV   its second version is negotiated in passthrough.cpp: libfuse 3.14 does not know it
//   ASYNC_DIO         the kernel (6.18) then drops cached pages before such a write only: who reads beside it keeps
//                     the old bytes in the cache
//   POSIX_ACL         not offered
constexpr unsigned kWanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ATOMIC_O_TRUNC |
                             FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                             FUSE_CAP_EXPORT_SUPPORT;

// What is read ahead, and what the page cache lacks: the kernel keeps the rest back. So these readers, however many
// there are and however slow the disk, leave some threads to everybody else.
unsigned max_background() {
    return serving_threads() - kThreadsForOthers;
}

constexpr unsigned kProtocolOf69 = 40;  // Linux 6.9 speaks FUSE 7.40

}  // namespace

unsigned serving_threads() {
    return 2 * static_cast<unsigned>(hardware_threads()) + 8 + kThreadsForOthers;
}

Features negotiate(fuse_conn_info& conn) {
    conn.want = conn.capable & kWanted;
    conn.max_write = kMaxIo;
    conn.max_background = max_background();
    conn.congestion_threshold = conn.max_background;  // above it the kernel would read ahead no more
    conn.time_gran = 1;

    Features f;
    f.protocol_major = conn.proto_major;
    f.protocol_minor = conn.proto_minor;
    f.coherent_direct_writes = conn.proto_major > 7 || conn.proto_minor >= kProtocolOf69;
    f.max_write = conn.max_write;
    f.max_readahead = conn.max_readahead;
    f.max_background = conn.max_background;
    f.async_read = conn.want & FUSE_CAP_ASYNC_READ;
    f.parallel_dirops = conn.want & FUSE_CAP_PARALLEL_DIROPS;
    f.atomic_truncate = conn.want & FUSE_CAP_ATOMIC_O_TRUNC;
    f.explicit_invalidation = conn.want & FUSE_CAP_EXPLICIT_INVAL_DATA;
    f.readdir_plus = conn.want & FUSE_CAP_READDIRPLUS;
    return f;
}

std::string Features::text() const {
    return fmt::format(
        "FUSE {}.{}, libfuse {}, max_write {}, max_readahead {}, max_background {}, async_read {}, parallel_dirops {}, "
        "atomic_truncate {}, explicit_invalidation {}, readdir_plus {}, direct_maps {}",
        protocol_major, protocol_minor, fuse_pkgversion(), max_write, max_readahead, max_background, async_read,
        parallel_dirops, atomic_truncate, explicit_invalidation, readdir_plus, direct_maps);
}

}  // namespace coral::fuse
