// SPDX-License-Identifier: Apache-2.0
// What names lead to: refs, HEAD, the reflog, worktrees, and what processes have open. Whatever cannot be read ends it
// with an error, for nobody knows then what else is needed.
#pragma once

#include <functional>
#include <vector>

#include "coral/repo/repository.hpp"

namespace coral::repo {

class Marker {
  public:
    // Of the reflog, entries of `reflog_from` (ns since 1970) and later count.
    Marker(Repository& repo, store::LiveSet& live, std::int64_t reflog_from, std::function<bool()> cancelled)
        : repo_(repo), live_(live), reflog_from_(reflog_from), cancelled_(std::move(cancelled)) {}

    // Adds to `live`. A second run reads names anew and follows only what it does not know.
    Status run();

  private:
    struct Named {
        FileId file;
        bool may_lack = false;  // a staging file holds the bytes that count
    };
    Status read_names();
    Status read_commits(Database& db);
    Status read_rows(Database& db);
    Status read_links(Database& db);
    Status follow_root(const AnyId& target);
    Status drain();
    Status follow_commit(const CommitId& id);
    Status follow_tree(const TreeId& id);
    Status follow_file(const FileId& id, bool may_lack);
    void add_commit(const CommitId& id);
    void add_tree(const TreeId& id);

    Repository& repo_;
    store::LiveSet& live_;
    const std::int64_t reflog_from_;
    const std::function<bool()> cancelled_;

    std::vector<AnyId> roots_;  // commits or tag objects
    std::vector<Named> files_;
    std::vector<CommitId> commits_;  // to be followed
    std::vector<TreeId> trees_;
};

}  // namespace coral::repo
