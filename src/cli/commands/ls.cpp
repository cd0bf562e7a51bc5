// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"
#include "cli/tree_walk.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

const char* type_word(repo::EntryType type) {
    switch (type) {
        case repo::EntryType::kFile:
            return "file";
        case repo::EntryType::kDirectory:
            return "directory";
        case repo::EntryType::kSymlink:
            return "symlink";
    }
    return "file";
}

char type_letter(repo::EntryType type) {
    return type == repo::EntryType::kFile ? '-' : type == repo::EntryType::kDirectory ? 'd' : 'l';
}

Json json_of_entry(const std::string& path, const repo::TreeEntry& entry) {
    Json out;
    put_text(out, "path", path);
    out["type"] = type_word(entry.type);
    out["mode"] = fmt::format("{:04o}", entry.mode);
    out["size"] = entry.size;
    if (entry.type == repo::EntryType::kFile) out["mtime_ns"] = entry.mtime_ns;
    if (entry.type == repo::EntryType::kSymlink) put_text(out, "target", entry.link);
    out["id"] = entry.content.hex();
    return out;
}

void print_entry(Context& context, const std::string& path, const repo::TreeEntry& entry) {
    Output& out = context.out;
    bool nul = context.arguments.has("null");
    std::string_view end = nul ? std::string_view("\0", 1) : "\n";
    if (nul) {
        out.write(path);
        return out.write(end);
    }
    std::string name = quote_name(path);
    if (entry.type == repo::EntryType::kDirectory) name = out.paint(Color::kCyan, name);
    if (!context.arguments.has("long")) {
        out.print("{}\n", name);
        return;
    }
    std::string link = entry.type == repo::EntryType::kSymlink ? " -> " + quote_name(entry.link) : "";
    std::string time =
        entry.type == repo::EntryType::kFile ? time_text(entry.mtime_ns, 0).substr(0, 16) : std::string(16, ' ');
    out.print("{} {} {:>14} {} {}{}\n", mode_text(type_letter(entry.type), entry.mode),
              entry.content.hex().substr(0, 12), entry.size, time, name, link);
}

// `visit` for every entry that is asked for, in the order of paths.
Status list(Context& context, const Target& target, const repo::TreeEntry& top,
            const std::function<void(const std::string&, const repo::TreeEntry&)>& visit) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    if (top.type != repo::EntryType::kDirectory) {
        visit(path_name(target.path), top);
        return {};
    }
    if (!context.arguments.has("recursive")) {
        CORAL_TRY(auto tree, repository->tree(TreeId::from(top.content)));
        for (const repo::TreeEntry& entry : tree->entries) visit(entry.name, entry);
        return {};
    }
    return walk_tree(*repository, TreeId::from(top.content),
                     [&](const std::string& path, const repo::TreeEntry& entry) -> Status {
                         if (entry.type != repo::EntryType::kDirectory) visit(path, entry);
                         return context.out.failed() ? context.out.finish() : Status();
                     });
}

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    Target target;
    if (operands.empty()) {
        CORAL_TRY(target, default_target(context));
    } else {
        CORAL_TRY(target, parse_target(context, operands[0]));
    }
    CORAL_TRY(repo::TreeEntry top, target_entry(context, target));
    if (context.json()) {
        Json document = json_document("ls");
        document["commit"] = target.commit.hex();
        put_text(document, "path", target.path);
        JsonList json(context.out, std::move(document), "entries");
        CORAL_CHECK(list(context, target, top, [&](const std::string& path, const repo::TreeEntry& entry) {
            json.add(json_of_entry(path, entry));
        }));
        return kOk;
    }
    CORAL_CHECK(list(context, target, top, [&](const std::string& path, const repo::TreeEntry& entry) {
        print_entry(context, path, entry);
    }));
    return kOk;
}

}  // namespace

const Command& ls_command() {
    static const Command command{
        "ls",
        "History",
        "list the files of a commit",
        "ls [-l] [-r] [-z | --json] [-b BRANCH] [REV[:PATH]]",
        "Lists what is in the commit, or in a folder of it; by default of the branch or commit you\n"
        "stand in, else of HEAD. With -r files and symlinks at any depth. The id of a file is the\n"
        "SHA-256 of its bytes.",
        "coral ls\n"
        "coral ls -lr v1.0:run1",
        {{'l', "long", nullptr, "with mode, id, size and time (UTC)"},
         {'r', "recursive", nullptr, "files and symlinks in folders too"},
         {'z', "null", nullptr, "names as they are, ended by NUL"},
         kBranchOption,
         kJsonOption},
        0,
        1,
        run,
    };
    return command;
}

}  // namespace coral::cli
