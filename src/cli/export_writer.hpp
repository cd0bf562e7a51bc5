// SPDX-License-Identifier: Apache-2.0
// Real files from a commit. Nothing is ever written through a symlink, nor over what is there unless that was asked
// for.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "coral/repo/repository.hpp"

namespace coral::cli {

class ExportWriter {
  public:
    using Advance = std::function<void(std::uint64_t bytes)>;
    ExportWriter(repo::Repository& repository, bool force, Advance advance)
        : repository_(repository), force_(force), advance_(std::move(advance)) {}

    // `dest` is made, or is an empty directory (any directory with force), and becomes `tree`.
    Status write_tree(const TreeId& tree, const std::string& dest);
    // `dest` becomes the file or symlink.
    Status write_entry(const repo::TreeEntry& entry, const std::string& dest);

    std::uint64_t files() const { return files_; }

  private:
    class Dir;
    Status fill(Dir dir, const TreeId& tree);
    Status put(const Dir& dir, const repo::TreeEntry& entry, const std::string& name, const std::string& shown);
    Status put_file(const Dir& dir, const repo::TreeEntry& entry, const std::string& temporary,
                    const std::string& shown);

    repo::Repository& repository_;
    bool force_;
    Advance advance_;
    std::uint64_t files_ = 0;
};

}  // namespace coral::cli
