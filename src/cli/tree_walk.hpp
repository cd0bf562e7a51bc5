// SPDX-License-Identifier: Apache-2.0
// Every entry below a tree, in the order of paths.
#pragma once

#include <functional>
#include <string>

#include "coral/repo/repository.hpp"

namespace coral::cli {

// `visit` gets the path from the top of the walk; directories come before what is in them. No recursion: a hostile
// repository may nest deep.
Status walk_tree(repo::Repository& repository, const TreeId& tree,
                 const std::function<Status(const std::string& path, const repo::TreeEntry&)>& visit);

}  // namespace coral::cli
