// SPDX-License-Identifier: Apache-2.0
// What was saved and waits for its ingest, of all worktrees that share it: whoever brings more is slowed down while
// there is too much of it. Thread-safe; nobody waits for longer than he said.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

#include "coral/base/os.hpp"

namespace coral::repo {

class Backlog {
  public:
    // `limit`: bytes. `folder`: on the disk whose room is asked for. At most `waiters` wait at a time: the threads that
    // bring bytes also serve those who read.
    Backlog(Os& os, std::string folder, std::uint64_t limit, unsigned waiters);

    // A file of so many bytes begins, and ends, to wait for its ingest.
    void add(std::uint64_t bytes);
    void remove(std::uint64_t bytes);

    // More than `limit` bytes wait; or some do, and their ingest may need what room there is left on the disk. Then it
    // helps to wait: ingest goes on, and frees more than it takes.
    bool behind() const;
    // Until that is over, at most for `most`.
    void wait(std::chrono::milliseconds most);
    std::uint64_t bytes() const;

  private:
    Os& os_;
    const std::string folder_;
    const std::uint64_t limit_;
    const unsigned waiters_;
    mutable std::mutex mutex_;  // guards the rest
    std::condition_variable less_;
    std::uint64_t bytes_ = 0;
    unsigned waiting_ = 0;
};

}  // namespace coral::repo
