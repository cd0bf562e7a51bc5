// SPDX-License-Identifier: Apache-2.0
#include "invalidator.hpp"

#include <cerrno>
#include <cstring>

#include "coral/base/log.hpp"
#include "coral/base/thread_pool.hpp"

namespace coral::fuse {

Invalidator::~Invalidator() {
    disarm();
    if (!stop(std::chrono::seconds(5))) thread_.detach();
}

void Invalidator::start(fuse_session* session) {
    {
        std::lock_guard lock(mutex_);
        session_ = session;
        finished_ = false;
    }
    thread_ = std::thread([this] { run(); });
}

bool Invalidator::open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    wake_.notify_one();
    return !queue_.empty();
}

void Invalidator::entry_changed(vfs::NodeId parent, const std::string& name) {
    push({parent, name, 0, 0});
}
void Invalidator::attributes_changed(vfs::NodeId node) {
    push({node, {}, 0, 0});
}

void Invalidator::contents_changed(vfs::NodeId node, std::uint64_t offset, std::uint64_t length) {
    if (length != 0) push({node, {}, offset, length});
}

void Invalidator::push(Item item) {
    std::lock_guard lock(mutex_);
    if (!armed_ || !queued_.insert(item).second) return;
    queue_.push_back(std::move(item));
    ++pushed_;
    wake_.notify_one();
}

void Invalidator::run() {
    set_thread_name("invalidator");
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stop_ || (open_ && !queue_.empty()); });
        if (stop_) break;
        Item item = std::move(queue_.front());
        queue_.pop_front();
        queued_.erase(item);  // before sending: a change from now on must be told again
        lock.unlock();
        send(item);
        lock.lock();
        ++sent_;
        progress_.notify_all();
    }
    finished_ = true;
    progress_.notify_all();
}

void Invalidator::send(const Item& item) {
    // A negative offset: attributes only. Dropping pages waits for reads that are under way, so only where pages
    // changed.
    const bool pages = item.length != 0;
    int rc = item.name.empty()
                 ? fuse_lowlevel_notify_inval_inode(session_, item.node, pages ? static_cast<off_t>(item.offset) : -1,
                                                    pages ? static_cast<off_t>(item.length) : 0)
                 : fuse_lowlevel_notify_inval_entry(session_, item.node, item.name.data(), item.name.size());
    // ENOENT: the kernel did not know it anyway. ENODEV, ENOTCONN: unmounted meanwhile.
    if (rc != 0 && rc != -ENOENT && rc != -ENODEV && rc != -ENOTCONN && rc != -ENOTDIR)
        log_warn("invalidation of node {} '{}': {}", item.node, item.name, std::strerror(-rc));
}

bool Invalidator::wait_drained(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    std::uint64_t target = pushed_;
    return progress_.wait_for(lock, timeout, [&] { return sent_ >= target || !armed_ || finished_; });
}

void Invalidator::disarm() {
    std::lock_guard lock(mutex_);
    armed_ = false;
    sent_ += queue_.size();
    queue_.clear();
    queued_.clear();
    progress_.notify_all();
}

bool Invalidator::stop(std::chrono::milliseconds timeout) {
    if (!thread_.joinable()) return true;
    {
        std::unique_lock lock(mutex_);
        stop_ = true;
        wake_.notify_all();
        if (!progress_.wait_for(lock, timeout, [this] { return finished_; })) return false;
    }
    thread_.join();
    return true;
}

}  // namespace coral::fuse
