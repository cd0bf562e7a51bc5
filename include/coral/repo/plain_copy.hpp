// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "coral/base/os.hpp"
#include "coral/store/store.hpp"

namespace coral::repo {

// Writes all bytes of a stored file into `out`, which is empty: decoded in parallel ahead of the writing, each chunk
// checked against its checksum. The room is taken from the disk first, so a full disk is found out before any work.
// kBusy when `stop` becomes true. Any thread; memory: 4 MiB and what the store's cache holds.
Status write_plain(store::Store& store, const std::shared_ptr<const store::FileRecord>& record, File& out,
                   const std::atomic<bool>& stop);

// Less room than this on a disk, and nothing is kept there that could be made again: 2 GiB or 1/20.
bool disk_is_short(Os& os, const std::string& path);

}  // namespace coral::repo
