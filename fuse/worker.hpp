// SPDX-License-Identifier: Apache-2.0
// A process that serves a mount for a supervisor (supervisor.hpp): what it is given, and what it says to it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coral/repo/worktree.hpp"
#include "coral/vfs/handover.hpp"

namespace coral::fuse {

// The exit status of a worker that wants to be replaced by another one.
inline constexpr int kReplaceMe = 75;
// Of one that was refused a thread: the next one may be luckier, and is started after a pause.
inline constexpr int kNoThreads = 76;

// Descriptors that the supervisor has left open for its worker.
struct WorkerArguments {
    int device = -1;  // the mount's connection
    std::array<int, vfs::Handover::kFiles> handover{-1, -1, -1};
    int supervisor = -1;  // a socket
    int starter = -1;     // who waits for the mount; of the first worker only
    bool background = false;
    int supervisor_pid = 0;
    std::vector<std::pair<Uuid, int>> locks;
};
// One word for the locks of each 1000 branches and one before them: a single word may have 128 KiB (MAX_ARG_STRLEN).
std::vector<std::string> to_words(const WorkerArguments& arguments);
Result<WorkerArguments> worker_arguments_from(const std::vector<std::string>& words);

// One message of the socket: what to do with a worktree's lock, whose descriptor comes along with kKeep.
enum class SupervisorOrder : char { kKeep = 'K', kDrop = 'D', kClose = 'C' };
struct SupervisorMessage {
    SupervisorOrder order;
    Uuid worktree;  // not of kClose, which asks to let go of the connection
};
bool send_message(int socket, const SupervisorMessage& message, int descriptor);
// False: nothing (more) there. `descriptor` -1: none came along.
bool receive_message(int socket, SupervisorMessage& message, int& descriptor);

// The worker's end. Thread-safe.
class LockBox final : public repo::LockKeeper {
  public:
    explicit LockBox(const WorkerArguments& arguments);
    std::unique_ptr<File> inherited(const Uuid& worktree) override;
    void keep(const Uuid& worktree, const File& lock) override;
    void drop(const Uuid& worktree) override;
    void close_connection();
    // The socket that commands come through: kept under the worktree id of nobody.
    int inherited_socket();
    void keep_socket(int descriptor);

  private:
    const int socket_;
    std::mutex mutex_;  // guards inherited_
    std::map<Uuid, int> inherited_;
};

}  // namespace coral::fuse
