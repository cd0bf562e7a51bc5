// SPDX-License-Identifier: Apache-2.0
#include "coral/base/thread_pool.hpp"

#include <pthread.h>

#include <algorithm>

namespace coral {

void set_thread_name(const std::string& name) {
    ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
}

std::size_t hardware_threads() {
    return std::max(1u, std::thread::hardware_concurrency());
}

ThreadPool::ThreadPool(std::string name, std::size_t threads, std::size_t queue_limit)
    : name_(std::move(name)), queue_limit_(queue_limit) {
    threads_.reserve(threads);
    try {
        for (std::size_t i = 0; i < std::max<std::size_t>(threads, 1); ++i) threads_.emplace_back([this] { run(); });
    } catch (...) {
        // One was refused; those that nobody joins would end the process, whatever the caller does about it.
        {
            std::lock_guard lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) thread.join();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::submit(std::function<void()> task) {
    std::unique_lock lock(mutex_);
    space_.wait(lock, [this] { return queue_limit_ == 0 || queue_.size() < queue_limit_; });
    queue_.push_back(std::move(task));
    lock.unlock();
    wake_.notify_one();
}

void ThreadPool::wait_idle() {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return queue_.empty() && running_ == 0; });
}

void ThreadPool::run() {
    set_thread_name(name_);
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        std::function<void()> task = std::move(queue_.front());
        queue_.pop_front();
        ++running_;
        lock.unlock();
        space_.notify_one();
        task();
        task = nullptr;  // what it captured is freed outside the lock
        lock.lock();
        --running_;
        if (queue_.empty() && running_ == 0) idle_.notify_all();
    }
}

void TaskGroup::run(std::function<void()> task) {
    {
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return in_flight_ < limit_; });
        ++in_flight_;
    }
    pool_.submit([this, task = std::move(task)]() mutable {
        task();
        task = nullptr;
        std::lock_guard lock(mutex_);  // notify under the lock: wait() may destroy the group right after
        --in_flight_;
        done_.notify_all();
    });
}

void TaskGroup::wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return in_flight_ == 0; });
}

}  // namespace coral
