// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/backlog.hpp"

#include <algorithm>
#include <utility>

namespace coral::repo {
namespace {

// Besides what waits; less on a small disk.
constexpr std::uint64_t kSpare = 1u << 30, kSpareShare = 20;

}  // namespace

Backlog::Backlog(Os& os, std::string folder, std::uint64_t limit)
    : os_(os), folder_(std::move(folder)), limit_(limit) {}

void Backlog::add(std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_ += bytes;
}

void Backlog::remove(std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_ -= std::min(bytes, bytes_);
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

Backlog::Clock::time_point Backlog::turn(std::uint64_t bytes) {
    const bool waits = behind();
    const auto takes = std::chrono::duration<double>(static_cast<double>(bytes) / static_cast<double>(kPace));
    std::lock_guard lock(mutex_);
    // Whoever had a later turn goes on now: nobody is to wait for them the next time.
    if (!waits) return last_turn_ = {};
    last_turn_ = std::max(last_turn_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(takes);
    return last_turn_;
}

}  // namespace coral::repo
