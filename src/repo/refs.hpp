// SPDX-License-Identifier: Apache-2.0
// Steps of a change of refs that branches share (repository_branches.cpp). All run under NamesLock.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "coral/base/sqlite.hpp"
#include "coral/repo/repository.hpp"
#include "repo/names.hpp"

namespace coral::repo {

bool valid_ref_name(std::string_view name);  // heads/NAME or tags/NAME

Result<std::string> read_head(Database& db);  // "heads/main" or a commit in hex
Status write_head(Database& db, const std::string& value);

struct LogLine {
    std::string ref;
    AnyId old_target, new_target;
    std::string actor, reason;
    std::int64_t time_ns = 0;
};
Status log_ref(Database& db, const LogLine& line);

// kInvalid when `name` is a folder of another name in "heads/" or "tags/", or lies in one that is a name; those in
// `gone` do not count.
Status check_folders(Database& db, const std::string& folder, const std::string& name,
                     const std::set<std::string>& gone);

class RefMove {
  public:
    // `vanishing`: branches that `also` takes away, so that others may take their place in the name space.
    RefMove(Repository& repo, const std::vector<RefUpdate>& updates, std::set<std::string> vanishing)
        : repo_(repo), updates_(updates), vanishing_(std::move(vanishing)) {}
    Status run(const std::function<Status(Database&)>& also);

  private:
    Status prepare(Database& db);
    Status find_new_branches();
    Status hint();
    Status apply(Database& db, const std::function<Status(Database&)>& also);

    Repository& repo_;
    const std::vector<RefUpdate>& updates_;
    std::set<std::string> vanishing_;
    std::string actor_, head_;
    std::int64_t time_ns_ = 0;
    std::uint64_t ref_seq_ = 0;
    std::vector<AnyId> old_;
    std::vector<NewBranch> new_branches_;
};

}  // namespace coral::repo
