// SPDX-License-Identifier: Apache-2.0
// What a command works on: the repository and branch, found once, when they are first asked for.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.hpp"
#include "cli/output.hpp"
#include "cli/place.hpp"
#include "coral/base/thread_pool.hpp"
#include "coral/repo/repository.hpp"

namespace coral::cli {

// Exit codes, git's.
inline constexpr int kOk = 0, kNo = 1, kFatal = 128, kUsage = 129;

class Context {
  public:
    Context(Output& output, Arguments given, bool directory_given)
        : out(output), arguments(std::move(given)), directory_given_(directory_given) {}

    Output& out;
    const Arguments arguments;

    // -C DIR, else CORAL_DIR, else where one stands.
    Result<const Place*> place();
    // Opened for writing where the disk allows it, else read-only.
    Result<repo::Repository*> repository();
    ThreadPool& pool();  // as many threads as there are cores

    // -b, else the branch one stands in, else HEAD's. Detached: kInvalid.
    Result<std::string> branch();
    // The commit that commands read when no revision is given: of -b, the branch or commit one stands in, HEAD.
    Result<CommitId> default_commit();
    // Operands as paths in `branch`: relative to where one stands if that is in it, else to its top.
    Result<std::vector<std::string>> paths_in(const std::string& branch, const std::vector<std::string>& operands);

    bool json() const { return arguments.has("json"); }
    // For mistakes that options and operands make together: says it and gives 129.
    int usage(const std::string& message) const;

  private:
    bool directory_given_;
    std::optional<Place> place_;
    std::unique_ptr<ThreadPool> pool_;
    std::unique_ptr<repo::Repository> repository_;
};

}  // namespace coral::cli
