// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>

#include "coral/vfs/filesystem.hpp"
#include "fuse_api.hpp"

namespace coral::fuse {

// The one place where an I/O mode becomes open flags. Passthrough will be a third case here: its flag and backing id
// are not in libfuse 3.14's fuse_file_info, so it will note them for the reply that follows (design, section 10).
inline void apply_io_mode(const vfs::Opened& opened, fuse_file_info& info) {
    info.fh = opened.handle;
    info.direct_io = opened.mode == vfs::IoMode::kDirect;
    info.keep_cache = opened.keep_cache;
    // What was only read has nothing to flush: saves a request per close.
    info.noflush = (info.flags & O_ACCMODE) == O_RDONLY;
}

}  // namespace coral::fuse
