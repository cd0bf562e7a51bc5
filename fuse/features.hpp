// SPDX-License-Identifier: Apache-2.0
// What kernel and library can do, decided in one place and turned into plain values.
#pragma once

#include <cstdint>
#include <string>

#include "fuse_api.hpp"

namespace coral::fuse {

inline constexpr unsigned kMaxIo = 1u << 20;  // of one READ or WRITE

// How many requests are carried out at the same time, and how many of them are never read-ahead (see features.cpp).
unsigned serving_threads();
inline constexpr unsigned kThreadsForOthers = 4;

struct Features {
    unsigned protocol_major = 0, protocol_minor = 0;
    unsigned max_write = 0, max_readahead = 0, max_background = 0;
    bool async_read = false;
    bool parallel_dirops = false;
    bool atomic_truncate = false;
    bool explicit_invalidation = false;
    bool readdir_plus = false;
    bool coherent_direct_writes = false;  // with pages that the kernel holds: seen on 6.18, believed from 6.9 on
    bool direct_maps = false;             // files that are open directly can be mapped: asked for beside libfuse

    std::string text() const;  // for the log
};

// Sets what we want in `conn` and says what we got.
Features negotiate(fuse_conn_info& conn);

}  // namespace coral::fuse
