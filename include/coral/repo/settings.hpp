// SPDX-License-Identifier: Apache-2.0
// coral.toml: options for people, read before a repository is open. Pure but for reading files; thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coral/base/os.hpp"

namespace coral::repo {

using Settings = std::vector<std::pair<std::string, std::string>>;  // dotted key, value; sorted

std::string repo_config_path(const std::string& dir);
std::string global_config_path();  // $XDG_CONFIG_HOME/coral/config.toml

// Missing file: nothing. kInvalid names file and line of what is no TOML.
Result<Settings> read_settings(Os& os, const std::string& path);
// The repository's over the user's.
Result<Settings> merged_settings(Os& os, const std::string& dir);
std::optional<std::string> find_setting(const Settings& settings, std::string_view key);

// `text` with `key` set to `value` (or gone). Comments and order stay where that is possible. `path` is for messages.
Result<std::string> edit_settings(const std::string& text, const std::string& key,
                                  const std::optional<std::string>& value, const std::string& path);

}  // namespace coral::repo
