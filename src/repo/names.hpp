// SPDX-License-Identifier: Apache-2.0
// Names in state.db: the file `lock` that orders their changes, and the rows of a branch.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "coral/base/os.hpp"
#include "coral/base/sqlite.hpp"
#include "coral/repo/repository.hpp"

namespace coral::repo {

// Holds the repository's `lock` file: names change only under it, in whatever process. Released by the destructor.
class NamesLock {
  public:
    // Tries again for up to 30 s, then kBusy naming the file.
    static Result<NamesLock> take(Os& os, const std::string& dir);

  private:
    explicit NamesLock(std::unique_ptr<File> file) : file_(std::move(file)) {}
    std::unique_ptr<File> file_;
};

struct Owner {
    std::uint32_t uid = 0, gid = 0;
};
Owner process_owner();  // of new files

struct NewBranch {
    std::string name;
    Uuid worktree;
    std::optional<CommitId> commit;  // nothing: unborn
    std::optional<TreeId> tree;      // of the commit
};
// The worktree's row and the row of its root directory.
Status insert_branch(Database& db, const NewBranch& branch, const Owner& owner);

// Null id for NULL, else the id.
template <class Tag>
Statement& bind_optional(Statement& st, const Id<Tag>& id) {
    return id.is_zero() ? st.bind_null() : st.bind(id);
}

}  // namespace coral::repo
