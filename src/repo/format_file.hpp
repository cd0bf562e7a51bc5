// SPDX-License-Identifier: Apache-2.0
// The file FORMAT: what makes a directory a repository, and what a program must know to open it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coral/base/os.hpp"

namespace coral::repo {

inline constexpr std::string_view kFormatName = "FORMAT";

struct FormatFile {
    Uuid repo;
    std::vector<std::string> need;  // features without which the repository cannot be read
    std::vector<std::string> may;   // features without which it can be read but not changed
};

std::string format_text(const FormatFile& format);
// `path` is for messages. kCorrupt, or kUnsupported for a version or feature of a newer CoralFS. Sets `read_only` when
// a `may` feature is unknown.
Result<FormatFile> parse_format(std::string_view text, const std::string& path, bool& read_only);

}  // namespace coral::repo
