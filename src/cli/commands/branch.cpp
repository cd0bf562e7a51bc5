// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

Result<int> list(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(auto branches, repository->branches());
    CORAL_TRY(repo::Head head, repository->head());
    Output& out = context.out;
    if (context.json()) {
        JsonList json(out, json_document("branch"), "branches");
        for (const repo::Branch& branch : branches) {
            Json element;
            put_text(element, "name", branch.name);
            element["commit"] = branch.commit ? Json(branch.commit->hex()) : Json(nullptr);
            element["current"] = branch.name == head.branch;
            json.add(element);
        }
        return kOk;
    }
    if (head.branch.empty() && head.commit) {
        out.print("* {}\n",
                  out.paint(Color::kCyan, fmt::format("(detached at {})", short_id(*repository, *head.commit))));
    }
    std::size_t width = 0;
    for (const repo::Branch& branch : branches) width = std::max(width, display_width(quote_name(branch.name)));
    for (const repo::Branch& branch : branches) {
        bool current = branch.name == head.branch;
        std::string name = quote_name(branch.name);
        std::string detail;
        if (context.arguments.has("verbose")) {
            detail = std::string(width - display_width(name) + 1, ' ') + "(no commits yet)";
            if (branch.commit) {
                CORAL_TRY(auto commit, repository->commit(*branch.commit));
                detail = fmt::format("{} {} {}", std::string(width - display_width(name), ' '),
                                     out.paint(Color::kYellow, short_id(*repository, *branch.commit)),
                                     first_line(commit->message));
            }
        }
        out.print("{} {}{}\n", current ? '*' : ' ', current ? out.paint(Color::kGreen, name) : name, detail);
    }
    return kOk;
}

Status check_unchanged(Context& context, const std::string& name, const repo::StatusResult& status) {
    if (status.changes.empty() || context.arguments.has("force-delete")) return {};
    return make_error(Errc::kBusy,
                      fmt::format("branch {} has uncommitted changes in {} ({}…); commit them, or delete it all "
                                  "the same with -D",
                                  quote_name(name), count_text(status.changes.size(), "file"),
                                  quote_name(status.changes.front().path)));
}

// The daemon that serves the branch lets it go first; this process's own hold on it ends with `access`. Gives back that
// daemon, or null: it takes the branch no more until it is told of the change, or ten seconds have passed.
Result<std::unique_ptr<control::Client>> let_go(Context& context, const std::string& name, bool check) {
    CORAL_TRY(BranchAccess access, BranchAccess::open(context, name));
    if (check) {
        CORAL_TRY(repo::StatusResult status, access.status());
        CORAL_CHECK(check_unchanged(context, name, status));
    }
    auto daemon = access.take_daemon();
    if (daemon) CORAL_CHECK(daemon->release_branch(name));
    return daemon;
}

Result<int> remove(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    for (const std::string& name : context.arguments.operands()) {
        CORAL_TRY(repo::Branch branch, repository->branch(name));
        CORAL_TRY(repo::Head head, repository->head());
        if (head.branch == name) {
            return make_error(Errc::kBusy, fmt::format("{}: HEAD is on this branch; `coral checkout` another one first",
                                                       quote_name(name)));
        }
        CORAL_TRY(auto daemon, let_go(context, name, true));
        auto deleted = repository->delete_branch(name, "branch: deleted");
        tell_branches_changed(context, *repository, std::move(daemon));
        CORAL_CHECK(deleted);
        if (context.arguments.has("quiet")) continue;
        context.out.print("Deleted branch {}{}\n", quote_name(name),
                          branch.commit ? fmt::format(" (it was at {})", branch.commit->hex()) : "");
    }
    return kOk;
}

// A shell that stands in the branch goes along: the kernel moves its directory once the new path is looked up.
void look_up(const control::DaemonInfo& daemon, const std::string& branch) {
    (void)real_os().stat(path_join(daemon.mount_point, "branches/" + branch));
}

Result<int> rename(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    const auto& operands = context.arguments.operands();
    std::string from, to = operands.back();
    if (operands.size() == 2) {
        from = operands[0];
    } else {
        CORAL_TRY(from, context.branch());
    }
    CORAL_TRY(repo::Branch branch, repository->branch(from));
    if (!repo::valid_branch_name(to))
        return make_error(Errc::kInvalid, fmt::format("'{}': not a valid branch name", quote_name(to)));
    auto there = repository->branch(to);
    if (there)
        return make_error(Errc::kExists, fmt::format("{}: a branch of this name exists already", quote_name(to)));
    CORAL_TRY(auto daemon, let_go(context, from, false));
    std::optional<control::DaemonInfo> serves;
    if (daemon) {
        CORAL_TRY(serves, daemon->info());
    }
    auto renamed = repository->rename_branch(from, to);
    tell_branches_changed(context, *repository, std::move(daemon));
    CORAL_CHECK(renamed);
    if (serves) look_up(*serves, to);
    return kOk;
}

Result<int> create(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    const auto& operands = context.arguments.operands();
    std::optional<CommitId> commit;
    if (operands.size() == 2) {
        CORAL_TRY(commit, repository->resolve(operands[1]));
    } else {
        auto found = context.default_commit();
        // Where nothing is committed yet, the new branch begins empty, too.
        if (!found && found.error().code != Errc::kNotFound) return std::move(found).error();
        if (found) commit = *found;
    }
    std::string reason = fmt::format("branch: created from {}", operands.size() == 2 ? operands[1] : "HEAD");
    CORAL_CHECK(repository->create_branch(operands[0], commit, reason));
    tell_branches_changed(context, *repository);
    return kOk;
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    std::size_t count = a.operands().size();
    bool removing = a.has("delete") || a.has("force-delete"), renaming = a.has("move");
    if (removing && renaming) return context.usage("branch: -d and -m exclude each other");
    if (removing) return count == 0 ? context.usage("branch: -d needs the name of a branch") : remove(context);
    if (renaming) {
        if (count == 0 || count > 2) return context.usage("branch: -m takes [OLD] NEW");
        return rename(context);
    }
    if (count == 0 || a.has("list")) {
        return count == 0 ? list(context) : context.usage("branch: --list takes no operands");
    }
    if (count > 2) return context.usage("branch: takes NAME and at most one REV");
    return create(context);
}

}  // namespace

const Command& branch_command() {
    static const Command command{
        "branch",
        "Branches and tags",
        "list, make, rename or delete branches",
        "branch [-l] [-v] [--json]\nbranch NAME [REV]\nbranch -m [OLD] NEW\nbranch (-d | -D) NAME…",
        "A branch is a folder of its own in the mount, branches/NAME, and can be worked on beside the\n"
        "others. A new one begins at REV, by default at the commit of the branch you stand in or HEAD.",
        "coral branch experiment/lr-0.001\n"
        "coral branch fix main~2\n"
        "coral branch -d experiment/lr-0.001",
        {{'l', "list", nullptr, "list branches, as without operands"},
         {'v', "verbose", nullptr, "with the commit of each"},
         {'d', "delete", nullptr, "delete; refuses when there are uncommitted changes"},
         {'D', "force-delete", nullptr, "delete, uncommitted changes as well"},
         {'m', "move", nullptr, "rename"},
         kQuietOption,
         kJsonOption},
        0,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
