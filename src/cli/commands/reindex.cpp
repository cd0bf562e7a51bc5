// SPDX-License-Identifier: Apache-2.0
#include "cli/command.hpp"
#include "cli/progress.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

Result<int> run(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    {
        Progress progress("reading packs", Progress::Unit::kBytes);
        CORAL_CHECK(repository->store().reindex(progress.callback()));
    }
    if (context.arguments.has("quiet")) return kOk;
    CORAL_TRY(auto stats, repository->store().stats());
    std::uint64_t objects = 0;
    for (const auto& [kind, count] : stats.objects) objects += count;
    context.out.print("Index built anew: {} in {}\n", count_text(objects, "object"), count_text(stats.packs, "pack"));
    return kOk;
}

}  // namespace

const Command& reindex_command() {
    static const Command command{
        "reindex",
        "Looking after a repository",
        "build the index anew from the packs",
        "reindex [-q]",
        "Throws index.db away and makes it again; no data is in it that the packs do not have. Needed\n"
        "by hand only in doubt: a missing, old or foreign index is noticed and rebuilt by itself.",
        "coral reindex",
        {kQuietOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
