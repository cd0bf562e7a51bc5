// SPDX-License-Identifier: Apache-2.0
// The lock that makes a process the owner of a worktree (Worktree::lock_path).
#pragma once

#include <chrono>
#include <memory>

#include "coral/base/os.hpp"
#include "coral/repo/repository.hpp"

namespace coral::repo {

// The locked file; owner until it is closed. Null: another process has it, and still had after `patience`.
Result<std::unique_ptr<File>> lock_worktree(const Repository& repo, const Uuid& worktree,
                                            std::chrono::milliseconds patience = {});

// The lock file and what says where the owner listens, of a branch that is no more. By whoever holds the lock.
void remove_worktree_lock(const Repository& repo, const Uuid& worktree);

}  // namespace coral::repo
