// SPDX-License-Identifier: Apache-2.0
#include "cli/command.hpp"
#include "cli/file_stream.hpp"
#include "cli/revision.hpp"

namespace coral::cli {
namespace {

Result<int> run(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    // All are found before a byte is printed.
    std::vector<std::shared_ptr<const store::FileRecord>> records;
    for (const std::string& operand : context.arguments.operands()) {
        CORAL_TRY(Target target, parse_target(context, operand));
        if (!target.has_path) return context.usage("cat: name a file as REV:PATH");
        CORAL_TRY(auto record, target_file(context, target));
        records.push_back(std::move(record));
    }
    for (const auto& record : records) {
        CORAL_CHECK(stream_file(repository->store(), record, [&](Bytes piece) -> Status {
            context.out.write(piece);
            return context.out.failed() ? context.out.finish() : Status();
        }));
    }
    return kOk;
}

}  // namespace

const Command& cat_command() {
    static const Command command{
        "cat",
        "History",
        "print the bytes of a file",
        "cat REV:PATH…",
        "Prints exactly the bytes of the file as it is in the commit. ':PATH' is the file in the\n"
        "commit of the branch you stand in, or HEAD's.",
        "coral cat v1.0:config.json\n"
        "coral cat main~3:model.safetensors | sha256sum",
        {kBranchOption},
        1,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
