// SPDX-License-Identifier: Apache-2.0
#include "cli/command.hpp"
#include "cli/json.hpp"

namespace coral::cli {
namespace {

Result<int> run(Context& context) {
    if (context.json()) {
        Json document = json_document("version");
        document["version"] = CORAL_VERSION;
        document["compiler"] = __VERSION__;
        print_json(context.out, document);
    } else {
        context.out.print("coral {}\n", CORAL_VERSION);
    }
    return kOk;
}

}  // namespace

const Command& version_command() {
    static const Command command{
        "version",
        "Help",
        "print the version",
        "version [--json]",
        "Prints the version of this program.",
        "",
        {kJsonOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
