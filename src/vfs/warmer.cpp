// SPDX-License-Identifier: Apache-2.0
// Plain copies: when one is worth making, and making it.
#include "vfs/warmer.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include "coral/base/log.hpp"
#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

constexpr std::uint64_t kLeast = 4u << 20;  // smaller files stay in the page cache, or are decoded in a moment

}  // namespace

Warmer::Warmer() : thread_([this] { run(); }) {}

Warmer::~Warmer() {
    stop();
}

void Warmer::stop() {
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
        queue_.clear();
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

bool Warmer::submit(std::function<void()> task) {
    {
        std::lock_guard lock(mutex_);
        if (stop_ || queue_.size() >= kMost) return false;
        queue_.push_back(std::move(task));
    }
    wake_.notify_one();
    return true;
}

void Warmer::run() {
    set_thread_name("coral-warm");
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (stop_) return;
        auto task = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        try {
            task();
        } catch (const std::exception& e) {
            log_error("plain copy: {}", e.what());
        }
        lock.lock();
    }
}

// Opened for reading, through us. A second reader of the greater part of a file will hardly be the last.
void MountedFilesystem::consider_plain(const NodePtr& node, std::uint64_t size) {
    if (!backing_files_ || options_.materialize == Options::Materialize::kNever || size < kLeast) return;
    if (options_.materialize == Options::Materialize::kAuto && node->served < size / 2) return;
    {
        std::lock_guard lock(node->mutex);
        if (node->warming) return;
        node->warming = true;
    }
    nodes_.pin(node);
    bool taken = warmer_.submit([this, node] {
        auto made = warm_node(node);
        if (!made) log_debug("no plain copy: {}", made.error().message);
        node->served = 0;  // if it was in vain: not before it has been read again
        {
            std::lock_guard lock(node->mutex);
            node->warming = false;
        }
        nodes_.unpin(node);
    });
    if (taken) return;
    {
        std::lock_guard lock(node->mutex);
        node->warming = false;
    }
    nodes_.unpin(node);
}

Result<bool> MountedFilesystem::warm_node(const NodePtr& node) {
    if (node->kind == NodeKind::kTreeFile) {
        CORAL_TRY(auto record, record_of(node));
        auto pinned = repo_.pin(record->id);
        CORAL_CHECK(plain_.make(record, warmer_.stopping()));
        return true;
    }
    CORAL_TRY(BranchRef ref, branch_ref(node));
    if (!ref.worktree->stored_content(ref.inode)) return true;  // its staging file is plain
    if (!ref.node->slot->enter(ref.worktree)) return make_error(Errc::kStale, "the branch has just been given away");
    auto made = ref.worktree->make_plain(ref.inode, warmer_.stopping());
    ref.node->slot->leave();
    return made;
}

Result<bool> MountedFilesystem::warm(NodeId id) {
    CORAL_TRY(NodePtr node, node_of(id));
    if (!backing_files_)
        return make_error(Errc::kUnsupported, "the kernel does not read files by itself here (see coral mount-info)");
    if (node->kind != NodeKind::kTreeFile && node->kind != NodeKind::kBranchEntry)
        return make_error(Errc::kIsDirectory, "not a file");
    return warm_node(node);
}

}  // namespace coral::vfs
