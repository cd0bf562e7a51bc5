// SPDX-License-Identifier: Apache-2.0
// The words after -o: ours, the kernel's, and those that mount(8) and fstab pass along.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coral/base/result.hpp"
#include "coral/vfs/filesystem.hpp"

namespace coral::fuse {

struct MountOptions {
    bool read_only = false;
    bool allow_other = false, allow_root = false, auto_unmount = false, nonempty = false;
    bool guard = false;  // nobody may write into the folder below, mounted or not
    bool share = true;
    bool passthrough = true;  // where the kernel allows it
    bool supervisor = true;
    bool keep_new_pages = false;
    std::uint64_t backlog = std::uint64_t{16} << 30;  // bytes that may wait for their ingest
    std::uint64_t hot_size = std::uint64_t{8} << 30, cache_size = std::uint64_t{16} << 30;  // of plain files
    vfs::Options::Materialize materialize = vfs::Options::Materialize::kAuto;
    bool debug = false;
    std::optional<std::uint64_t> memory, readahead;  // bytes
    std::optional<unsigned> threads;
    std::optional<unsigned> readahead_kb;  // of the kernel's; 0: leave it
    std::string fsname;                    // empty: the repository's path
    std::vector<std::string> kernel;       // noexec, noatime, …: handed on as they are
};

// Words are split at commas; "\," and "\\" stand for themselves. Later words win.
Status parse_mount_options(std::string_view words, MountOptions& options);
Result<std::uint64_t> parse_size(std::string_view text);  // "512M"

// The string for fuse_session_new's -o.
std::string fuse_arguments(const MountOptions& options, const std::string& repository);
std::string escape_option(std::string_view value);
std::string source_name(const MountOptions& options, const std::string& repository);

}  // namespace coral::fuse
