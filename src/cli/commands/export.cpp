// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/export_writer.hpp"
#include "cli/progress.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"
#include "cli/tree_walk.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

Result<std::uint64_t> bytes_below(repo::Repository& repository, const repo::TreeEntry& entry) {
    if (entry.type != repo::EntryType::kDirectory) return entry.size;
    std::uint64_t bytes = 0;
    CORAL_CHECK(
        walk_tree(repository, TreeId::from(entry.content), [&](const std::string&, const repo::TreeEntry& e) -> Status {
            if (e.type == repo::EntryType::kFile) bytes += e.size;
            return {};
        }));
    return bytes;
}

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    std::string dest = without_slashes(operands[1]);
    if (dest.empty()) return context.usage("export: DEST must not be empty");
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(Target target, parse_target(context, operands[0]));
    CORAL_TRY(repo::TreeEntry entry, target_entry(context, target));
    CORAL_TRY(std::uint64_t total, bytes_below(*repository, entry));
    Progress progress("exporting", Progress::Unit::kBytes);
    std::uint64_t done = 0;
    ExportWriter writer(*repository, context.arguments.has("force"),
                        [&](std::uint64_t bytes) { progress.update(done += bytes, total); });
    Status written;
    if (entry.type == repo::EntryType::kDirectory) {
        written = writer.write_tree(TreeId::from(entry.content), dest);
    } else {
        // Into a directory, as cp does.
        auto there = real_os().stat(dest);
        if (there && there->type == FileType::kDirectory) dest = path_join(dest, path_name(target.path));
        written = writer.write_entry(entry, dest);
    }
    progress.clear();
    if (!written) {
        Error error = std::move(written).error();
        if (error.code == Errc::kNotFound) error.code = Errc::kIo;  // DEST's folder: fatal; REV:PATH has been found
        return error;
    }
    if (!context.arguments.has("quiet")) {
        context.out.print("Exported {}, {}, verified, to {}\n", count_text(writer.files(), "file"), size_text(total),
                          quote_name(dest));
    }
    return kOk;
}

}  // namespace

const Command& export_command() {
    static const Command command{
        "export",
        "History",
        "write files of a commit to an ordinary directory",
        "export [-q] [--force] REV[:PATH] DEST",
        "Writes real files, with their modes and times, each verified by its SHA-256 before it gets\n"
        "its name. DEST is made, or is an empty directory, and becomes that folder; for a single file\n"
        "DEST is the file. Nothing is written through symlinks.",
        "coral export v1.0 /data/release\n"
        "coral export main:run1/model.safetensors model.safetensors",
        {{'f', "force", nullptr, "write into a directory that is not empty, replace files"}, kQuietOption},
        2,
        2,
        run,
    };
    return command;
}

}  // namespace coral::cli
