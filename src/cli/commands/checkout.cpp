// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

void say(Context& context, repo::Repository& repository, const std::string& what, const std::string& where) {
    control::DaemonInfo info;
    auto daemon = find_daemon(repository, &info);
    if (daemon) {
        auto told = daemon->branches_changed();
        if (!told)
            context.out.warn(fmt::format("the daemon has not taken the change in yet: {}", told.error().message));
    }
    if (context.arguments.has("quiet")) return;
    context.out.print("{}\n", what);
    if (daemon && !info.mount_point.empty()) {
        context.out.print("Its files are in {}\n", quote_name(path_join(info.mount_point, where)));
    }
}

Result<int> to_branch(Context& context, const std::string& name, const char* verb) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_CHECK(repository->set_head_branch(name));
    say(context, *repository, fmt::format("{} branch {}", verb, quote_name(name)), path_join("branches", name));
    return kOk;
}

Result<int> create(Context& context, const std::string& name) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    const auto& operands = context.arguments.operands();
    std::optional<CommitId> commit;
    if (!operands.empty()) {
        CORAL_TRY(commit, repository->resolve(operands[0]));
    } else {
        auto found = context.default_commit();
        if (!found && found.error().code != Errc::kNotFound) return std::move(found).error();
        if (found) commit = *found;
    }
    CORAL_CHECK(repository->create_branch(
        name, commit, fmt::format("branch: created from {}", operands.empty() ? "HEAD" : operands[0])));
    return to_branch(context, name, "Switched to the new");
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    if (auto name = a.value("create")) {
        if (a.has("detach")) return context.usage("checkout: -b and --detach exclude each other");
        return create(context, *name);
    }
    if (a.operands().empty()) return context.usage("checkout: needs a BRANCH or REV");
    CORAL_TRY(repo::Repository * repository, context.repository());
    const std::string& name = a.operands()[0];
    if (!a.has("detach")) {
        auto branch = repository->branch(name);
        if (branch) return to_branch(context, name, "Switched to");
        if (branch.error().code != Errc::kNotFound) return std::move(branch).error();
    }
    CORAL_TRY(CommitId id, repository->resolve(name));
    CORAL_CHECK(repository->set_head_detached(id));
    CORAL_TRY(auto commit, repository->commit(id));
    say(context, *repository,
        fmt::format("HEAD is now detached at {} {}", short_id(*repository, id), first_line(commit->message)),
        path_join("commits", id.hex()));
    return kOk;
}

}  // namespace

const Command& checkout_command() {
    static const Command command{
        "checkout",
        "Branches and tags",
        "say which branch or commit HEAD is",
        "checkout [-q] BRANCH\ncheckout [-q] [--detach] REV\ncheckout [-q] -b NAME [REV]",
        "Moves HEAD and nothing else: all branches stay where they are in the mount, with their\n"
        "uncommitted changes, and no file is rewritten. To change files, see `coral restore`.",
        "coral checkout main\n"
        "coral checkout -b experiment/lr-0.001 main~1\n"
        "coral checkout v1.0            # detached: HEAD is that commit",
        {{'b', "create", "NAME", "make this branch first, at REV"},
         {0, "detach", nullptr, "HEAD at the commit, even when REV names a branch"},
         kQuietOption},
        0,
        1,
        run,
    };
    return command;
}

}  // namespace coral::cli
