// SPDX-License-Identifier: Apache-2.0
// What was saved and waits for its ingest, of all worktrees that share it: whoever brings more is slowed down while
// there is too much of it. Thread-safe; nobody waits here: whoever is slowed down is told until when.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "coral/base/os.hpp"

namespace coral::repo {

class Backlog {
  public:
    using Clock = std::chrono::steady_clock;
    // Bytes a second that all writers together may bring while ingest is behind. Ingest stores many times as much on
    // any machine, so what waits gets less however many they are.
    static constexpr std::uint64_t kPace = 16u << 20;

    // `limit`: bytes. `folder`: on the disk whose room is asked for.
    Backlog(Os& os, std::string folder, std::uint64_t limit);

    // A file of so many bytes begins, and ends, to wait for its ingest.
    void add(std::uint64_t bytes);
    void remove(std::uint64_t bytes);

    // More than `limit` bytes wait; or some do, and their ingest may need what room there is left on the disk. Then it
    // helps to wait: ingest goes on, and frees more than it takes.
    bool behind() const;
    // So many bytes were brought: when their writer may bring more, as long as ingest is behind. In the past if it is
    // not. Those who bring some at the same time have their turns one after the other.
    Clock::time_point turn(std::uint64_t bytes);
    std::uint64_t bytes() const;

  private:
    Os& os_;
    const std::string folder_;
    const std::uint64_t limit_;
    mutable std::mutex mutex_;  // guards the rest
    std::uint64_t bytes_ = 0;
    Clock::time_point last_turn_;
};

}  // namespace coral::repo
