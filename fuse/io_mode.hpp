// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>

#include "coral/vfs/filesystem.hpp"
#include "fuse_api.hpp"
#include "passthrough.hpp"

namespace coral::fuse {

// The one place where an I/O mode becomes open flags. Passthrough's flag and backing id are not in libfuse 3.14's
// fuse_file_info: they are noted for the answer that follows.
inline void apply_io_mode(const vfs::Opened& opened, fuse_file_info& info) {
    info.fh = opened.handle;
    info.direct_io = opened.mode == vfs::IoMode::kDirect;
    info.keep_cache = opened.keep_cache;
    Passthrough::answer_with(opened.mode == vfs::IoMode::kPassthrough ? opened.backing : 0);
    // What was only read has nothing to flush: saves a request per close. Nor has what the kernel writes itself: its
    // end is RELEASE.
    info.noflush = (info.flags & O_ACCMODE) == O_RDONLY || opened.mode == vfs::IoMode::kPassthrough;
}

}  // namespace coral::fuse
