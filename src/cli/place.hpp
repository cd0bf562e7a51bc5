// SPDX-License-Identifier: Apache-2.0
// Where a command runs: in a repository's directory, or inside a mount, where extended attributes tell repository and
// branch.
#pragma once

#include <string>

#include "coral/base/result.hpp"

namespace coral::cli {

struct Place {
    std::string repository;  // absolute directory
    bool mounted = false;    // found through a mount
    std::string branch;      // inside a branch of the mount
    std::string commit;      // inside a commit of the mount: its id
    std::string path;        // from the top of that branch or commit, "" or "a/b"
    std::string directory;   // the absolute directory that was looked at
};

// What `dir` is, or lies in. Nothing found is kInvalid (a fatal error, not a "no").
Result<Place> find_place(const std::string& dir);

// `operand`, as it was typed at `place`, as a path from the top of the branch: "" or "a/b", without "." and "..".
// kInvalid when it leads out of the branch.
Result<std::string> path_in_branch(const Place& place, const std::string& operand);

// "a/./b/../c" -> "a/c", leading and trailing slashes gone; kInvalid above the top.
Result<std::string> normal_path(const std::string& path);

}  // namespace coral::cli
