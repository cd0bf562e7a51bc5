// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "coral/repo/repository.hpp"

namespace coral::repo {

enum class ChangeKind { kAdded, kModified, kDeleted, kTypeChanged, kModeChanged };

struct Change {
    ChangeKind kind = ChangeKind::kModified;
    std::string path;  // "a/b"
    std::uint64_t old_size = 0, new_size = 0;
    AnyId old_content, new_content;  // zero: none, or not known yet (being ingested)
    bool directory = false;          // an empty directory came or went, or a directory's mode changed
    bool incomplete = false;         // open for writing, or cut off by a crash: no commit takes it by itself
};
char change_letter(ChangeKind kind);  // A M D T m

// Changes from tree `a` to tree `b` (either may be the zero id: empty), sorted by path. Equal subtrees are never read.
// mtime alone is no change. `visit` returns an error to stop.
Status diff_trees(Repository& repo, const TreeId& a, const TreeId& b, const std::function<Status(const Change&)>& visit,
                  const std::string& prefix = {});

}  // namespace coral::repo
