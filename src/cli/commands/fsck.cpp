// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/progress.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

using Severity = store::Problem::Severity;

const char* word(Severity severity) {
    switch (severity) {
        case Severity::kLost:
            return "lost";
        case Severity::kDamaged:
            return "damaged";
        case Severity::kWarning:
            break;
    }
    return "warning";
}

void print_text(Context& context, const std::vector<store::Problem>& problems, std::size_t serious, bool full) {
    Output& out = context.out;
    for (const store::Problem& problem : problems) {
        Color color = problem.severity == Severity::kWarning ? Color::kYellow : Color::kRed;
        out.print("{} {}\n", out.paint(color, fmt::format("{}:", word(problem.severity))), first_line(problem.what));
    }
    if (serious)
        out.print("{} found\n", count_text(serious, "problem"));
    else
        out.print("{}: everything is there and verifies\n", full ? "Every byte checked" : "Records and names checked");
}

Result<int> run(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    bool full = context.arguments.has("full");
    std::vector<store::Problem> problems;
    {
        Progress progress("checking", Progress::Unit::kBytes);
        CORAL_TRY(problems, repository->fsck(full, progress.callback()));
    }
    std::size_t serious = 0;
    for (const store::Problem& problem : problems) serious += problem.severity != Severity::kWarning;
    if (context.json()) {
        Json document = json_document("fsck");
        document["full"] = full;
        document["ok"] = serious == 0;
        document["problems"] = Json::array();
        for (const store::Problem& problem : problems) {
            Json element{{"severity", word(problem.severity)}};
            put_text(element, "what", problem.what);
            document["problems"].push_back(std::move(element));
        }
        print_json(context.out, document);
    } else if (!(context.arguments.has("quiet") && problems.empty())) {
        print_text(context, problems, serious, full);
    }
    return serious ? kNo : kOk;
}

}  // namespace

const Command& fsck_command() {
    static const Command command{
        "fsck",
        "Looking after a repository",
        "check that everything is there and whole",
        "fsck [--full] [-q] [--json]",
        "Checks the frame and checksum of every record, and that all that branches, tags, the reflog\n"
        "and worktrees lead to is there. With --full every chunk is decoded and every SHA-256\n"
        "computed again. Exit code 1 when something is lost or damaged; warnings alone give 0.",
        "coral fsck\n"
        "coral -C models.coral fsck --full --json",
        {{0, "full", nullptr, "read and decode all data"}, kQuietOption, kJsonOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
