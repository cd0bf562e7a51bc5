// SPDX-License-Identifier: Apache-2.0
#include "late_replies.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "coral/base/thread_pool.hpp"

namespace coral::fuse {
namespace {

// How often it is asked whether ingest has caught up, and whether a writer was interrupted: killed, he ends that late.
constexpr std::chrono::milliseconds kLook{50};

}  // namespace

bool LateReplies::written(fuse_req_t request, std::size_t size, Clock::time_point when) {
    if (when > Clock::now() && hold(request, size, when)) return true;
    return fuse_reply_write(request, size) == 0;
}

// False: it cannot be held back.
bool LateReplies::hold(fuse_req_t request, std::size_t size, Clock::time_point when) {
    std::lock_guard lock(mutex_);
    if (stopped_) return false;
    try {
        if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
        held_.emplace(when, Held{request, size});
    } catch (const std::exception&) {  // no thread, no memory: nobody must be left without an answer
        return false;
    }
    changed_.notify_one();
    return true;
}

void LateReplies::stop() {
    {
        std::lock_guard lock(mutex_);
        stopped_ = true;
        changed_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
}

LateReplies::Queue LateReplies::take_due(bool all) {
    std::lock_guard lock(mutex_);
    if (all || stopped_) return std::exchange(held_, {});
    Queue due;
    const auto now = Clock::now();
    for (auto at = held_.begin(); at != held_.end();) {
        auto next = std::next(at);
        if (at->first <= now || fuse_req_interrupted(at->second.request)) due.insert(held_.extract(at));
        at = next;
    }
    return due;
}

void LateReplies::run() {
    set_thread_name("late-replies");
    std::unique_lock lock(mutex_);
    while (!stopped_ || !held_.empty()) {
        if (held_.empty()) {
            changed_.wait(lock);
            continue;
        }
        if (!stopped_) changed_.wait_until(lock, std::min(held_.begin()->first, Clock::now() + kLook));
        lock.unlock();
        for (const auto& [when, held] : take_due(!behind_())) (void)fuse_reply_write(held.request, held.size);
        lock.lock();
    }
}

}  // namespace coral::fuse
