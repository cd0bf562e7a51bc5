// SPDX-License-Identifier: Apache-2.0
// How `coral` and a daemon talk: one Unix stream socket, one JSON object per line each way. Request {"command": "...",
// …}; answer {"ok": true, "result": {…}} or {"ok": false, "errc": N, "error": "…"}. While a long command runs the
// server may send
// {"progress": {"done": N, "total": N}} lines first; long answers come in {"part": …} lines before the last. Strings
// are percent-escaped bytes (src/control/README.md). Only the daemon's own user and root may connect (peer
// credentials).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "coral/base/result.hpp"
#include "coral/repo/worktree.hpp"

namespace coral::control {

// Commands that only the owner of a worktree may do. Serving them: Server. Asking for them: Client.
// Lines are at most 16 MiB; a peer that says nothing for 10 s while a line is due is dropped.

struct PlaceRequest {  // one file or symlink of `coral add`: content is in the store already
    std::string path;
    FileId file;
    std::uint64_t size = 0;
    std::uint32_t mode = 0644;
    std::int64_t mtime_ns = 0;
    std::string link;  // not empty: a symlink with this text
    bool directory = false;
};

struct DaemonInfo {
    std::uint32_t pid = 0;  // who ends with the mount: the supervisor, when there is one
    std::string mount_point, repository, version;
    std::uint64_t pending_ingest = 0, resident_bytes = 0;
    std::string passthrough;                         // "on", or why not
    std::uint64_t hot_bytes = 0, hot_limit = 0;      // staging files that stay plain after their ingest
    std::uint64_t plain_bytes = 0, plain_limit = 0;  // plain copies of committed files
    std::uint64_t open_files = 0, passthrough_files = 0;
    std::uint64_t kernel_readahead_kb = 0;          // in this mount; 0: not known
    std::uint32_t worker_pid = 0;                   // who answers
    std::uint32_t workers = 1;                      // so far, this one included
    bool supervised = false;                        // another process goes on when this one dies
    bool read_only = false;                         // all of the mount
    std::vector<std::string> read_only_branches{};  // another process owns them, or all are
};

// What the daemon offers; implemented over vfs::Filesystem in fuse/, and by fakes in tests.
class Service {
  public:
    virtual ~Service() = default;
    virtual Result<DaemonInfo> info() = 0;
    virtual Result<std::shared_ptr<repo::Worktree>> worktree(const std::string& branch) = 0;
    virtual Status branches_changed() = 0;
    virtual Status release_branch(const std::string& branch) = 0;
    // Packs were removed: lets go of them, so that the disk gets their room back. That a daemon knows this command
    // tells `coral gc` that it knows of removals at all.
    virtual Status packs_changed() { return {}; }
    // Makes a plain copy of a file ("commits/<id>/a/b", "branches/main/a"), so that the kernel reads it by itself.
    // False: there is no room for it. kUnsupported: the kernel would not.
    virtual Result<bool> warm(const std::string&) { return make_error(Errc::kUnsupported, "no plain copies here"); }
    // Unmount and leave: returns at once. kBusy when something still uses the mount, which then stays.
    virtual Status stop() = 0;
    // A while after a stop() that succeeded: why the daemon does not begin to leave. Empty: it does.
    virtual std::optional<std::string> goes_on_because() { return std::nullopt; }
    // Until the kernel has forgotten all that was changed so far: called after every command that changes, before its
    // answer.
    virtual void settle() {}
    // Around what changes names or contents otherwise than through the kernel, settle() included: a process that
    // follows one that died in between tells the kernel everything anew.
    virtual void begin_change() {}
    virtual void end_change() {}
    // Hand over to a new process of the program as it is on the disk now: returns at once. kUnsupported: nobody could
    // start it.
    virtual Status replace() { return make_error(Errc::kUnsupported, "this daemon has no supervisor"); }
};

// A listening socket that outlives its process.
struct Listener {
    int descriptor = -1;
    std::string path;
};

class Server {
  public:
    // Listens on a socket under the runtime directory ($XDG_RUNTIME_DIR/coral, else /run/user/<uid>/coral, else
    // /tmp/coral-<uid>, 0700), short enough for sun_path.
    // `inherited`: of the process before this one; clients that are waiting there do not notice.
    static Result<std::unique_ptr<Server>> start(Service& service, const Listener& inherited = {});
    virtual ~Server() = default;  // drains, stops accepting, removes the socket
    virtual const std::string& socket_path() const = 0;
    virtual int descriptor() const { return -1; }  // of the listening socket
    // Refuses new commands (kBusy), waits for the running ones (a commit that waits for a writer gives up) and, for 10
    // s at most, until their answers are sent. A client that asked to stop stays connected until the destructor, and so
    // learns when the daemon has given everything back.
    virtual void drain() = 0;
    // Accepts nobody any more, and waits as drain() does, but for 10 s at most and while `cut_short` says no. Who
    // connects now waits for the process that follows, which has the same listening socket; so does who is cut off, or
    // was refused. Afterwards only drain() and the destructor are of use.
    virtual void leave_to_another(const std::function<bool()>& cut_short) = 0;
};

// Says (and no longer says) where the owner of a worktree listens: Worktree::owner_path. By the process that holds the
// lock.
Status publish_owner(const repo::Repository& repo, const Uuid& worktree, const std::string& socket_path);
void withdraw_owner(const repo::Repository& repo, const Uuid& worktree, const std::string& socket_path);

// One connection per command: a client may be kept for as long as one likes. Not thread-safe. A command whose daemon
// dies is sent again to the one that follows, if one does; none is carried out twice.
class Client {
  public:
    // Asks the daemon for a sign of life.
    static Result<std::unique_ptr<Client>> connect(const std::string& socket_path, int timeout_ms = 5000);
    // The daemon that owns a branch's worktree. kNotFound: nobody does (its lock is free). kBusy: a process holds the
    // lock and offers no socket, such as a `coral add` without a mount, or does not answer.
    static Result<std::unique_ptr<Client>> owner_of(repo::Repository& repo, const std::string& branch);
    virtual ~Client() = default;

    virtual Result<DaemonInfo> info() = 0;
    virtual Result<repo::CommitResult> commit(const std::string& branch, const repo::CommitOptions& options) = 0;
    virtual Result<repo::StatusResult> status(const std::string& branch) = 0;
    virtual Result<std::uint64_t> restore(const std::string& branch, const TreeId& source,
                                          const std::vector<std::string>& paths) = 0;
    virtual Result<std::uint64_t> place(const std::string& branch, const std::vector<PlaceRequest>& requests) = 0;
    virtual Status wait_ingested(const std::string& branch) = 0;
    virtual Status branches_changed() = 0;
    virtual Status release_branch(const std::string& branch) = 0;
    virtual Status packs_changed() = 0;
    virtual Status replace() = 0;
    virtual Result<bool> warm(const std::string& path) = 0;
    // Returns when the mount is gone and the repository is given back.
    virtual Status stop() = 0;

    // Called while a command runs: for progress bars.
    using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
    virtual void on_progress(Progress) {}
};

// The same commands on a worktree that this process owns, so that the command line works with and without a mount.
Result<std::uint64_t> place_all(repo::Worktree& worktree, const std::vector<PlaceRequest>& requests);

std::string runtime_dir();

}  // namespace coral::control
