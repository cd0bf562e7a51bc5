// SPDX-License-Identifier: Apache-2.0
// coralfs: the daemon behind `coral mount`.
#include <fcntl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>

#include "coral/base/os.hpp"
#include "daemon.hpp"
#include "mount_point.hpp"
#include "startup.hpp"
#include "supervisor.hpp"

namespace {

using namespace coral;
using namespace coral::fuse;

constexpr const char* kOptionHelp = R"(Options after -o, separated by commas:
  ro                    nothing may be changed
  allow_other           other users may use the mount (root, or user_allow_other in /etc/fuse.conf)
  allow_root            root may
  auto_unmount          unmount when the daemon dies
  guard                 (root) nobody can write into the folder itself, also when nothing is mounted there: as after
                        `chattr +i DIR`; `chattr -i DIR` ends it
  nonempty              mount over a directory that has files
  memory=SIZE           for decoded data, such as 512M or 2G
  threads=N             for storing and reading ahead
  readahead=SIZE        decoded ahead of a sequential reader
  readahead_kb=N        the kernel's own read-ahead (root only; 0 leaves it; default 1024)
  hot_size=SIZE         just saved files stay plain up to this many bytes (8G; 0: none)
  backlog=SIZE          what may wait to be stored before those who write are slowed down (16G)
  cache_size=SIZE       plain copies of committed files, which the kernel reads by itself (16G; 0: none)
  materialize=WHEN      auto: a file that is read again gets a plain copy; never; always: at the first open
  new_pages=keep        without passthrough: what is written stays in the kernel's page cache, so that its first read is
                        as fast as the next ones; copying in is a third slower and takes twice the page cache (drop)
  passthrough=off       the kernel never reads and writes files itself (auto: when it may, as root)
  supervisor=off        nobody goes on when the daemon dies (auto: where the kernel can send requests again)
  share=off             equal files of different commits get inodes of their own
  fsname=NAME           shown by mount and df instead of the repository's path
  debug                 log every request
  noexec, noatime, sync, dirsync, and what fstab knows: as for any filesystem)";

Status start(const std::string& repository_argument, const std::string& mount_argument, const MountOptions& options,
             const std::vector<std::string>& words, bool foreground, int& exit_status) {
    CORAL_TRY(std::string repository, absolute_path(repository_argument));
    if (!real_os().exists(path_join(repository, "FORMAT")))
        return make_error(Errc::kNotFound, fmt::format("{}: not a CoralFS repository; make one with: coral init {}",
                                                       repository_argument, repository_argument));
    CORAL_TRY(std::string mount_point, resolve_mount_point(mount_argument));
    CORAL_CHECK(check_fuse_available(options));
    CORAL_CHECK(prepare_mount_point(mount_point, repository, options));
    Starter starter;
    if (!foreground) {
        CORAL_TRY(starter, go_to_background(mount_point));  // the parent ends in there
    }
    exit_status = options.supervisor ? supervise(repository, mount_point, options, words, starter)
                                     : run_daemon(repository, mount_point, options, starter, std::nullopt);
    return {};
}

// What a supervisor calls: all has been checked, and everything is absolute.
Status work(const std::string& repository, const std::string& mount_point, const MountOptions& options,
            const std::vector<std::string>& from_supervisor, int& exit_status) {
    CORAL_TRY(WorkerArguments given, worker_arguments_from(from_supervisor));
    // What comes from the supervisor is for this process alone, not for those that it starts.
    for (int descriptor :
         {given.device, given.handover[0], given.handover[1], given.handover[2], given.supervisor, given.starter})
        if (descriptor >= 0) ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    for (const auto& [worktree, descriptor] : given.locks) ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    exit_status = run_daemon(repository, mount_point, options, Starter(given.starter), given);
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Serves a CoralFS repository as a filesystem. `coral mount` calls it."};
    bool foreground = false, debug = false, from_coral = false;
    std::vector<std::string> words, worker;
    std::string repository, mount_point;
    app.add_option("--worker", worker)->group("")->allow_extra_args(false);  // of the supervisor
    app.add_flag("-f,--foreground", foreground, "stay in the foreground, log to standard error");
    app.add_flag("-d,--debug", debug, "log every request (implies -f)");
    app.add_flag("--from-coral", from_coral, "what `coral mount` calls it with: errors are said in its name");
    app.add_option("-o", words, "mount options")->allow_extra_args(false);
    app.add_option("REPOSITORY", repository, "the repository's directory")->required();
    app.add_option("MOUNTPOINT", mount_point, "an empty directory")->required();
    app.set_version_flag("-V,--version", "coralfs " CORAL_VERSION);
    app.footer(kOptionHelp);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
        print_error(fmt::format("{} (see coralfs --help)", e.what()));
        return 129;
    }
    if (from_coral) called_by_coral();
    const int failure = from_coral ? 128 : 1;  // `coral mount -f` is this very process
    try {
        MountOptions options;
        Status status;
        for (const std::string& word : words) {
            if (status) status = parse_mount_options(word, options);
        }
        options.debug = options.debug || debug;
        int exit_status = 1;
        if (status) {
            status = worker.empty() ? start(repository, mount_point, options, words, foreground || debug, exit_status)
                                    : work(repository, mount_point, options, worker, exit_status);
        }
        if (status && (exit_status == 0 || !worker.empty())) return exit_status;
        if (status) return failure;  // said already
        print_error(status.error().message);
    } catch (const std::exception& e) {
        print_error(e.what());
    }
    return failure;
}
