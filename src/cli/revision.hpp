// SPDX-License-Identifier: Apache-2.0
// REV, REV:PATH and A..B, and ids cut short.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "cli/context.hpp"
#include "coral/repo/repository.hpp"

namespace coral::cli {

// "REV:PATH", "REV", ":PATH" (the default commit's). Revisions hold no colon, so the first one divides.
struct Target {
    CommitId commit;
    std::shared_ptr<const repo::Commit> object;
    std::string path;       // "" is the top
    bool has_path = false;  // there was a colon
    std::string shown;      // "REV:PATH", for messages
};
Result<Target> parse_target(Context& context, const std::string& text);
Result<Target> default_target(Context& context);
// The entry that a target names; kNotFound says REV:PATH.
Result<repo::TreeEntry> target_entry(Context& context, const Target& target);
// Its file record; symlinks and directories are kInvalid, said by name.
Result<std::shared_ptr<const store::FileRecord>> target_file(Context& context, const Target& target);

// The first digits of an id, at least `least`, as many as it takes to mean one commit.
std::string short_id(repo::Repository& repository, const CommitId& id, std::size_t least = 7);

// Names of branches and tags by the commit they point at: "HEAD -> main", "tag: v1".
using Decorations = std::unordered_map<CommitId, std::vector<std::string>>;
Result<Decorations> decorations(repo::Repository& repository);
// The commit that a ref leads to, through an annotated tag.
Result<CommitId> peel(repo::Repository& repository, const repo::Ref& ref);

}  // namespace coral::cli
