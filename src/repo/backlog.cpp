// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/backlog.hpp"

#include <algorithm>
#include <utility>

namespace coral::repo {
namespace {

// Besides what waits; less on a small disk.
constexpr std::uint64_t kSpare = 1u << 30, kSpareShare = 20;

}  // namespace

Backlog::Backlog(Os& os, std::string folder, std::uint64_t limit, unsigned waiters)
    : os_(os), folder_(std::move(folder)), limit_(limit), waiters_(std::max(waiters, 1u)) {}

void Backlog::add(std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_ += bytes;
}

void Backlog::remove(std::uint64_t bytes) {
    {
        std::lock_guard lock(mutex_);
        bytes_ -= std::min(bytes, bytes_);
    }
    less_.notify_all();
}

std::uint64_t Backlog::bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
}

bool Backlog::behind() const {
    const std::uint64_t waiting = bytes();
    if (waiting == 0) return false;
    if (waiting > limit_) return true;
    auto space = os_.space(folder_);
    if (!space) return false;
    const std::uint64_t left = space->blocks_available * space->block_size, all = space->blocks * space->block_size;
    return left < waiting + std::min(kSpare, all / kSpareShare);
}

void Backlog::wait(std::chrono::milliseconds most) {
    const auto until = std::chrono::steady_clock::now() + most;
    while (behind()) {
        std::unique_lock lock(mutex_);
        if (waiting_ >= waiters_) return;
        const std::uint64_t before = bytes_;
        ++waiting_;
        const bool less = less_.wait_until(lock, until, [&] { return bytes_ < before; });
        --waiting_;
        if (!less) return;
    }
}

}  // namespace coral::repo
