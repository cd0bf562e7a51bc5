// SPDX-License-Identifier: Apache-2.0
// Changes of a commit or a worktree, as text.
#pragma once

#include <string>
#include <vector>

#include "cli/output.hpp"
#include "coral/repo/diff.hpp"

namespace coral::cli {

// Changes of `commit` against its first parent (or nothing).
Result<std::vector<repo::Change>> changes_of(repo::Repository& repository, const repo::Commit& commit);

// "    modified:  a/b  (1.2 GiB -> 1.3 GiB)", one a line.
void print_changes(Output& out, const std::vector<repo::Change>& changes);

struct ChangeCounts {
    std::uint64_t added = 0, modified = 0, deleted = 0;
    std::uint64_t bytes = 0;  // of files that are new or other than before
};
ChangeCounts count_changes(const std::vector<repo::Change>& changes);
std::string counts_text(const ChangeCounts& counts);  // "3 files changed (2 added, 1 modified), 1.2 GiB"

}  // namespace coral::cli
