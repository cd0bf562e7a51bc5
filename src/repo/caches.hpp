// SPDX-License-Identifier: Apache-2.0
// Decoded history objects, bounded by bytes; and descriptors of staging files, bounded by number.
#pragma once

#include "coral/base/lru.hpp"
#include "coral/repo/repository.hpp"

namespace coral::repo {

struct Repository::Caches {
    Lru<TreeId, const Tree> trees{64u << 20};
    Lru<CommitId, const Commit> commits{16u << 20};
    Lru<TagId, const Tag> tags{1u << 20};
    Lru<SegmentId, const Xattrs> xattrs{4u << 20};
};

}  // namespace coral::repo
