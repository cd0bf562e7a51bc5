// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

constexpr auto kPause = std::chrono::milliseconds(20);
constexpr int kLeavePauses = 500;  // ten seconds for the process to end once it has given everything back

// Absolute, even when the mount does not answer any more.
Result<std::string> absolute_point(std::string operand) {
    while (operand.size() > 1 && operand.back() == '/') operand.pop_back();
    auto absolute = absolute_path(operand);
    if (absolute) return absolute;
    CORAL_TRY(std::string parent, absolute_path(path_parent(operand)));
    return path_join(parent, path_name(operand));
}

Result<bool> mounted(const std::string& point) {
    CORAL_TRY(auto table, mounts());
    for (auto at = table.rbegin(); at != table.rend(); ++at) {
        if (at->point == point) return at->type.starts_with("fuse");
    }
    return false;
}

Error busy(const std::string& point) {
    return make_error(Errc::kBusy,
                      fmt::format("{}: busy: a file in it is open or a shell stands in it; close it (`fuser -m {}` "
                                  "tells who), or `coral umount -l`",
                                  quote_name(point), quote_name(point)));
}

Status wait_gone(const std::string& point, std::uint32_t pid) {
    for (int i = 0; i < kLeavePauses; ++i) {
        CORAL_TRY(bool still, mounted(point));
        const bool left = pid != 0 && !process_alive(pid);
        if (!still && (pid == 0 || left)) return {};
        // A mount that answers although its daemon has left is another one, made there since.
        if (left && real_os().stat(point).ok()) return {};
        std::this_thread::sleep_for(kPause);
    }
    CORAL_TRY(bool still, mounted(point));
    if (still) return make_error(Errc::kBusy, fmt::format("{}: is still mounted", quote_name(point)));
    return make_error(Errc::kBusy, fmt::format("{}: is unmounted, but its daemon (process {}) is still busy",
                                               quote_name(point), pid));
}

// Without the daemon's help: it is dead, or does not answer, or the mount is to be detached.
Status force(const std::string& point, bool lazy) {
    auto done = unmount(point, lazy);
    if (done) return {};
    if (done.error().code == Errc::kBusy) return busy(point);
    if (done.error().code != Errc::kPermission) return std::move(done).error();
    std::string helper = find_program("fusermount3");
    if (helper.empty()) {
        return make_error(Errc::kPermission,
                          fmt::format("{}: only root may unmount without `fusermount3`; install the package "
                                      "fuse3, or try with sudo",
                                      quote_name(point)));
    }
    CORAL_TRY(int code, run_program(helper, {lazy ? "-uz" : "-u", "--", point}));
    if (code == 0) return {};
    return make_error(Errc::kBusy, fmt::format("{}: fusermount3 could not unmount it", quote_name(point)));
}

Result<int> stop_daemon(control::Client& client, const std::string& point) {
    auto info = client.info();
    std::uint32_t pid = info ? info->pid : 0;
    auto stopped = client.stop();
    if (!stopped) {
        if (stopped.error().code == Errc::kBusy) {
            CORAL_TRY(bool still, mounted(point));
            return still ? busy(point) : std::move(stopped).error();
        }
        // A daemon that leaves may be gone before its answer is: then the mount tells whether it has done what we
        // asked.
        if (stopped.error().code != Errc::kNoData || !wait_gone(point, pid)) {
            return std::move(stopped).error().with(quote_name(point));
        }
        return kOk;
    }
    CORAL_CHECK(wait_gone(point, pid));
    return kOk;
}

// A repository's directory instead of the mount point.
Result<int> stop_repository(const std::string& dir) {
    CORAL_TRY(auto repository, repo::Repository::open(real_os(), dir, {}));
    control::DaemonInfo info;
    auto daemon = find_daemon(*repository, &info);
    repository.reset();
    if (!daemon) return make_error(Errc::kNotFound, fmt::format("{}: is not mounted", quote_name(dir)));
    return stop_daemon(*daemon, info.mount_point);
}

Result<int> run(Context& context) {
    if (context.arguments.operands()[0].empty()) return context.usage("umount: DIR must not be empty");
    CORAL_TRY(std::string point, absolute_point(context.arguments.operands()[0]));
    CORAL_TRY(bool is_mounted, mounted(point));
    if (!is_mounted) {
        if (real_os().exists(path_join(point, "FORMAT"))) return stop_repository(point);
        return make_error(Errc::kNotFound, fmt::format("{}: nothing of CoralFS is mounted there", quote_name(point)));
    }
    bool lazy = context.arguments.has("lazy");
    auto socket = get_xattr(point, "user.coral.socket");
    if (socket && !*socket)
        return make_error(Errc::kInvalid, fmt::format("{}: is another filesystem's mount", quote_name(point)));
    if (socket && !lazy) {
        auto client = control::Client::connect(**socket);
        if (client) return stop_daemon(**client, point);
    }
    CORAL_CHECK(force(point, lazy));
    if (!lazy) CORAL_CHECK(wait_gone(point, 0));
    return kOk;
}

}  // namespace

const Command& umount_command() {
    static const Command command{
        "umount",
        "Begin and mount",
        "end a mount",
        "umount [-l] DIR",
        "Returns when the mount is gone and the daemon has given the repository back: all that was\n"
        "written is in the packs or in synced staging. DIR may also be the repository. Refuses while\n"
        "files are open.",
        "coral umount /mnt/m\n"
        "coral umount -l /mnt/m        # out of sight now, gone when the last file is closed",
        {{'l', "lazy", nullptr, "detach at once; ends when the last open file is closed"}},
        1,
        1,
        run,
    };
    return command;
}

}  // namespace coral::cli
