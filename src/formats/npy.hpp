// SPDX-License-Identifier: Apache-2.0
// One array as numpy.save writes it, alone in a file or as a member of an .npz.
#pragma once

#include <optional>

#include "coral/formats/layout.hpp"

namespace coral::formats {

// The array, without a name, that starts at `begin` and takes at most `size` bytes, which must lie in the source. Less
// than there is, is legal: numpy.save appends to an open file.
Result<std::optional<Tensor>> read_npy(const ByteSource& source, std::uint64_t begin, std::uint64_t size);

}  // namespace coral::formats
