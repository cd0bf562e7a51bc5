// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coral/base/os.hpp"

namespace coral::repo {

// A file that exists while `coral init` is at work. FORMAT is written last, so a directory with this marker and without
// FORMAT is a half-made repository that a later init may clear away; without the marker nothing is ever cleared: packs
// whose FORMAT got lost are not remains.
inline constexpr const char* kInitMarker = "init-in-progress";

// Removes a marker that a crash left in a repository that is whole.
void forget_init(Os& os, const std::string& dir);

}  // namespace coral::repo
