// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace coral {

// Fixed number of threads, bounded queue. Thread-safe. The destructor runs what is queued, then joins.
class ThreadPool {
  public:
    // `name` shows in top and gdb. `queue_limit` 0: unbounded.
    ThreadPool(std::string name, std::size_t threads, std::size_t queue_limit = 0);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    void submit(std::function<void()> task);  // waits while the queue is full; tasks must not throw
    void wait_idle();                         // until nothing is queued or running
    std::size_t size() const { return threads_.size(); }

  private:
    void run();
    std::mutex mutex_;  // guards queue_, running_, stop_
    std::condition_variable wake_, space_, idle_;
    std::deque<std::function<void()>> queue_;
    std::vector<std::thread> threads_;
    std::string name_;
    std::size_t queue_limit_;
    std::size_t running_ = 0;
    bool stop_ = false;
};

// A set of tasks on a shared pool that one caller waits for, with at most `limit` in flight (bounds memory).
class TaskGroup {
  public:
    TaskGroup(ThreadPool& pool, std::size_t limit) : pool_(pool), limit_(limit) {}
    ~TaskGroup() { wait(); }
    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;

    void run(std::function<void()> task);  // waits while `limit` are in flight
    void wait();

  private:
    ThreadPool& pool_;
    std::size_t limit_;
    std::mutex mutex_;
    std::condition_variable done_;
    std::size_t in_flight_ = 0;
};

void set_thread_name(const std::string& name);
std::size_t hardware_threads();

}  // namespace coral
