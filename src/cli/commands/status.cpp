// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/changes.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

void print_porcelain(Context& context, const repo::StatusResult& status) {
    bool nul = context.arguments.has("null");
    for (const repo::Change& change : status.changes) {
        char mark = change.incomplete ? '!' : ' ';
        std::string name = nul ? change.path : quote_name(change.path);
        context.out.print("{}{} {}{}", repo::change_letter(change.kind), mark, name, change.directory ? "/" : "");
        context.out.write(nul ? std::string_view("\0", 1) : "\n");
    }
}

Status print_long(Context& context, const repo::StatusResult& status) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    Output& out = context.out;
    std::string at =
        status.commit ? "at " + out.paint(Color::kYellow, short_id(*repository, *status.commit)) : "no commits yet";
    out.print("On branch {}, {}\n", out.paint(Color::kBold, quote_name(status.branch)), at);
    if (status.changes.empty()) {
        out.write("Nothing to commit, the files are as in the commit\n");
        return {};
    }
    out.write("\nChanges (`coral commit` takes them, `coral restore PATH` undoes them):\n");
    print_changes(out, status.changes);
    bool incomplete = false;
    for (const repo::Change& change : status.changes) incomplete = incomplete || change.incomplete;
    if (incomplete) out.write("\nIncomplete files are open for writing, or were when a crash came.\n");
    out.print("\n{}\n", counts_text(count_changes(status.changes)));
    return {};
}

Result<int> run(Context& context) {
    CORAL_TRY(std::string branch, context.branch());
    CORAL_TRY(repo::StatusResult status, branch_status(context, branch));
    if (context.json()) {
        Json document = json_document("status");
        put_text(document, "branch", status.branch);
        document["commit"] = status.commit ? Json(status.commit->hex()) : Json(nullptr);
        JsonList list(context.out, std::move(document), "changes");
        for (const repo::Change& change : status.changes) list.add(json_of(change));
    } else if (context.arguments.has("porcelain") || context.arguments.has("null")) {
        print_porcelain(context, status);
    } else {
        CORAL_CHECK(print_long(context, status));
    }
    return kOk;
}

}  // namespace

const Command& status_command() {
    static const Command command{
        "status",
        "Files of a branch",
        "what changed since the branch's last commit",
        "status [-b BRANCH] [-s | --json] [-z]",
        "Lists files that are new, other or gone. A changed time alone is no change.\n"
        "With -s one line a file: A (added), M (modified), D (deleted), T (another type) or m (mode),\n"
        "then '!' when the file is incomplete, a blank, the path. Exit code 0, changed or not.",
        "coral status\n"
        "coral -C models.coral status -b experiment/lr-0.001 --json",
        {kBranchOption,
         {'s', "porcelain", nullptr, "short, for scripts"},
         {'z', "null", nullptr, "as -s, with lines that end in NUL and names as they are"},
         kJsonOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
