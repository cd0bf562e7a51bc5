// SPDX-License-Identifier: Apache-2.0
// The command table of the daemon's side.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "control/wire.hpp"

namespace coral::control {

// What a running command tells the thread that keeps the client informed. Thread-safe.
class Activity {
  public:
    // `ending`: outlives the command; true once nothing shall be waited for that may take for ever.
    explicit Activity(const std::atomic<bool>& ending) : ending_(ending) {}
    void client_has_gone() { gone_ = true; }
    // Waiting: what is under way is carried through.
    bool in_vain() const { return ending_ || gone_; }
    void watch(std::shared_ptr<repo::Worktree> worktree) {
        std::lock_guard lock(mutex_);
        worktree_ = std::move(worktree);
    }
    // Files that ingest has finished since the command began, and all of them.
    std::pair<std::uint64_t, std::uint64_t> progress() {
        std::lock_guard lock(mutex_);
        std::uint64_t pending = worktree_ ? worktree_->pending() : 0;
        total_ = std::max(total_, pending);
        return {total_ - pending, total_};
    }

  private:
    const std::atomic<bool>& ending_;
    std::atomic<bool> gone_{false};
    std::mutex mutex_;
    std::shared_ptr<repo::Worktree> worktree_;
    std::uint64_t total_ = 0;
};

struct Answer {
    std::vector<std::string> parts;  // whole lines that go before the answer
    Json result = Json::object();
};

inline constexpr const char* kStopCommand = "stop";

// Carries out one request. kUnsupported for a command that is not in the table.
Result<Answer> execute(Service& service, const Json& request, Activity& activity);

}  // namespace coral::control
