// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace coral::vfs {

// One thread that makes plain copies, one after the other: they compete with readers for the processor and with ingest
// for the disk, so never more than one at a time. What does not fit into the queue is not made; its next reader asks
// again.
class Warmer {
  public:
    Warmer();
    ~Warmer();  // stops the one that is being made, drops the rest
    Warmer(const Warmer&) = delete;
    Warmer& operator=(const Warmer&) = delete;

    bool submit(std::function<void()> task);
    const std::atomic<bool>& stopping() const { return stop_; }
    void stop();

  private:
    static constexpr std::size_t kMost = 64;
    void run();
    std::atomic<bool> stop_{false};
    std::mutex mutex_;  // guards queue_
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    std::thread thread_;
};

}  // namespace coral::vfs
