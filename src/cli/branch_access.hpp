// SPDX-License-Identifier: Apache-2.0
// A branch's files, through whoever owns them: the daemon that serves the branch, else this process for as long as it
// takes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/context.hpp"
#include "coral/control/protocol.hpp"
#include "coral/repo/worktree.hpp"

namespace coral::cli {

class BranchAccess {
  public:
    static Result<BranchAccess> open(Context& context, const std::string& branch);

    // For what is done without the branch's files; null: the worktree is this process's.
    std::unique_ptr<control::Client> take_daemon() { return std::move(client_); }
    Result<repo::StatusResult> status();
    Result<repo::CommitResult> commit(const repo::CommitOptions& options);
    Result<std::uint64_t> restore(const TreeId& source, const std::vector<std::string>& paths);
    // Durable on return when the worktree is here.
    Result<std::uint64_t> place(const std::vector<control::PlaceRequest>& requests);
    void on_progress(std::function<void(std::uint64_t, std::uint64_t)> progress);

  private:
    std::string branch_;
    std::unique_ptr<control::Client> client_;
    std::shared_ptr<repo::Worktree> worktree_;
};

// Uncommitted changes of a branch. A repository that can only be read has none.
Result<repo::StatusResult> branch_status(Context& context, const std::string& branch);

// Any daemon that serves this repository; null when there is none.
std::unique_ptr<control::Client> find_daemon(repo::Repository& repository, control::DaemonInfo* info = nullptr);
// Every daemon that serves a branch of this repository. Those that do not answer are passed over.
Status each_daemon(repo::Repository& repository, const std::function<Status(control::Client&)>& visit);
// Every daemon lets go of packs that were removed. One that does not know of removals would build on what is about to
// go: then an error, and `command` must not begin.
Status tell_daemons_of_removal(repo::Repository& repository, const char* command);
// Tells `daemon`, else any that there is, that branches came, went or got another name. What it cannot do is only a
// warning. A daemon that has released its only branch is found by nobody any more, so whoever asked it for that names
// it.
void tell_branches_changed(Context& context, repo::Repository& repository,
                           std::unique_ptr<control::Client> daemon = nullptr);

}  // namespace coral::cli
