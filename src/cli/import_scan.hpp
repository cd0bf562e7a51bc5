// SPDX-License-Identifier: Apache-2.0
// What `coral add` is to take: looked at as a whole before the first byte is stored.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli/output.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {

struct ImportItem {
    enum class Kind { kFile, kSymlink, kDirectory };
    Kind kind = Kind::kFile;
    std::string source;  // outside
    std::string target;  // path in the branch
    std::string link;    // text of a symlink
    FileStat stat;
};

struct ImportPlan {
    std::vector<ImportItem> items;  // folders before what is in them
    std::uint64_t files = 0, bytes = 0;
};

struct ScanOptions {
    bool follow_links = false;
    std::string repository;  // is never taken into itself, nor is a mount of it
};

// Every (source, target) pair with all below it. A source that is missing is kNotFound; sockets, devices and FIFOs are
// refused by name. Nothing is opened yet.
Result<ImportPlan> scan_sources(const std::vector<std::pair<std::string, std::string>>& sources,
                                const ScanOptions& options, Output& out);

}  // namespace coral::cli
