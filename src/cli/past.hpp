// SPDX-License-Identifier: Apache-2.0
// Points of time in the past, as people name them to git: "now", "never", "24h", "2.weeks.ago", "2026-03-01 12:00".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace coral::cli {

// ns since 1970; the smallest number for "never". Nothing when the text is no such thing. Dates are of the local zone.
std::optional<std::int64_t> parse_past(const std::string& text, std::int64_t now_ns);

}  // namespace coral::cli
