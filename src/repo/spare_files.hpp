// SPDX-License-Identifier: Apache-2.0
// Staging files that were emptied instead of removed, for the next files to be written. Where thousands of small files
// come, making and removing one for each costs more than all the rest: a disk's filesystem does not give numbers of
// files that went a moment ago out again, and looks at each of them before it finds another (ext4: for 60 seconds and
// more). Thread-safe; touches no file itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "coral/base/ids.hpp"

namespace coral::repo {

class SpareFiles {
  public:
    static constexpr std::int64_t kWindow = 30'000'000'000;  // as many are kept as were needed in the last two of these
    static constexpr std::size_t kLeast = 64, kMost = 8192;  // fewer are not worth it

    // One is needed. Nothing: make it.
    std::optional<Uuid> take(std::int64_t now_ns);
    bool wants(std::int64_t now_ns);
    void put(const Uuid& uuid);
    // What is not needed any more; the caller removes them.
    std::vector<Uuid> excess(std::int64_t now_ns);
    // All of them; from now on none is wanted.
    std::vector<Uuid> close();

  private:
    void turn(std::int64_t now_ns);
    std::size_t worth_keeping() const;

    std::mutex mutex_;  // guards the rest
    bool closed_ = false;
    std::int64_t window_ns_ = 0;  // when it began
    std::size_t needed_ = 0, needed_before_ = 0;
    std::vector<Uuid> spare_;
};

}  // namespace coral::repo
