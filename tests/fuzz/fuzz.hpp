// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. Each is one function, LLVMFuzzerTestOneInput, in a file of its own: libFuzzer drives it,
// or replay_main.cpp where there is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "coral/base/bytes.hpp"

namespace coral::fuzz {

inline Bytes bytes_of(const std::uint8_t* data, std::size_t size) {
    return std::as_bytes(std::span(data, size));
}

// A promise that was broken: as loud as a crash, in every build.
inline void require(bool kept, const char* promise) {
    if (kept) return;
    std::fprintf(stderr, "broken: %s\n", promise);
    std::abort();
}

// The base segment that codec inputs refer to, byte by byte: little-endian FP32 of slowly changing size.
inline std::byte base_byte(std::uint64_t at) {
    const std::uint64_t element = at / 4;
    const std::uint32_t mixed = static_cast<std::uint32_t>(element * 2654435761u);
    switch (at % 4) {
        case 3:
            return static_cast<std::byte>((mixed >> 31 << 7) | 0x3c);
        case 2:
            return static_cast<std::byte>(0x80 | (mixed >> 24 & 0x3f));
        default:
            return static_cast<std::byte>(mixed >> (8 * (at % 4)));
    }
}

}  // namespace coral::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
