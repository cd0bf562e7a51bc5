// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <unordered_set>

#include "cli/changes.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

struct Request {
    std::vector<CommitId> from;
    std::unordered_set<CommitId> hidden;  // reachable from A of A..B
    std::vector<std::string> paths;
    std::uint64_t limit = 0;
};

Status hide(repo::Repository& repository, const CommitId& from, Request& request) {
    return repository.walk({from}, [&](const CommitId& id, const repo::Commit&) -> Result<bool> {
        request.hidden.insert(id);
        return true;
    });
}

Result<CommitId> resolve_or_default(Context& context, const std::string& revision) {
    if (revision.empty()) return context.default_commit();
    CORAL_TRY(repo::Repository * repository, context.repository());
    return repository->resolve(revision);
}

Result<Request> read_request(Context& context) {
    const auto& operands = context.arguments.operands();
    std::size_t revisions = context.arguments.before_dashes().value_or(operands.size());
    Request request;
    CORAL_TRY(repo::Repository * repository, context.repository());
    for (std::size_t i = 0; i < revisions; ++i) {
        std::size_t dots = operands[i].find("..");
        if (dots == std::string::npos) {
            CORAL_TRY(CommitId id, repository->resolve(operands[i]));
            request.from.push_back(id);
            continue;
        }
        CORAL_TRY(CommitId hidden, resolve_or_default(context, operands[i].substr(0, dots)));
        CORAL_TRY(CommitId from, resolve_or_default(context, operands[i].substr(dots + 2)));
        CORAL_CHECK(hide(*repository, hidden, request));
        request.from.push_back(from);
    }
    if (request.from.empty()) {
        CORAL_TRY(CommitId id, context.default_commit());
        request.from.push_back(id);
    }
    CORAL_TRY(const Place* place, context.place());
    for (std::size_t i = revisions; i < operands.size(); ++i) {
        CORAL_TRY(std::string path, path_in_branch(*place, operands[i]));
        request.paths.push_back(std::move(path));
    }
    return request;
}

Result<bool> same_at(repo::Repository& repository, const TreeId& a, const TreeId& b, const std::string& path) {
    auto in_a = repository.entry_at(a, path), in_b = repository.entry_at(b, path);
    if (!in_a && in_a.error().code != Errc::kNotFound) return std::move(in_a).error();
    if (!in_b && in_b.error().code != Errc::kNotFound) return std::move(in_b).error();
    if (!in_a || !in_b) return in_a.ok() == in_b.ok();
    return in_a->same_content(*in_b);
}

// git's rule: a commit that has some parent with the very same paths says nothing new about them.
Result<bool> touches(repo::Repository& repository, const repo::Commit& commit, const std::vector<std::string>& paths) {
    if (paths.empty()) return true;
    std::vector<TreeId> before;
    for (const CommitId& parent : commit.parents) {
        CORAL_TRY(auto object, repository.commit(parent));
        before.push_back(object->tree);
    }
    if (before.empty()) {
        for (const std::string& path : paths) {
            auto entry = repository.entry_at(commit.tree, path);
            if (entry) return true;
            if (entry.error().code != Errc::kNotFound) return std::move(entry).error();
        }
        return false;
    }
    for (const TreeId& tree : before) {
        bool all_same = true;
        for (const std::string& path : paths) {
            CORAL_TRY(bool same, same_at(repository, tree, commit.tree, path));
            all_same = all_same && same;
        }
        if (all_same) return false;
    }
    return true;
}

using Visit = std::function<Status(const CommitId&, const repo::Commit&)>;

Status walk(repo::Repository& repository, const Request& request, const Visit& visit) {
    std::uint64_t shown = 0;
    if (request.limit == 0) return {};
    return repository.walk(request.from, [&](const CommitId& id, const repo::Commit& commit) -> Result<bool> {
        if (request.hidden.contains(id)) return true;
        CORAL_TRY(bool wanted, touches(repository, commit, request.paths));
        if (!wanted) return true;
        CORAL_CHECK(visit(id, commit));
        return ++shown < request.limit;
    });
}

std::string names_at(const Output& out, const Decorations& names, const CommitId& id) {
    auto at = names.find(id);
    if (at == names.end()) return {};
    std::vector<std::string> shown;
    for (const std::string& name : at->second) shown.push_back(out.paint(Color::kGreen, quote_name(name)));
    return fmt::format(" ({})", fmt::join(shown, ", "));
}

void print_full(Output& out, const CommitId& id, const repo::Commit& commit, const std::string& names) {
    out.print("{}{}\n", out.paint(Color::kYellow, "commit " + id.hex()), names);
    if (commit.parents.size() > 1) {
        out.write("Merge: ");
        for (const CommitId& parent : commit.parents) out.print(" {}", parent.hex().substr(0, 12));
        out.write("\n");
    }
    out.print("Author: {} <{}>\n", shown_text(commit.author.name), shown_text(commit.author.mail));
    out.print("Date:   {}\n", time_text(commit.author.time_ns, commit.author.zone_minutes));
    for (const auto& [key, value] : commit.meta) out.print("Meta:   {} = {}\n", quote_name(key), first_line(value));
    out.write("\n");
    std::string message = shown_text(commit.message);
    for (std::size_t at = 0; at < message.size();) {
        std::size_t end = std::min(message.find('\n', at), message.size());
        std::string line = message.substr(at, end - at);
        out.print("{}{}\n", line.empty() ? "" : "    ", line);
        at = end + 1;
    }
}

Status print_commits(Context& context, const Request& request) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(Decorations names, decorations(*repository));
    Output& out = context.out;
    bool oneline = context.arguments.has("oneline"), stat = context.arguments.has("stat"), first = true;
    return walk(*repository, request, [&](const CommitId& id, const repo::Commit& commit) -> Status {
        std::string at = names_at(out, names, id);
        if (oneline) {
            out.print("{}{} {}\n", out.paint(Color::kYellow, short_id(*repository, id)), at,
                      first_line(commit.message));
        } else {
            if (!std::exchange(first, false)) out.write("\n");
            print_full(out, id, commit, at);
        }
        if (!stat) return {};
        CORAL_TRY(auto changes, changes_of(*repository, commit));
        if (!oneline) out.write("\n");
        print_changes(out, changes);
        return {};
    });
}

Result<int> run(Context& context) {
    auto limit = context.arguments.number("number", 0, UINT64_MAX, UINT64_MAX);
    if (!limit) return context.usage(limit.error().message);
    CORAL_TRY(Request request, read_request(context));
    request.limit = *limit;
    if (!context.json()) {
        CORAL_CHECK(print_commits(context, request));
        return kOk;
    }
    CORAL_TRY(repo::Repository * repository, context.repository());
    JsonList list(context.out, json_document("log"), "commits");
    CORAL_CHECK(walk(*repository, request, [&](const CommitId& id, const repo::Commit& commit) -> Status {
        Json element;
        put_commit(element, id, commit);
        list.add(element);
        return {};
    }));
    return kOk;
}

}  // namespace

const Command& log_command() {
    static const Command command{
        "log",
        "History",
        "show commits, the newest first",
        "log [-n N] [--oneline | --json] [--stat] [-b BRANCH] [REV | A..B]… [-- PATH…]",
        "Begins at REV (by default the branch or commit you stand in, else HEAD). A..B shows what B\n"
        "has and A has not. With paths: the commits that changed them.",
        "coral log --oneline -5\n"
        "coral log v1.0..main --stat\n"
        "coral log -- run1/model.safetensors",
        {{'n', "number", "N", "at most N commits; -5 is -n 5"},
         {0, "oneline", nullptr, "one line a commit"},
         {0, "stat", nullptr, "list the files that each changed"},
         kBranchOption,
         kJsonOption},
        0,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
