// SPDX-License-Identifier: Apache-2.0
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"

namespace coral::cli {
namespace {

Result<int> run(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    bool shorten = context.arguments.has("short");
    auto digits = context.arguments.number("short", 4, 64, 7);
    if (!digits) return context.usage(digits.error().message);
    // All are looked up before anything is printed: half an answer would be taken for a whole one.
    std::vector<std::pair<std::string, std::string>> found;
    for (const std::string& revision : context.arguments.operands()) {
        CORAL_TRY(CommitId id, repository->resolve(revision));
        found.emplace_back(revision, shorten ? short_id(*repository, id, *digits) : id.hex());
    }
    if (!context.json()) {
        for (const auto& [revision, id] : found) context.out.print("{}\n", id);
        return kOk;
    }
    Json document = json_document("rev-parse");
    document["revisions"] = Json::array();
    for (const auto& [revision, id] : found) {
        Json element;
        put_text(element, "revision", revision);
        element["id"] = id;
        document["revisions"].push_back(std::move(element));
    }
    print_json(context.out, document);
    return kOk;
}

}  // namespace

const Command& rev_parse_command() {
    static const Command command{
        "rev-parse",
        "History",
        "print the full id of a revision",
        "rev-parse [--short[=N]] [--json] REV…",
        "REV is HEAD, a branch, a tag, an id or at least four of its first digits, then any of ~n (n\n"
        "first parents back) and ^n (the n-th parent). Exit code 1 when there is no such commit.",
        "coral rev-parse HEAD\n"
        "coral rev-parse --short main~3 v1.0^",
        {{0, "short", "[N]", "cut to N digits (7), or as many as are needed"}, kJsonOption},
        1,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
