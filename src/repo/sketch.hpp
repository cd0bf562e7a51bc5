// SPDX-License-Identifier: Apache-2.0
// What a segment looks like, in at most 1 KiB: elements at fixed places. Two sketches tell what one segment would cost
// as differences from the other, without reading either. Pure and thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include "coral/base/bytes.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::repo {

struct Sketch {
    static constexpr std::size_t kHead = 16;
    codec::Hint hint;
    std::uint32_t length = 0;  // of the segment, in bytes
    // The highest 16 bits of elements from the segment's first 4 KiB, ordered as their values are: what a search
    // compares first.
    std::array<std::uint16_t, kHead> head{};
    Buffer samples;  // whole elements from all over the segment, little-endian

    bool operator==(const Sketch&) const = default;
};

// Segments below this size have no sketch: their row would cost as much as a base saves.
inline constexpr std::size_t kSketchFrom = 32u << 10;

// `raw` is at least kSketchFrom bytes.
Sketch sketch_of(Bytes raw, codec::Hint hint);

// How far two heads are apart: 0 equal … 16 × 16 unrelated.
unsigned head_distance(const std::array<std::uint16_t, Sketch::kHead>& a,
                       const std::array<std::uint16_t, Sketch::kHead>& b);

// Bits an element as the tensor coder would store it: alone, and as differences from `base`. Infinite where the two
// cannot be compared (another element type or length).
double solo_estimate(const Sketch& value);
double delta_estimate(const Sketch& value, const Sketch& base);

}  // namespace coral::repo
