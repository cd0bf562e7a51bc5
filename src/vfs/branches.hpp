// SPDX-License-Identifier: Apache-2.0
// The worktrees that this mount owns, and who may take them away.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "coral/base/thread_pool.hpp"
#include "coral/repo/worktree.hpp"
#include "vfs/node.hpp"

namespace coral::vfs {

using WorktreePtr = std::shared_ptr<repo::Worktree>;

// The place of one worktree, for as long as the mount lives: the worktree itself comes and goes (another process may
// own it for a while, a rename of its branch opens it anew), nodes stay.
class TreeSlot {
  public:
    explicit TreeSlot(const Uuid& number) : uuid(number) {}
    const Uuid uuid;

    struct View {
        WorktreePtr worktree;  // null: not ours now
        std::uint64_t generation = 0;
    };
    View view() const {
        std::lock_guard lock(mutex_);
        return {worktree_, generation_};
    }
    // Counts an open handle, unless the worktree has just been given away.
    bool enter(const WorktreePtr& worktree) {
        std::lock_guard lock(mutex_);
        if (worktree_ != worktree) return false;
        ++open_handles_;
        return true;
    }
    void leave() {
        std::lock_guard lock(mutex_);
        --open_handles_;
    }

  private:
    friend class Branches;
    mutable std::mutex mutex_;  // guards the rest
    WorktreePtr worktree_;
    std::uint64_t generation_ = 0;  // grows whenever worktree_ is another one
    std::uint32_t open_handles_ = 0;
    std::int64_t leave_until_ns_ = 0;  // monotonic: somebody else has asked for it
};

class Branches {
  public:
    using Observer = std::function<void(repo::Ino parent, const std::string& name, repo::Ino replaced)>;
    // What the worktrees share.
    struct Shared {
        std::shared_ptr<repo::HotTier> hot;
        std::shared_ptr<repo::Backlog> backlog;
    };
    // `own` false: nothing is ever taken (read-only mount or repository).
    Branches(repo::Repository& repo, ThreadPool& pool, bool own, Shared shared, Observer observer,
             repo::LockKeeper* locks = nullptr);

    struct Branch {
        repo::Branch row;
        std::shared_ptr<TreeSlot> slot;
        WorktreePtr worktree;  // null: another process owns it
    };
    // kNotFound when there is no such branch. Takes its lock if it is free.
    Result<Branch> get(const std::string& name);
    // Takes every free branch, drops those that are gone.
    Status refresh();
    // Which worktree of ours has the inode; null: none.
    std::shared_ptr<TreeSlot> slot_with(repo::Ino ino);
    std::vector<WorktreePtr> all_owned();
    // What was open in an earlier process is open again, or never will be.
    void resumed();
    // Gives the branch's lock back; kBusy while handles are open or somebody is in the middle of a call. Not taken
    // again until refresh(), or for some seconds: whoever asked for it is about to delete or rename the branch.
    Status release(const std::string& name);
    // Finishes what is complete, syncs, gives everything back.
    Status release_all();

  private:
    WorktreePtr owned(const repo::Branch& row, const std::shared_ptr<TreeSlot>& slot);
    std::shared_ptr<TreeSlot> slot_of(const Uuid& uuid);
    Status drop(TreeSlot& slot, const std::string& name, bool force);
    void complain_once(const std::string& name, const Error& error);

    repo::Repository& repo_;
    ThreadPool& pool_;
    const bool own_;
    const Shared shared_;
    const Observer observer_;
    repo::LockKeeper* const locks_;
    std::atomic<bool> resumed_{false};
    std::mutex
        take_mutex_;    // one branch is opened at a time: held across Worktree::open, by nobody who holds another lock
    std::mutex mutex_;  // guards slots_ and complaints_
    std::map<Uuid, std::shared_ptr<TreeSlot>> slots_;
    std::map<std::string, std::string> complaints_;
    std::atomic<bool> down_{false};
};

}  // namespace coral::vfs
