// SPDX-License-Identifier: Apache-2.0
// What the daemon offers on its socket, over the filesystem that it serves.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "coral/control/protocol.hpp"
#include "coral/vfs/filesystem.hpp"
#include "coral/vfs/handover.hpp"

namespace coral::fuse {

class DaemonService final : public control::Service {
  public:
    struct Hooks {
        std::function<Status()> stop;              // unmount and leave
        std::function<void()> settle;              // the fence of the invalidator
        std::function<std::string()> passthrough;  // "on", or why not
        std::function<Status()> replace;           // by another process
        vfs::Handover* handover = nullptr;         // null: nobody follows
        std::uint32_t supervisor = 0;              // its process id
        std::function<bool()> supervised;          // would another process go on now?
        std::function<bool()> pinned;              // is the mount somewhere still, though it was unmounted here?
        bool read_only = false;                    // the mount, or its repository
    };
    DaemonService(vfs::Filesystem& fs, repo::Repository& repo, std::string mount_point, Hooks hooks);
    ~DaemonService() override;

    // From now on worktrees that this process owns are published under `socket_path`.
    void start_publishing(const std::string& socket_path);
    // Nothing is published any more. After the server was drained, before the filesystem goes.
    void stop_publishing();

    Result<control::DaemonInfo> info() override;
    Result<std::shared_ptr<repo::Worktree>> worktree(const std::string& branch) override;
    Status branches_changed() override;
    Status release_branch(const std::string& branch) override;
    Result<bool> warm(const std::string& path) override;
    Status packs_changed() override { return repo_.store().tidy(); }
    Status stop() override { return hooks_.stop(); }
    std::optional<std::string> goes_on_because() override;
    void settle() override { hooks_.settle(); }
    Status replace() override { return hooks_.replace(); }
    void begin_change() override {
        if (hooks_.handover) hooks_.handover->begin_outside_change();
    }
    void end_change() override {
        if (hooks_.handover) hooks_.handover->end_outside_change();
    }

  private:
    void publish_all();
    std::uint64_t pending_ingest();
    void give_memory_back();  // what the allocator holds and nobody uses
    void publish(const std::shared_ptr<repo::Worktree>& worktree);
    void withdraw(const std::string& branch);
    void withdraw_missing(const std::vector<repo::Branch>& branches);
    void run();

    vfs::Filesystem& fs_;
    repo::Repository& repo_;
    const std::string mount_point_;
    const Hooks hooks_;

    std::mutex mutex_;  // guards published_ and stop_; never held across a call into fs_ or repo_
    std::condition_variable wake_;
    std::map<std::string, Uuid> published_;  // by branch
    std::string socket_path_;
    bool stop_ = false;
    std::thread publisher_;
};

}  // namespace coral::fuse
