// SPDX-License-Identifier: Apache-2.0
// Tells the kernel what to forget. One thread with a queue: a notification may wait for a directory that a request
// holds, so it is never sent from inside a request nor with a lock held.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "coral/vfs/filesystem.hpp"
#include "fuse_api.hpp"

namespace coral::fuse {

class Invalidator final : public vfs::Notifier {
  public:
    Invalidator() = default;
    ~Invalidator() override;
    Invalidator(const Invalidator&) = delete;
    Invalidator& operator=(const Invalidator&) = delete;

    void start(fuse_session* session);
    // INIT was handled: what came before is sent now. libfuse refuses notifications until then. True: something did.
    bool open();
    // Never block.
    void entry_changed(vfs::NodeId parent, const std::string& name) override;
    void attributes_changed(vfs::NodeId node) override;
    void contents_changed(vfs::NodeId node, std::uint64_t offset, std::uint64_t length) override;

    // The fence: until everything queued before the call has reached the kernel. False when time is over.
    bool wait_drained(std::chrono::milliseconds timeout);
    // Forgets what is queued and takes nothing more: before the session ends.
    void disarm();
    // Ends the thread. False if it hangs in the kernel; then only _exit helps.
    bool stop(std::chrono::milliseconds timeout);

  private:
    struct Item {
        vfs::NodeId node;
        std::string name;  // empty: the node's attributes, and of its pages these:
        std::uint64_t offset = 0, length = 0;
        auto operator<=>(const Item&) const = default;
    };
    void push(Item item);
    void run();
    void send(const Item& item);

    std::mutex mutex_;  // guards all below; never held while sending
    std::condition_variable wake_, progress_;
    std::deque<Item> queue_;
    std::set<Item> queued_;  // each thing waits once
    std::uint64_t pushed_ = 0, sent_ = 0;
    bool armed_ = true, open_ = false, stop_ = false, finished_ = true;
    fuse_session* session_ = nullptr;
    std::thread thread_;
};

}  // namespace coral::fuse
