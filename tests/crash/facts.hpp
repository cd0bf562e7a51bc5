// SPDX-License-Identifier: Apache-2.0
// What a workload did and what it was promised, in terms of positions in the log: the model that a reopened repository
// is compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coral/base/ids.hpp"

namespace coral::test {

inline constexpr std::size_t kNever = ~std::size_t{0};

// One state of a path. `begun`: nothing of it can be seen before; `done`: a kill does not take it back; `durable`: a
// power cut does not either. A failed attempt may have left anything.
struct Version {
    std::optional<std::string> content;  // nothing: the path does not exist
    std::size_t begun = 0, done = kNever, durable = kNever;
    bool failed = false;
    bool in_place = false;  // what it does not change is as it was before, whatever happens
};

// A file went from one name to another in one step, and its bytes were durable before: it is always under one of them.
struct Rename {
    std::string from, to, content;
    std::size_t begun = 0;
};

struct CommitFact {
    std::size_t begun = 0, done = kNever;
    std::optional<CommitId> id;                // not known when the call failed
    std::map<std::string, std::string> files;  // everything in it
    std::set<std::string> unknown;             // paths whose state nobody knew
};

struct RefFact {
    std::string name;
    CommitId target;
    std::size_t begun = 0, done = kNever;
};

struct Facts {
    std::size_t initialised = kNever;
    std::map<std::string, std::vector<Version>> files;
    std::vector<Rename> renames;
    std::vector<CommitFact> commits;  // of the branch main, in order
    std::vector<RefFact> refs;        // others; made once
    std::vector<std::string> errors;  // that calls reported
};

}  // namespace coral::test
