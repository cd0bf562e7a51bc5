// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

Result<control::DaemonInfo> info_of(Context& context) {
    control::DaemonInfo info;
    if (!context.arguments.operands().empty()) {
        const std::string& point = context.arguments.operands()[0];
        if (!real_os().exists(path_join(point, "FORMAT"))) {
            auto socket = get_xattr(point, "user.coral.socket");
            if (!socket || !*socket)
                return make_error(Errc::kNotFound,
                                  fmt::format("{}: is neither in a mount of CoralFS nor a repository that is mounted; "
                                              "`coral mount REPOSITORY DIR` mounts one",
                                              quote_name(point)));
            CORAL_TRY(auto client, control::Client::connect(**socket));
            return client->info();
        }
        CORAL_TRY(auto repository, repo::Repository::open(real_os(), point, {}));
        if (find_daemon(*repository, &info)) return info;
        return make_error(Errc::kNotFound, fmt::format("{}: is not mounted", quote_name(point)));
    }
    CORAL_TRY(repo::Repository * repository, context.repository());
    if (find_daemon(*repository, &info)) return info;
    return make_error(Errc::kNotFound, fmt::format("{}: is not mounted", quote_name(repository->dir())));
}

Json to_json(const control::DaemonInfo& info) {
    Json out = json_document("mount-info");
    out["mount_point"] = info.mount_point;
    out["repository"] = info.repository;
    out["pid"] = info.pid;
    out["worker_pid"] = info.worker_pid;
    out["workers"] = info.workers;
    out["supervised"] = info.supervised;
    out["version"] = info.version;
    out["passthrough"] = info.passthrough == "on";
    if (info.passthrough != "on") out["passthrough_off_because"] = info.passthrough;
    out["open_files"] = info.open_files;
    out["passthrough_files"] = info.passthrough_files;
    out["hot_bytes"] = info.hot_bytes;
    out["hot_limit"] = info.hot_limit;
    out["plain_bytes"] = info.plain_bytes;
    out["plain_limit"] = info.plain_limit;
    out["kernel_readahead_kb"] = info.kernel_readahead_kb;
    out["pending_ingest"] = info.pending_ingest;
    out["read_only"] = info.read_only;
    out["read_only_branches"] = info.read_only_branches;
    out["resident_bytes"] = info.resident_bytes;
    return out;
}

std::string not_ours(const std::vector<std::string>& branches) {
    std::string names;
    for (const std::string& name : branches) names += (names.empty() ? "" : ", ") + quote_name(name);
    return names + "; another process owns " + (branches.size() == 1 ? "it" : "them");
}

Result<int> run(Context& context) {
    CORAL_TRY(control::DaemonInfo info, info_of(context));
    if (context.json()) {
        print_json(context.out, to_json(info));
        return kOk;
    }
    bool on = info.passthrough == "on";
    context.out.print("Mounted:      {} at {}\n", quote_name(info.repository), quote_name(info.mount_point));
    context.out.print("Daemon:       coralfs {}, process {}, {} resident\n", info.version, info.pid,
                      size_text(info.resident_bytes));
    context.out.print("If it dies:   {}\n", info.supervised
                                                ? fmt::format("another process goes on (process {} is number {})",
                                                              info.worker_pid, info.workers)
                                                : std::string("the mount is dead until it is mounted again"));
    context.out.print("Passthrough:  {}\n", on ? "on" : fmt::format("off: {}", info.passthrough));
    context.out.print("Open files:   {}, of these {} in passthrough\n", info.open_files, info.passthrough_files);
    context.out.print("Hot files:    {} of at most {}\n", size_text(info.hot_bytes), size_text(info.hot_limit));
    context.out.print("Plain copies: {} of at most {}\n", size_text(info.plain_bytes), size_text(info.plain_limit));
    context.out.print("Read-ahead:   {} KiB by the kernel\n", info.kernel_readahead_kb);
    context.out.print("Ingest:       {} file(s) waiting\n", info.pending_ingest);
    if (info.read_only) {
        context.out.print("Read-only:    all of it\n");
    } else if (!info.read_only_branches.empty()) {
        context.out.print("Read-only:    {}\n", not_ours(info.read_only_branches));
    }
    return kOk;
}

}  // namespace

const Command& mount_info_command() {
    static const Command command{
        "mount-info",
        "Begin and mount",
        "show how a mount works and what it is doing",
        "mount-info [--json] [DIR]",
        "Tells whether the kernel reads and writes files itself (passthrough) and if not why not, how many files are\n"
        "open, how much of what was just saved is still plain (hot) and how much waits for its ingest. DIR is a\n"
        "directory in a mount, or a repository; else the repository you stand in.",
        "coral mount-info /mnt/m\n"
        "coral mount-info --json models.coral",
        {kJsonOption},
        0,
        1,
        run};
    return command;
}

}  // namespace coral::cli
