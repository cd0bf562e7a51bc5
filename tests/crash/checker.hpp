// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "crash/facts.hpp"
#include "support/power_cut.hpp"

namespace coral::test {

// Opens what a cut after `position` operations left in `dir` and compares everything with the facts. Returns what is
// wrong. Changes the repository: it also checks that it can still be used.
std::vector<std::string> check_repository(const std::string& dir, const Facts& facts, std::size_t position, Cut cut);

}  // namespace coral::test
