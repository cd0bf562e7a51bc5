// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/progress.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"
#include "cli/tree_walk.hpp"

namespace coral::cli {
namespace {

constexpr std::uint64_t kLeast = 1u << 20;  // smaller files are read from packs as fast, and may be many

struct File {
    std::string path;
    std::uint64_t size = 0;
};

bool chosen(const std::string& path, const std::vector<std::string>& wanted, std::vector<bool>& found) {
    if (wanted.empty()) return true;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const std::string& one = wanted[i];
        if (path != one && !path.starts_with(one + "/")) continue;
        found[i] = true;
        return true;
    }
    return false;
}

Result<std::vector<File>> files_of(repo::Repository& repository, const Target& target,
                                   const std::vector<std::string>& wanted) {
    std::vector<File> files;
    std::vector<bool> found(wanted.size());
    CORAL_CHECK(walk_tree(repository, target.object->tree, [&](const std::string& path, const repo::TreeEntry& entry) {
        if (entry.type == repo::EntryType::kFile && chosen(path, wanted, found)) files.push_back({path, entry.size});
        return Status();
    }));
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (!found[i])
            return make_error(Errc::kNotFound,
                              fmt::format("{}: no such file in {}", quote_name(wanted[i]), target.shown));
    }
    return files;
}

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(Target target, parse_target(context, operands[0]));
    if (target.has_path) return context.usage("warm: give the paths after the revision: warm REV PATH…");
    std::vector<std::string> wanted;
    for (std::size_t i = 1; i < operands.size(); ++i) {
        CORAL_TRY(std::string path, normal_path(operands[i]));
        wanted.push_back(std::move(path));
    }
    CORAL_TRY(auto files, files_of(*repository, target, wanted));
    auto daemon = find_daemon(*repository);
    if (!daemon)
        return make_error(Errc::kNotFound, "not mounted: plain copies are a mount's; mount it with: coral mount");
    const std::size_t all = files.size();
    const std::size_t small = std::erase_if(files, [](const File& file) { return file.size < kLeast; });
    std::uint64_t total = 0, done = 0, plain = 0, missed = 0;
    for (const File& file : files) total += file.size;
    {
        Progress progress("Warming", Progress::Unit::kBytes);
        for (const File& file : files) {
            progress.update(done, total);
            auto made = daemon->warm(fmt::format("commits/{}/{}", target.commit.hex(), file.path));
            if (!made && made.error().code != Errc::kNoSpace) return std::move(made).error();
            if (made && *made) {
                plain += file.size;
            } else {
                ++missed;
                progress.clear();
                context.out.warn(
                    fmt::format("{}: no room for it within the mount's cache_size", quote_name(file.path)));
            }
            done += file.size;
        }
    }
    if (context.json()) {
        Json out = json_document("warm");
        out["files"] = all;
        out["plain_bytes"] = plain;
        out["without_room"] = missed;
        out["too_small"] = small;
        print_json(context.out, out);
    } else if (!context.arguments.has("quiet")) {
        context.out.print("{} of {} file(s) plain, {}{}\n", files.size() - missed, all, size_text(plain),
                          small ? fmt::format("; {} smaller than 1 MiB left out", small) : "");
    }
    return missed ? kNo : kOk;
}

}  // namespace

const Command& warm_command() {
    static const Command command{
        "warm",
        "Begin and mount",
        "decode files now, so that they are read at the disk's speed",
        "warm [--json] [-q] REV [PATH…]",
        "Makes plain copies of a commit's files in the mount's local cache (all of them without PATH).\n"
        "The kernel then reads and maps them by itself, as any file of the disk below. The copies go\n"
        "when the mount does, or when others need the room (mount option cache_size). Files below\n"
        "1 MiB are left out: they are read as fast without. Exit code 1: there was no room for some.",
        "coral warm main model.safetensors\n"
        "coral warm v1.0",
        {kBranchOption, kJsonOption, kQuietOption},
        1,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
