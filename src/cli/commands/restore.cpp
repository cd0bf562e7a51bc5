// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

Result<TreeId> source_tree(Context& context, const std::string& branch) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CommitId id;
    if (auto source = context.arguments.value("source")) {
        CORAL_TRY(id, repository->resolve(*source));
    } else {
        CORAL_TRY(repo::Branch found, repository->branch(branch));
        if (!found.commit) {
            return make_error(Errc::kNotFound,
                              fmt::format("branch {} has no commit yet; name one with --source", quote_name(branch)));
        }
        id = *found.commit;
    }
    CORAL_TRY(auto commit, repository->commit(id));
    return commit->tree;
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    if (a.operands().empty() == !a.has("all")) {
        return context.usage("restore: name the paths to restore, or give --all for everything in the branch");
    }
    CORAL_TRY(std::string branch, context.branch());
    CORAL_TRY(TreeId tree, source_tree(context, branch));
    CORAL_TRY(auto paths, context.paths_in(branch, a.operands()));
    // The top of the branch is everything; an empty list says so.
    if (std::find(paths.begin(), paths.end(), "") != paths.end()) paths.clear();
    CORAL_TRY(BranchAccess access, BranchAccess::open(context, branch));
    CORAL_TRY(std::uint64_t changed, access.restore(tree, paths));
    if (!a.has("quiet")) {
        context.out.print("Restored {} on branch {}\n", count_text(changed, "file"), quote_name(branch));
    }
    return kOk;
}

}  // namespace

const Command& restore_command() {
    static const Command command{
        "restore",
        "Files of a branch",
        "make files as they are in a commit",
        "restore [-q] [-b BRANCH] [--source=REV] PATH…\nrestore [-q] [-b BRANCH] [--source=REV] --all",
        "Makes each PATH (a file, or a folder with all in it) as it is in REV, by default the branch's\n"
        "own last commit; what is not there is deleted. Uncommitted changes to these paths are lost.\n"
        "Whoever has an old file open keeps its bytes.",
        "coral restore model.safetensors\n"
        "coral restore --source=main~3 run1/\n"
        "coral restore .",
        {{'s', "source", "REV", "the commit to take them from"},
         {0, "all", nullptr, "everything in the branch"},
         kBranchOption,
         kQuietOption},
        0,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
