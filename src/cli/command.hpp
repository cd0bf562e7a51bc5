// SPDX-License-Identifier: Apache-2.0
// A command: its words, its help and what it does. One file each under commands/; table.cpp lists them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.hpp"
#include "cli/context.hpp"

namespace coral::cli {

struct Command {
    const char* name;
    const char* group;    // heading in the overview
    const char* summary;  // one line
    const char* usage;    // one line a form, without "coral "
    const char* about;    // what it does, in lines of at most 90 columns
    const char* examples;
    std::vector<Option> options;
    std::size_t least = 0, most = 0;  // operands; kAny: no limit
    // Exit code; an error is printed: kNotFound gives 1, everything else 128.
    Result<int> (*run)(Context& context);
};
inline constexpr std::size_t kAny = static_cast<std::size_t>(-1);

inline constexpr Option kBranchOption{'b', "branch", "BRANCH", "the branch; else the one you stand in, else HEAD's"};
inline constexpr Option kJsonOption{0, "json", nullptr, "print JSON"};
inline constexpr Option kQuietOption{'q', "quiet", nullptr, "print nothing but errors"};

const std::vector<const Command*>& all_commands();
const Command* find_command(std::string_view name);
// The closest names, best first; none when nothing is near.
std::vector<std::string> similar_commands(std::string_view name);

std::string overview_text();
std::string help_text(const Command& command);
std::string exit_codes_text();

// One per command, in commands/NAME.cpp.
const Command& add_command();
const Command& branch_command();
const Command& cat_command();
const Command& checkout_command();
const Command& commit_command();
const Command& config_command();
const Command& export_command();
const Command& fsck_command();
const Command& gc_command();
const Command& repack_command();
const Command& help_command();
const Command& init_command();
const Command& log_command();
const Command& ls_command();
const Command& mount_command();
const Command& mount_info_command();
const Command& upgrade_mount_command();
const Command& reindex_command();
const Command& restore_command();
const Command& rev_parse_command();
const Command& show_command();
const Command& stats_command();
const Command& status_command();
const Command& tag_command();
const Command& umount_command();
const Command& version_command();
const Command& warm_command();

}  // namespace coral::cli
