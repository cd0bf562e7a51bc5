// SPDX-License-Identifier: Apache-2.0
// How writers are slowed down while ingest is behind: what they wrote was taken, and they are told later. So a writer
// waits, and none of the threads that serve everybody does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "fuse_api.hpp"

namespace coral::fuse {

class LateReplies {
  public:
    using Clock = std::chrono::steady_clock;
    // `behind`: whether ingest is; thread-safe.
    explicit LateReplies(std::function<bool()> behind) : behind_(std::move(behind)) {}
    ~LateReplies() { stop(); }
    LateReplies(const LateReplies&) = delete;
    LateReplies& operator=(const LateReplies&) = delete;

    // Answers that `size` bytes were written: at `when`, or before if ingest catches up, the writer is interrupted, or
    // stop() is called. In this call if `when` is past. False: the kernel did not take the answer.
    bool written(fuse_req_t request, std::size_t size, Clock::time_point when);
    // Answers all; those that come afterwards are not held back.
    void stop();

  private:
    struct Held {
        fuse_req_t request;
        std::size_t size;
    };
    using Queue = std::multimap<Clock::time_point, Held>;
    bool hold(fuse_req_t request, std::size_t size, Clock::time_point when);
    void run();
    Queue take_due(bool all);

    const std::function<bool()> behind_;
    std::mutex mutex_;  // guards the rest
    std::condition_variable changed_;
    Queue held_;
    bool stopped_ = false;
    std::thread thread_;  // since the first that was held back
};

}  // namespace coral::fuse
