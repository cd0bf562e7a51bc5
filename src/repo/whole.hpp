// SPDX-License-Identifier: Apache-2.0
// History that no name leads to may have lost a part to `coral gc` and still be found by its id. Before a name is given
// to it, somebody must look.
#pragma once

#include "coral/repo/repository.hpp"

namespace coral::repo {

// In state.db: when something was removed last (ns since 1970).
inline constexpr const char* kRemovedKey = "removed_ns";

// kNotFound when something that the commit leads to is not there. Quick for what a name leads to already. In a session.
Status require_whole(Repository& repo, const CommitId& commit);
Status require_whole(Repository& repo, const TreeId& tree);

}  // namespace coral::repo
