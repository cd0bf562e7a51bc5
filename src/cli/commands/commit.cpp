// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "cli/branch_access.hpp"
#include "cli/changes.hpp"
#include "cli/command.hpp"
#include "cli/message.hpp"
#include "cli/progress.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

constexpr std::string_view kNothing = "nothing to commit";

// "Name <mail>"
Result<repo::Person> author_of(const std::string& text, repo::Person person) {
    std::size_t open = text.find('<'), close = text.rfind('>');
    if (open == std::string::npos || close == std::string::npos || close < open) {
        return make_error(Errc::kInvalid,
                          fmt::format("--author: '{}' is not of the form 'Name <mail>'", quote_name(text)));
    }
    person.name = repo::clean_person_text(text.substr(0, open));
    person.mail = repo::clean_person_text(text.substr(open + 1, close - open - 1));
    if (person.name.empty()) return make_error(Errc::kInvalid, "--author: the name is empty");
    return person;
}

Result<std::vector<std::pair<std::string, std::string>>> meta_of(const std::vector<std::string>& words) {
    std::vector<std::pair<std::string, std::string>> meta;
    for (const std::string& word : words) {
        std::size_t equals = word.find('=');
        if (equals == std::string::npos || equals == 0) {
            return make_error(Errc::kInvalid,
                              fmt::format("--meta: '{}' is not of the form KEY=VALUE", quote_name(word)));
        }
        std::string key = word.substr(0, equals);
        std::erase_if(meta, [&](const auto& pair) { return pair.first == key; });  // the last one counts
        meta.emplace_back(key, word.substr(equals + 1));
    }
    return meta;
}

int nothing(Context& context, const std::string& branch) {
    context.out.print("On branch {}: nothing to commit, the files are as in its last commit\n", quote_name(branch));
    return kNo;
}

// Empty when there is nothing to commit: no editor opens for that.
Result<std::string> message_from_editor(Context& context, const std::string& branch) {
    CORAL_CHECK(editor_possible());
    CORAL_TRY(repo::StatusResult status, branch_status(context, branch));
    if (status.changes.empty()) return std::string();
    CORAL_TRY(repo::Repository * repository, context.repository());
    return edit_message(*repository, status);
}

void report(Context& context, const repo::CommitResult& result, const std::string& message) {
    auto repository = context.repository();
    if (!repository) return;
    auto commit = (*repository)->commit(result.id);
    bool first = commit && (*commit)->parents.empty();
    context.out.print("[{}{} {}] {}\n", quote_name(result.branch), first ? " (first commit)" : "",
                      context.out.paint(Color::kYellow, short_id(**repository, result.id)), first_line(message));
    if (!commit) return;
    auto changes = changes_of(**repository, **commit);
    if (changes) context.out.print(" {}\n", counts_text(count_changes(*changes)));
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    if (a.has("message") && a.has("file")) return context.usage("commit: -m and -F exclude each other");
    repo::CommitOptions options;
    options.wait = a.has("wait");
    options.allow_open = a.has("allow-open");
    if (options.wait && options.allow_open) return context.usage("commit: --wait and --allow-open exclude each other");
    CORAL_TRY(options.meta, meta_of(a.values("meta")));
    CORAL_TRY(std::string branch, context.branch());
    CORAL_TRY(repo::Repository * repository, context.repository());
    if (auto author = a.value("author")) {
        CORAL_TRY(repo::Person me, repository->identity());
        CORAL_TRY(options.author, author_of(*author, std::move(me)));
    }
    CORAL_TRY(options.paths, context.paths_in(branch, a.operands()));
    if (std::find(options.paths.begin(), options.paths.end(), "") != options.paths.end()) options.paths.clear();

    if (a.has("message")) {
        options.message = clean_message(fmt::format("{}", fmt::join(a.values("message"), "\n\n")), false);
    } else if (auto file = a.value("file")) {
        CORAL_TRY(std::string text, read_message(*file));
        options.message = clean_message(text, false);
    } else {
        CORAL_TRY(options.message, message_from_editor(context, branch));
        if (options.message.empty()) return nothing(context, branch);
    }
    if (options.message.empty())
        return make_error(Errc::kInvalid, "the message is empty; say with -m what this commit is");

    Result<repo::CommitResult> done = make_error(Errc::kInternal, "not committed");
    {
        CORAL_TRY(BranchAccess access, BranchAccess::open(context, branch));
        Progress progress("storing", Progress::Unit::kItems);
        access.on_progress(progress.callback());
        done = access.commit(options);
    }
    if (!done && done.error().code == Errc::kConflict && done.error().message.starts_with(kNothing))
        return nothing(context, branch);
    CORAL_CHECK(done);
    if (!a.has("quiet")) report(context, *done, options.message);
    return kOk;
}

}  // namespace

const Command& commit_command() {
    static const Command command{
        "commit",
        "Files of a branch",
        "record the files of a branch as a commit",
        "commit [-m MESSAGE]… [-q] [--wait | --allow-open] [-b BRANCH] [PATH…]\ncommit -F FILE …",
        "Takes one moment of the branch's files, or of PATH only, into history. There is no staging\n"
        "step. Without -m the editor opens ($CORAL_EDITOR, $VISUAL, $EDITOR). A file that is open for\n"
        "writing is waited for two seconds, then named and refused. Exit code 1 when nothing changed.",
        "coral commit -m \"epoch 7\"\n"
        "coral commit -m \"epoch 8\" --meta loss=1.93 --meta step=8000\n"
        "coral commit -m \"only the tokenizer\" tokenizer.json",
        {{'m', "message", "MESSAGE", "the message; several are paragraphs"},
         {'F', "file", "FILE", "the message from a file, '-' for stdin"},
         kBranchOption,
         kQuietOption,
         {0, "wait", nullptr, "wait for files that are open for writing, as long as it takes"},
         {0, "allow-open", nullptr, "leave them out: their last complete content stays"},
         {0, "author", "AUTHOR", "'Name <mail>' instead of user.name and user.email"},
         {0, "meta", "KEY=VALUE", "a metric or note kept with the commit"}},
        0,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
