// SPDX-License-Identifier: Apache-2.0
// Looks for stored segments in a stretch of a file that nothing else is known about.
#pragma once

#include <vector>

#include "coral/formats/layout.hpp"
#include "coral/repo/ingest.hpp"
#include "repo/base_index.hpp"

namespace coral::repo {

// Bytes [begin, begin + length) of the file are probably bytes [offset, …) of a stored segment.
struct Found {
    std::uint64_t begin = 0, length = 0;
    SegmentId id;
    std::uint64_t offset = 0;
    codec::Hint hint;
};

// Of [begin, end), in order, apart from each other, each at least kSketchFrom and at most a segment long. `step`: 1, or
// the element width of a tensor, of which all found then lie at multiples. Reads in pieces of 1 MiB, and
// no holes.
Result<std::vector<Found>> find_stored(const formats::ByteSource& source, std::uint64_t begin, std::uint64_t end,
                                       std::size_t step, const BaseIndex& index);

// The same of what somebody knows already. Inline bytes and what is shorter than kSketchFrom are left out.
std::vector<Found> find_known(const std::vector<KnownRange>& known, std::uint64_t begin, std::uint64_t end);

}  // namespace coral::repo
