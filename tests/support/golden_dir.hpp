// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coral/base/os.hpp"

namespace coral::test {

// tests/golden: bytes that every later version must read. Tests write there only under CORAL_WRITE_GOLDEN=1.
inline std::string golden_dir() {
    return path_join(path_parent(path_parent(__FILE__)), "golden");
}

}  // namespace coral::test
