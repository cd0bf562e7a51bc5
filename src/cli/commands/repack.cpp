// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/progress.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

std::uint64_t saved_bytes(const repo::RepackReport& report) {
    return report.before_bytes > report.after_bytes ? report.before_bytes - report.after_bytes : 0;
}

void print_text(Context& context, const repo::RepackReport& report, bool dry_run) {
    for (const std::string& skipped : report.skipped) context.out.warn(skipped);
    for (const std::string& kept : report.packs.kept) context.out.warn(kept);
    if (context.arguments.has("quiet")) return;
    if (report.files_cut + report.segments_encoded == 0 && saved_bytes(report) == 0) {
        context.out.print("Nothing to improve in {}\n", count_text(report.files, "file"));
        return;
    }
    context.out.print("{} cut anew, {} encoded anew\n", count_text(report.files_cut, "file"),
                      count_text(report.segments_encoded, "segment"));
    if (dry_run)
        context.out.print("Would save about {} of {}\n", size_text(saved_bytes(report)),
                          size_text(report.before_bytes));
    else
        context.out.print("Saved {}: {} before, {} now\n", size_text(saved_bytes(report)),
                          size_text(report.before_bytes), size_text(report.after_bytes));
}

void print_as_json(Context& context, const repo::RepackReport& report, bool dry_run) {
    Json out = json_document("repack");
    out["dry_run"] = dry_run;
    out["before_bytes"] = report.before_bytes;
    out["after_bytes"] = report.after_bytes;
    out["saved_bytes"] = saved_bytes(report);
    out["files"] = report.files;
    out["files_cut"] = report.files_cut;
    out["segments"] = report.segments;
    out["segments_encoded"] = report.segments_encoded;
    out["removed_packs"] = report.packs.removed_packs;
    out["rewritten_packs"] = report.packs.rewritten_packs;
    out["new_packs"] = report.packs.new_packs;
    out["skipped"] = Json::array();
    for (const std::string& skipped : report.skipped) out["skipped"].push_back(to_utf8(skipped));
    out["kept"] = Json::array();
    for (const std::string& kept : report.packs.kept) out["kept"].push_back(to_utf8(kept));
    print_json(context.out, out);
}

Result<int> run(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    repo::RepackOptions options;
    options.all = context.arguments.has("all");
    options.dry_run = context.arguments.has("dry-run");
    if (!options.dry_run) CORAL_CHECK(tell_daemons_of_removal(*repository, "coral repack"));
    repo::RepackReport report;
    {
        Progress encoding("repacking", Progress::Unit::kBytes), copying("copying", Progress::Unit::kBytes);
        options.progress = encoding.callback();
        options.copying = [&, copy = copying.callback()](std::uint64_t done, std::uint64_t total) {
            encoding.clear();
            copy(done, total);
        };
        CORAL_TRY(report, repository->repack(context.pool(), options));
    }
    if (!options.dry_run) CORAL_CHECK(tell_daemons_of_removal(*repository, "coral repack"));
    if (context.json())
        print_as_json(context, report, options.dry_run);
    else
        print_text(context, report, options.dry_run);
    return kOk;
}

}  // namespace

const Command& repack_command() {
    static const Command command{
        "repack",
        "Looking after a repository",
        "store what is there in fewer bytes",
        "repack [-n] [--all] [-q] [--json]",
        "Looks through all that branches, tags and working files lead to, oldest first, for tensors that\n"
        "would take less room next to another one that is stored than next to what they were stored\n"
        "with, and for files of a format that an earlier CoralFS did not know. These are stored anew, and\n"
        "the packs that they were in are written without them. No byte of any file changes, nor any\n"
        "commit. Mounts may be in use meanwhile, but what lies in a pack that one is writing to has to wait.\n"
        "It can be stopped at any moment, by a crash too; another run goes on where it was.",
        "coral repack --dry-run\n"
        "coral repack\n"
        "coral repack --all --json",
        {{'n', "dry-run", nullptr, "only tell what would be saved, about; takes as long"},
         {0, "all", nullptr, "encode everything once more: after an update of CoralFS with better coders"},
         kQuietOption,
         kJsonOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
