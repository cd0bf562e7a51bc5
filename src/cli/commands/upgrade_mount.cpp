// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"
#include "coral/control/protocol.hpp"

namespace coral::cli {
namespace {

constexpr auto kPause = std::chrono::milliseconds(20);
constexpr int kPauses = 1500;  // half a minute for the new process to answer

Result<control::DaemonInfo> wait_for_another(control::Client& client, std::uint32_t before, const std::string& point) {
    for (int i = 0; i < kPauses; ++i) {
        auto info = client.info();
        if (info && info->worker_pid != before) return info;
        std::this_thread::sleep_for(kPause);
    }
    return make_error(Errc::kBusy,
                      fmt::format("{}: no other process has taken over; see run/coralfs.log in the repository", point));
}

Result<int> run(Context& context) {
    const std::string& point = context.arguments.operands()[0];
    auto socket = get_xattr(point, "user.coral.socket");
    if (!socket || !*socket)
        return make_error(Errc::kNotFound, fmt::format("{}: is not in a mount of CoralFS", quote_name(point)));
    CORAL_TRY(auto client, control::Client::connect(**socket));
    CORAL_TRY(control::DaemonInfo before, client->info());
    CORAL_CHECK(client->replace());
    CORAL_TRY(control::DaemonInfo after, wait_for_another(*client, before.worker_pid, quote_name(point)));
    if (context.json()) {
        Json out = json_document("upgrade-mount");
        out["mount_point"] = after.mount_point;
        out["before"] = {{"version", before.version}, {"pid", before.worker_pid}};
        out["after"] = {{"version", after.version}, {"pid", after.worker_pid}};
        print_json(context.out, out);
        return kOk;
    }
    context.out.print("{}: coralfs {} (process {}) goes on where {} (process {}) stopped\n",
                      quote_name(after.mount_point), after.version, after.worker_pid, before.version,
                      before.worker_pid);
    return kOk;
}

}  // namespace

const Command& upgrade_mount_command() {
    static const Command command{
        "upgrade-mount",
        "Begin and mount",
        "replace a mount's daemon by the installed version",
        "upgrade-mount [--json] DIR",
        "Starts the program coralfs as it is on the disk now and lets it go on where the running one stops. The mount\n"
        "stays: open files stay open, and programs that use it only wait for a moment. DIR is any directory in the\n"
        "mount. If the new program does not work, the old one goes on.",
        "sudo apt upgrade coralfs && coral upgrade-mount /mnt/m",
        {kJsonOption},
        1,
        1,
        run};
    return command;
}

}  // namespace coral::cli
