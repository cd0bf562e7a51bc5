// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    if (operands.empty()) {
        context.out.write(overview_text());
        return kOk;
    }
    if (operands[0] == "exit-codes") {
        context.out.write(exit_codes_text());
        return kOk;
    }
    if (const Command* command = find_command(operands[0])) {
        context.out.write(help_text(*command));
        return kOk;
    }
    auto near = similar_commands(operands[0]);
    return make_error(Errc::kNotFound,
                      fmt::format("there is no help for '{}'{}", quote_name(operands[0]),
                                  near.empty() ? "" : fmt::format("; did you mean {}?", fmt::join(near, ", "))));
}

}  // namespace

const Command& help_command() {
    static const Command command{
        "help",
        "Help",
        "tell more of a command",
        "help [COMMAND | exit-codes]",
        "Without an operand: all commands.",
        "coral help commit\n"
        "coral commit --help            # the same",
        {},
        0,
        1,
        run,
    };
    return command;
}

}  // namespace coral::cli
