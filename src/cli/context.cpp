// SPDX-License-Identifier: Apache-2.0
#include "cli/context.hpp"

#include <fmt/format.h>

#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

// The shell stands in a directory that has no path any more; the mount may still know it.
Error no_current_dir(Error error) {
    auto branch = get_xattr(".", "user.coral.branch");
    error.code = Errc::kInvalid;  // fatal, not a "no"
    if (branch && *branch) {
        return make_error(Errc::kInvalid, fmt::format("the current directory has another path now, in branch {}: go "
                                                      "there with `cd`",
                                                      quote_name(**branch)));
    }
    error.message += "; go to one that exists with `cd`";
    return error;
}

}  // namespace

Result<const Place*> Context::place() {
    if (place_) return &*place_;
    std::string directory = environment("CORAL_DIR");
    if (directory_given_ || directory.empty()) {
        auto here = current_dir();
        if (!here) return no_current_dir(std::move(here).error());
        CORAL_TRY(place_, find_place(*here));
        return &*place_;
    }
    CORAL_TRY(Place named, find_place(directory));
    // Standing in a mount of the very repository that is named: the branch one stands in still counts.
    auto here = current_dir();
    if (here) {
        auto stands = find_place(*here);
        if (stands && stands->mounted && stands->repository == named.repository) named = std::move(*stands);
    }
    place_ = std::move(named);
    return &*place_;
}

Result<repo::Repository*> Context::repository() {
    if (repository_) return repository_.get();
    CORAL_TRY(const Place* at, place());
    auto opened = repo::Repository::open(real_os(), at->repository, {});
    if (!opened) {
        Error error = std::move(opened).error();
        if (error.code == Errc::kNotFound) error.code = Errc::kInvalid;  // fatal, not a "no"
        return error;
    }
    repository_ = std::move(*opened);
    return repository_.get();
}

ThreadPool& Context::pool() {
    if (!pool_) pool_ = std::make_unique<ThreadPool>("coral", hardware_threads());
    return *pool_;
}

Result<std::string> Context::branch() {
    if (auto named = arguments.value("branch")) return *named;
    CORAL_TRY(const Place* at, place());
    if (!at->branch.empty()) return at->branch;
    if (!at->commit.empty()) {
        return make_error(Errc::kInvalid,
                          fmt::format("this is a folder of commit {}, which never changes: name a branch with -b",
                                      at->commit.substr(0, 12)));
    }
    CORAL_TRY(repo::Repository * repository, this->repository());
    CORAL_TRY(repo::Head head, repository->head());
    if (!head.branch.empty()) return head.branch;
    return make_error(Errc::kInvalid,
                      fmt::format("HEAD is detached at {}: name a branch with -b, or `coral checkout` one",
                                  head.commit ? head.commit->hex().substr(0, 12) : "nothing"));
}

Result<CommitId> Context::default_commit() {
    CORAL_TRY(repo::Repository * repository, this->repository());
    CORAL_TRY(const Place* at, place());
    std::string branch = arguments.value("branch").value_or(at->branch);
    if (!branch.empty()) {
        CORAL_TRY(repo::Branch found, repository->branch(branch));
        if (found.commit) return *found.commit;
        return make_error(Errc::kNotFound, fmt::format("branch {} has no commit yet", branch));
    }
    return repository->resolve(at->commit.empty() ? "HEAD" : at->commit);
}

Result<std::vector<std::string>> Context::paths_in(const std::string& branch,
                                                   const std::vector<std::string>& operands) {
    CORAL_TRY(const Place* at, place());
    Place from = *at;
    if (from.branch != branch) from.path.clear();
    std::vector<std::string> paths;
    for (const std::string& operand : operands) {
        CORAL_TRY(std::string path, path_in_branch(from, operand));
        paths.push_back(std::move(path));
    }
    return paths;
}

int Context::usage(const std::string& message) const {
    print_error(message);
    return kUsage;
}

}  // namespace coral::cli
