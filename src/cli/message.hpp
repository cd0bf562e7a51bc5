// SPDX-License-Identifier: Apache-2.0
// A commit's message: from words, a file or an editor.
#pragma once

#include <string>
#include <string_view>

#include "coral/repo/repository.hpp"
#include "coral/repo/worktree.hpp"

namespace coral::cli {

// Blanks at line ends, empty lines around it and more than one between go; with `comments` lines that begin with '#'.
std::string clean_message(std::string_view text, bool comments);
Result<std::string> read_message(const std::string& file);  // "-": stdin
// kInvalid, naming -m, when there is no terminal to edit on.
Status editor_possible();
// What the user wrote, cleaned. kInvalid when the editor fails or nothing is left.
Result<std::string> edit_message(repo::Repository& repository, const repo::StatusResult& status);

}  // namespace coral::cli
