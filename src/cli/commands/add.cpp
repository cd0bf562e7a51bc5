// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/import_store.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"
#include "cli/tree_walk.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

constexpr std::size_t kLearnedFiles = 1000;  // whose tensors are offered as bases; more is time before the first byte

// As `cp -r SRC .` names it: the last part of the path; nothing for "." and "..", whose contents are meant.
std::string name_of(std::string source) {
    while (source.size() > 1 && source.back() == '/') source.pop_back();
    std::string name = path_name(source);
    return name == "." || name == ".." || name == "/" ? std::string() : name;
}

// There is no staging step: somebody with git in the fingers adds what is in the branch already.
Result<bool> is_there_already(Context& context, const std::string& branch, const std::string& source) {
    CORAL_TRY(const Place* place, context.place());
    auto there = absolute_path(path_parent(source));
    if (!there) return false;
    auto in_branch = get_xattr(*there, "user.coral.branch"), repository = get_xattr(*there, "user.coral.repository");
    return in_branch && *in_branch && **in_branch == branch && repository && *repository &&
           **repository == place->repository;
}

Result<std::vector<std::pair<std::string, std::string>>> pair_up(Context& context, const std::string& branch) {
    const Arguments& a = context.arguments;
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const std::string& source : a.operands()) {
        if (source.empty()) return make_error(Errc::kInvalid, "an empty SRC; name a file or folder");
        CORAL_TRY(bool there, is_there_already(context, branch, source));
        if (there && !a.has("as")) {
            context.out.warn(
                fmt::format("{} is in branch {} already: there is no staging step, `coral commit` takes it",
                            quote_name(source), quote_name(branch)));
            continue;
        }
        std::string name = a.value("as").value_or(name_of(source));
        CORAL_TRY(auto target, context.paths_in(branch, {name.empty() ? "." : name}));
        pairs.emplace_back(source, target[0]);
    }
    return pairs;
}

// The newest tensors of the branch, so that what is added can refer to them: first those of its commit, then
// uncommitted ones.
Status learn(Context& context, const std::string& branch, repo::BaseMap& bases) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(repo::StatusResult status, branch_status(context, branch));
    std::vector<FileId> files;
    if (status.commit) {
        CORAL_TRY(auto commit, repository->commit(*status.commit));
        auto walked =
            walk_tree(*repository, commit->tree, [&](const std::string&, const repo::TreeEntry& entry) -> Status {
                if (entry.type == repo::EntryType::kFile) files.push_back(FileId::from(entry.content));
                return files.size() < kLearnedFiles ? Status() : make_error(Errc::kRange, "enough");
            });
        if (!walked && walked.error().code != Errc::kRange) return walked;
    }
    for (const repo::Change& change : status.changes) {
        bool content = !change.directory && !change.new_content.is_zero() && files.size() < 2 * kLearnedFiles;
        if (content) files.push_back(FileId::from(change.new_content));
    }
    for (const FileId& file : files) {
        auto record = repository->store().file(file);  // a symlink's text has no record
        if (record) bases.learn(**record);
    }
    return {};
}

void report(Context& context, const ImportPlan& plan, const Imported& imported, const std::string& branch) {
    if (context.arguments.has("quiet")) return;
    std::string stored = plan.bytes ? fmt::format(" ({} in the packs)", size_text(imported.stored_bytes)) : "";
    context.out.print("Added {}, {}{}, to branch {}\n", count_text(plan.files, "file"), size_text(plan.bytes), stored,
                      quote_name(branch));
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    if (a.has("as") && a.operands().size() != 1)
        return context.usage("add: --as gives one SRC its name; add the others by themselves");
    CORAL_TRY(std::string branch, context.branch());
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(repo::Branch found, repository->branch(branch));
    (void)found;
    CORAL_TRY(auto pairs, pair_up(context, branch));
    if (pairs.empty()) return kOk;
    ScanOptions options;
    options.follow_links = a.has("dereference");
    options.repository = repository->dir();
    CORAL_TRY(ImportPlan plan, scan_sources(pairs, options, context.out));
    // Whether the branch can be changed at all shows here, before anything long begins.
    repo::BaseMap bases;
    CORAL_CHECK(learn(context, branch, bases));
    Progress progress("adding", Progress::Unit::kBytes);
    CORAL_TRY(Imported imported, store_files(context, plan, bases, progress));
    progress.clear();
    {
        CORAL_TRY(BranchAccess access, BranchAccess::open(context, branch));
        Progress placing("naming", Progress::Unit::kItems);
        access.on_progress(placing.callback());
        CORAL_CHECK(access.place(imported.requests));
    }
    report(context, plan, imported, branch);
    return kOk;
}

}  // namespace

const Command& add_command() {
    static const Command command{
        "add",
        "Files of a branch",
        "bring files or folders from outside into a branch",
        "add [-q] [-L] [-b BRANCH] SRC…\nadd [-q] [-L] [-b BRANCH] --as NAME SRC",
        "Stores each SRC, a folder with all in it, in the branch's working files, under its own name\n"
        "(of a folder '.': what is in it); files that are there are replaced. Needs no mount. Symlinks\n"
        "stay symlinks; -L stores what they point at, as for folders of the Hugging Face cache.\n"
        "There is no staging step as in git: files in the branch are committed without it.",
        "coral add checkpoint-1000\n"
        "coral add out/model.safetensors --as run1/model.safetensors\n"
        "coral -C models.coral add -L $PWD/snapshots/main --as gpt2",
        {{0, "as", "NAME", "its path in the branch; may hold '/'"},
         {'L', "dereference", nullptr, "store what symlinks point at"},
         kBranchOption,
         kQuietOption},
        1,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
