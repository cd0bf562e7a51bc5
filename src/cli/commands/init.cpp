// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    std::string dir = operands.empty() ? "." : operands[0];
    if (dir.empty()) return make_error(Errc::kInvalid, "an empty DIR; name the directory of the new repository");
    CORAL_TRY(auto made,
              repo::Repository::init(real_os(), dir, {}, context.arguments.value("branch").value_or("main")));
    if (context.arguments.has("quiet")) return kOk;
    context.out.print("Initialised an empty CoralFS repository in {}\n", quote_name(made->dir()));
    return kOk;
}

}  // namespace

const Command& init_command() {
    static const Command command{
        "init",
        "Begin and mount",
        "make a repository",
        "init [-q] [-b BRANCH] [DIR]",
        "Makes DIR (by default the current directory) a repository: a plain directory that needs no\n"
        "server. DIR is made, or must be empty. It begins with one branch without commits.",
        "coral init models.coral\n"
        "coral init -b trunk /data/models.coral",
        {{'b', "branch", "BRANCH", "name of the first branch; else main"}, kQuietOption},
        0,
        1,
        run,
    };
    return command;
}

}  // namespace coral::cli
