// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

// Beside this program (an installation and a build tree both have them in one place), else in PATH.
std::string find_daemon_program() {
    std::string own = own_program();
    if (!own.empty()) {
        std::string beside = path_join(path_parent(own), "coralfs");
        if (real_os().exists(beside)) return beside;
    }
    return find_program("coralfs");
}

Result<std::string> mount_point(const std::string& operand) {
    auto stat = real_os().lstat(operand);
    if (!stat) {
        if (stat.error().code == Errc::kNotFound) {
            return make_error(Errc::kInvalid,
                              fmt::format("{}: the mount point does not exist; `mkdir` it", quote_name(operand)));
        }
        // "Not connected" is a mount whose daemon died: coralfs heals it. The path's parent still can be resolved.
        std::string name = path_name(operand);
        CORAL_TRY(std::string parent, absolute_path(path_parent(operand)));
        return path_join(parent, name);
    }
    if (stat->type == FileType::kSymlink) stat = real_os().stat(operand);
    if (stat && stat->type != FileType::kDirectory) {
        return make_error(Errc::kNotDirectory,
                          fmt::format("{}: not a directory; mount on an empty directory", quote_name(operand)));
    }
    return absolute_path(operand);
}

std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

// It is mounted all the same: what is stored can be read, and a branch becomes writable once it is free.
void tell_what_is_not_ours(Context& context, const std::string& point) {
    auto socket = get_xattr(point, "user.coral.socket");
    if (!socket || !*socket) return;
    auto client = control::Client::connect(**socket);
    if (!client) return;
    auto info = (*client)->info();
    if (!info || info->read_only) return;
    for (const std::string& branch : info->read_only_branches) {
        context.out.warn(fmt::format(
            "branch {} is read-only in this mount until the process that owns it (another mount, or a command) ends",
            quote_name(branch)));
    }
}

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    if (operands[0].empty() || operands[1].empty()) return context.usage("mount: REPOSITORY and DIR must not be empty");
    CORAL_TRY(std::string repository, absolute_path(operands[0]));
    if (!real_os().exists(path_join(repository, "FORMAT"))) {
        return make_error(Errc::kInvalid, fmt::format("{}: is no CoralFS repository; make one with `coral init {}`",
                                                      quote_name(repository), quote_name(operands[0])));
    }
    CORAL_TRY(std::string point, mount_point(without_slashes(operands[1])));
    std::string program = find_daemon_program();
    if (program.empty()) {
        return make_error(Errc::kInvalid,
                          "the daemon `coralfs` is neither beside `coral` nor in PATH; install both programs");
    }
    std::vector<std::string> words{"--from-coral"};
    if (context.arguments.has("foreground")) words.push_back("-f");
    for (const std::string& options : context.arguments.values("options")) {
        words.push_back("-o");
        words.push_back(options);
    }
    words.push_back(repository);
    words.push_back(point);
    CORAL_CHECK(context.out.finish());
    if (context.arguments.has("foreground")) {
        Error error = exec_program(program, words);
        if (error.code == Errc::kNotFound) error.code = Errc::kInvalid;
        return error;
    }
    // It goes to the background by itself once the mount answers, and has said what went wrong when it does not.
    CORAL_TRY(int code, run_program(program, words));
    if (code == 0) tell_what_is_not_ours(context, point);
    return code == 0 || code == kUsage ? code : kFatal;
}

}  // namespace

const Command& mount_command() {
    static const Command command{
        "mount",
        "Begin and mount",
        "make a repository's branches, tags and commits ordinary files",
        "mount [-f] [-o OPTIONS]… REPOSITORY DIR",
        "Starts the daemon `coralfs` and returns when the mount answers. DIR exists and is empty; a\n"
        "mount there whose daemon died is healed first. The log is in REPOSITORY/run.\n"
        "Without root this needs `fusermount3` (package fuse3) and access to /dev/fuse.\n"
        "OPTIONS are joined by commas; `coralfs --help` says what each does: ro, allow_other, allow_root,\n"
        "auto_unmount, guard, nonempty, fsname=NAME, memory=SIZE, threads=N, readahead=SIZE, readahead_kb=N,\n"
        "hot_size=SIZE, cache_size=SIZE, backlog=SIZE, materialize=auto|never|always, new_pages=keep,\n"
        "passthrough=off, supervisor=off, share=off, debug, and what fstab knows.",
        "coral mount models.coral /mnt/m\n"
        "coral mount -o ro,allow_other models.coral /mnt/m\n"
        "cp ckpt.safetensors /mnt/m/branches/main/",
        {{'f', "foreground", nullptr, "stay in the foreground, log to stderr"},
         {'o', "options", "OPTIONS", "mount options, see above"}},
        2,
        2,
        run,
    };
    return command;
}

}  // namespace coral::cli
