// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <limits>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/past.hpp"
#include "cli/progress.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

// What is older than the result may go. "now" means everything, whatever the clock said when it was written.
Result<std::int64_t> prune_before(Context& context, repo::Repository& repository) {
    std::int64_t now = now_ns();
    if (auto text = context.arguments.value("prune")) {
        if (*text == "now" || *text == "all") return std::numeric_limits<std::int64_t>::max();
        if (auto time = parse_past(*text, now)) return *time;
        return make_error(Errc::kInvalid,
                          fmt::format("--prune: '{}' is no time in the past; say now, never, 24h, 2.weeks.ago or "
                                      "2026-03-01",
                                      quote_name(*text)));
    }
    CORAL_TRY(std::int64_t grace, repository.gc_grace());
    return now - grace;
}

void print_text(Context& context, const repo::GcReport& report, bool dry_run) {
    const store::CollectReport& packs = report.packs;
    std::uint64_t gone = packs.removed_packs + packs.rewritten_packs;
    if (!context.arguments.has("quiet")) {
        if (gone == 0) {
            context.out.print("Nothing to remove in {}{}\n", count_text(packs.packs, "pack"),
                              packs.young_packs ? fmt::format(" ({} written to too lately)", packs.young_packs) : "");
            if (packs.dead_bytes)
                context.out.print("{} that nothing needs stay in packs that are mostly in use\n",
                                  size_text(packs.dead_bytes));
        } else {
            std::string copied = packs.rewritten_packs
                                     ? fmt::format(", {} in use of {} of them copied", size_text(packs.written_bytes),
                                                   packs.rewritten_packs)
                                     : "";
            context.out.print("{} {}: {} {}{}\n", dry_run ? "Would free" : "Freed", size_text(packs.freed_bytes()),
                              count_text(gone, "pack"), dry_run ? "would go" : "gone", copied);
        }
    }
    for (const std::string& kept : packs.kept) context.out.warn(kept);
}

void print_as_json(Context& context, const repo::GcReport& report, bool dry_run) {
    const store::CollectReport& packs = report.packs;
    Json out = json_document("gc");
    out["dry_run"] = dry_run;
    out["freed_bytes"] = packs.freed_bytes();
    out["removed_bytes"] = packs.removed_bytes;
    out["written_bytes"] = packs.written_bytes;
    out["packs"] = packs.packs;
    out["removed_packs"] = packs.removed_packs;
    out["rewritten_packs"] = packs.rewritten_packs;
    out["new_packs"] = packs.new_packs;
    out["young_packs"] = packs.young_packs;
    out["dead_bytes_left"] = packs.dead_bytes;
    out["live_objects"] = report.live_objects;
    out["expired_reflog_entries"] = report.expired_entries;
    out["kept"] = Json::array();
    for (const std::string& kept : packs.kept) out["kept"].push_back(to_utf8(kept));
    print_json(context.out, out);
}

Result<int> run(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    repo::GcOptions options;
    options.dry_run = context.arguments.has("dry-run");
    CORAL_TRY(options.prune_before, prune_before(context, *repository));
    if (!options.dry_run) CORAL_CHECK(tell_daemons_of_removal(*repository, "coral gc"));
    repo::GcReport report;
    {
        Progress progress("collecting", Progress::Unit::kBytes);
        options.progress = progress.callback();
        CORAL_TRY(report, repository->gc(options));
    }
    if (!options.dry_run) CORAL_CHECK(tell_daemons_of_removal(*repository, "coral gc"));
    if (context.json())
        print_as_json(context, report, options.dry_run);
    else
        print_text(context, report, options.dry_run);
    return kOk;
}

}  // namespace

const Command& gc_command() {
    static const Command command{
        "gc",
        "Looking after a repository",
        "remove what no branch, tag or working file needs",
        "gc [-n] [--prune DATE] [-q] [--json]",
        "Removes content that nothing leads to any more and that is older than the grace period\n"
        "(24 hours; `coral config gc.grace 7d` sets another): of deleted branches, of commits that were\n"
        "taken back, of files that were replaced before they were committed. Packs in which little is\n"
        "in use are written anew without the rest. Branches, tags, the reflog within the grace period,\n"
        "uncommitted files and whatever is open in a mount stay. Mounts may be in use meanwhile; it can\n"
        "be stopped at any moment. --prune=now removes at once what cannot be got back afterwards.",
        "coral gc --dry-run\n"
        "coral gc\n"
        "coral branch -D failed-run && coral gc --prune=now",
        {{'n', "dry-run", nullptr, "only tell what would go"},
         {0, "prune", "DATE", "what is older than DATE: now, never, 12h, 2.weeks.ago, 2026-03-01"},
         kQuietOption,
         kJsonOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
