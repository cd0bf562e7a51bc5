// SPDX-License-Identifier: Apache-2.0
// The layout of the memory that processes of one mount share. Another layout: another magic.
#pragma once

#include <atomic>
#include <cstdint>

#include "coral/vfs/handover.hpp"

namespace coral::vfs {

inline constexpr std::uint64_t kMagic = 0x32'72'65'76'6f'48'43ull;  // "CHover2"
// More than requests that change names at the same time; each thread of a session handles one.
inline constexpr int kSlots = 512;
inline constexpr std::uint32_t kLostAfter = 16;

struct Slot {
    std::atomic<std::uint64_t> unique{0};
    std::atomic<std::uint64_t> state[2];
    std::atomic<std::uint32_t> owner{0};  // number of the worker; 0: free
};

struct Handover::Header {
    std::uint64_t magic = kMagic;
    std::atomic<std::uint64_t> last_handle{0}, answers{0};
    std::atomic<std::uint32_t> workers{0}, passthrough{0}, outside_changes{0};
    std::atomic<bool> resends{false}, ready{false};
    std::atomic<std::uint32_t> log{1};    // which of the files
    std::atomic<bool> log_failed{false};  // memory was short: nobody can follow
    std::atomic<std::uint32_t> init_size{0};
    unsigned char init[512] = {};
    char socket_path[112] = {};  // the kernel takes 108
    char device[16] = {};        // zeros: by a supervisor that does not say
    Slot slots[kSlots];
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

}  // namespace coral::vfs
