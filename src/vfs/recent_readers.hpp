// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "coral/base/os.hpp"

namespace coral::vfs {

// Threads that have just opened a file of this mount for reading: one that then makes a file is most likely copying,
// and asks for copy_file_range(2) next. That is a metadata operation unless the new file is in passthrough, so it is
// not put there. A guess that costs only speed; forgotten after two seconds. Lock-free.
class RecentReaders {
  public:
    // 0: of a process that this one's namespace does not show.
    void note(std::uint32_t thread) { slot(thread).store(pack(thread, monotonic_ns())); }
    bool contains(std::uint32_t thread) const {
        std::uint64_t packed = slots_[thread % kSlots].load();
        std::uint64_t now = pack(thread, monotonic_ns());
        return thread != 0 && (packed >> 32) == thread && static_cast<std::uint32_t>(now - packed) <= kTicks;
    }

  private:
    static constexpr std::size_t kSlots = 256;
    static constexpr std::uint32_t kTicks = 2000;  // milliseconds
    static std::uint64_t pack(std::uint32_t thread, std::int64_t now) {
        return std::uint64_t{thread} << 32 | static_cast<std::uint32_t>(now / 1'000'000);
    }
    std::atomic<std::uint64_t>& slot(std::uint32_t thread) { return slots_[thread % kSlots]; }
    std::array<std::atomic<std::uint64_t>, kSlots> slots_{};
};

}  // namespace coral::vfs
