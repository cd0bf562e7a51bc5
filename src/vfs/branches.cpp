// SPDX-License-Identifier: Apache-2.0
#include "vfs/branches.hpp"

#include <fmt/format.h>

#include <chrono>
#include <set>
#include <thread>

#include "coral/base/log.hpp"

namespace coral::vfs {
namespace {

// How long a branch that is asked back waits for calls that are under way.
constexpr std::int64_t kReleaseWaitNs = 5'000'000'000;
// How long a branch that was asked back stays free if nothing comes of it.
constexpr std::int64_t kLeaveNs = 10'000'000'000;

}  // namespace

Branches::Branches(repo::Repository& repo, ThreadPool& pool, bool own, Shared shared, Observer observer,
                   repo::LockKeeper* locks)
    : repo_(repo), pool_(pool), own_(own), shared_(std::move(shared)), observer_(std::move(observer)), locks_(locks) {}

std::vector<WorktreePtr> Branches::all_owned() {
    std::vector<WorktreePtr> all;
    std::lock_guard lock(mutex_);
    for (const auto& [uuid, slot] : slots_) {
        if (auto worktree = slot->view().worktree) all.push_back(std::move(worktree));
    }
    return all;
}

std::shared_ptr<TreeSlot> Branches::slot_with(repo::Ino ino) {
    std::vector<std::shared_ptr<TreeSlot>> slots;
    {
        std::lock_guard lock(mutex_);
        for (const auto& [uuid, slot] : slots_) slots.push_back(slot);
    }
    for (const auto& slot : slots) {
        WorktreePtr worktree = slot->view().worktree;
        if (!worktree) continue;
        auto has = worktree->has(ino);
        if (has && *has) return slot;
    }
    return nullptr;
}

void Branches::resumed() {
    resumed_ = true;
    for (const WorktreePtr& worktree : all_owned()) {
        if (Status done = worktree->resumed(); !done)
            log_error("branch {}: {}", worktree->branch(), done.error().message);
    }
}

std::shared_ptr<TreeSlot> Branches::slot_of(const Uuid& uuid) {
    std::lock_guard lock(mutex_);
    std::shared_ptr<TreeSlot>& slot = slots_[uuid];
    if (!slot) slot = std::make_shared<TreeSlot>(uuid);
    return slot;
}

void Branches::complain_once(const std::string& name, const Error& error) {
    {
        std::lock_guard lock(mutex_);
        std::string& last = complaints_[name];
        if (last == error.message) return;
        last = error.message;
    }
    log_warn("branch {} is shown read-only: {}", name, error.message);
}

WorktreePtr Branches::owned(const repo::Branch& row, const std::shared_ptr<TreeSlot>& slot) {
    if (!own_ || down_) return nullptr;
    // Under its new name a renamed branch is opened anew: a worktree commits to the branch that it was opened for.
    if (auto view = slot->view(); view.worktree && view.worktree->branch() == row.name) return view.worktree;
    std::lock_guard take(take_mutex_);
    if (auto view = slot->view(); view.worktree) {
        if (view.worktree->branch() == row.name) return view.worktree;
        view.worktree.reset();
        if (!drop(*slot, row.name, false)) return nullptr;
    }
    {
        std::lock_guard lock(slot->mutex_);
        if (down_ || monotonic_ns() < slot->leave_until_ns_) return nullptr;
    }
    auto opened = repo::Worktree::open(repo_, row.name, pool_, locks_);
    if (!opened) {
        complain_once(row.name, opened.error());
        return nullptr;
    }
    (*opened)->observe(observer_);
    (*opened)->keep_hot(shared_.hot);
    (*opened)->count_in(shared_.backlog);
    if (resumed_) {
        if (Status done = (*opened)->resumed(); !done) log_error("branch {}: {}", row.name, done.error().message);
    }
    {
        std::lock_guard lock(mutex_);
        complaints_.erase(row.name);
    }
    std::lock_guard lock(slot->mutex_);
    slot->worktree_ = *opened;
    ++slot->generation_;
    return *opened;
}

Result<Branches::Branch> Branches::get(const std::string& name) {
    CORAL_TRY(repo::Branch row, repo_.branch(name));
    Branch found{std::move(row), nullptr, nullptr};
    found.slot = slot_of(found.row.worktree);
    found.worktree = owned(found.row, found.slot);
    return found;
}

// Takes the worktree out of its slot and waits until nobody uses it; puts it back otherwise.
Status Branches::drop(TreeSlot& slot, const std::string& name, bool force) {
    std::weak_ptr<repo::Worktree> watched;
    {
        std::lock_guard lock(slot.mutex_);
        if (!slot.worktree_) return {};
        if (slot.open_handles_ > 0 && !force) {
            return make_error(Errc::kBusy, fmt::format("branch {}: files are open in it", name));
        }
        watched = slot.worktree_;
    }
    WorktreePtr out;
    {
        std::lock_guard lock(slot.mutex_);
        out.swap(slot.worktree_);
        ++slot.generation_;
    }
    out.reset();  // ours; its destructor gives the lock back once the last call has left
    for (std::int64_t start = monotonic_ns(); !watched.expired();) {
        if (monotonic_ns() - start > kReleaseWaitNs) {
            std::lock_guard lock(slot.mutex_);
            slot.worktree_ = watched.lock();
            ++slot.generation_;
            if (!slot.worktree_) return {};
            return make_error(Errc::kBusy, fmt::format("branch {}: a call is still at work in it", name));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return {};
}

Status Branches::release(const std::string& name) {
    CORAL_TRY(repo::Branch row, repo_.branch(name));
    std::lock_guard take(take_mutex_);
    auto slot = slot_of(row.worktree);
    CORAL_CHECK(drop(*slot, name, false));
    std::lock_guard lock(slot->mutex_);
    slot->leave_until_ns_ = monotonic_ns() + kLeaveNs;
    return {};
}

Status Branches::refresh() {
    CORAL_TRY(std::vector<repo::Branch> rows, repo_.branches());
    std::set<Uuid> there;
    for (const repo::Branch& row : rows) {
        there.insert(row.worktree);
        auto slot = slot_of(row.worktree);
        {
            std::lock_guard lock(slot->mutex_);
            slot->leave_until_ns_ = 0;
        }
        owned(row, slot);
    }
    std::vector<std::shared_ptr<TreeSlot>> gone;
    {
        std::lock_guard lock(mutex_);
        for (auto at = slots_.begin(); at != slots_.end();) {
            if (there.count(at->first) == 0) {
                gone.push_back(at->second);
                at = slots_.erase(at);
            } else {
                ++at;
            }
        }
    }
    std::lock_guard take(take_mutex_);
    for (const auto& slot : gone) {
        // Its rows are gone: whoever has files open there can do nothing with them any more.
        if (auto dropped = drop(*slot, slot->uuid.text(), true); !dropped) log_warn("{}", dropped.error().message);
    }
    return {};
}

Status Branches::release_all() {
    down_ = true;
    std::vector<std::shared_ptr<TreeSlot>> slots;
    {
        std::lock_guard lock(mutex_);
        for (const auto& [uuid, slot] : slots_) slots.push_back(slot);
    }
    Status first;
    auto note = [&first](Status status) {
        if (status) return;
        log_error("unmount: {}", status.error().message);
        if (first) first = std::move(status);
    };
    std::lock_guard take(take_mutex_);
    for (const auto& slot : slots) {
        WorktreePtr worktree = slot->view().worktree;
        if (!worktree) continue;
        std::string name = worktree->branch();
        note(worktree->wait_ingested());
        note(worktree->sync_names());
        worktree->observe({});
        worktree.reset();
        note(drop(*slot, name, true));
    }
    return first;
}

}  // namespace coral::vfs
