// SPDX-License-Identifier: Apache-2.0
// The list of commands, and their help made from it.
#include <fmt/format.h>

#include <algorithm>

#include "cli/command.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

std::string option_words(const Option& option) {
    std::string words =
        option.letter ? fmt::format("-{}, --{}", option.letter, option.name) : fmt::format("    --{}", option.name);
    if (!option.value) return words;
    bool maybe = option.value[0] == '[';
    std::string value = option.value;
    return words + (maybe ? "[=" + value.substr(1) : "=" + value);
}

void append_indented(std::string& out, std::string_view text) {
    while (!text.empty()) {
        std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        out += line.empty() ? "\n" : fmt::format("    {}\n", line);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

}  // namespace

const std::vector<const Command*>& all_commands() {
    static const std::vector<const Command*> commands = {
        &init_command(),          &mount_command(),   &mount_info_command(), &umount_command(),  &warm_command(),
        &upgrade_mount_command(), &add_command(),     &status_command(),     &commit_command(),  &restore_command(),
        &log_command(),           &show_command(),    &ls_command(),         &cat_command(),     &export_command(),
        &rev_parse_command(),     &branch_command(),  &checkout_command(),   &tag_command(),     &stats_command(),
        &fsck_command(),          &gc_command(),      &repack_command(),     &reindex_command(), &config_command(),
        &help_command(),          &version_command(),
    };
    return commands;
}

const Command* find_command(std::string_view name) {
    for (const Command* command : all_commands()) {
        if (name == command->name) return command;
    }
    return nullptr;
}

std::vector<std::string> similar_commands(std::string_view name) {
    std::vector<std::pair<std::size_t, std::string>> near;
    for (const Command* command : all_commands()) {
        std::string_view candidate = command->name;
        std::size_t distance = edit_distance(name, candidate);
        bool begins = name.size() >= 2 && candidate.starts_with(name);
        if (begins || distance <= std::max<std::size_t>(1, candidate.size() / 3))
            near.emplace_back(begins ? 0 : distance, candidate);
    }
    std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<std::string> out;
    for (const auto& [distance, candidate] : near) {
        if (out.size() < 3) out.push_back(candidate);
    }
    return out;
}

std::string overview_text() {
    std::string out =
        "coral: neural-network checkpoints in a filesystem with history\n\n"
        "usage: coral [-C DIR] [--color=WHEN] COMMAND [ARGUMENT…]\n";
    std::string_view group;
    for (const Command* command : all_commands()) {
        if (group != command->group) out += fmt::format("\n{}\n", group = command->group);
        out += fmt::format("    {:<10} {}\n", command->name, command->summary);
    }
    out += "\n`coral help COMMAND` tells more of one; `coral help exit-codes` what the numbers mean.\n";
    return out;
}

std::string help_text(const Command& command) {
    std::string out = fmt::format("coral {}: {}\n\n", command.name, command.summary);
    std::string_view usage = command.usage;
    for (const char* word = "usage:"; !usage.empty(); word = "   or:") {
        std::size_t end = std::min(usage.find('\n'), usage.size());
        out += fmt::format("{} coral {}\n", word, usage.substr(0, end));
        usage.remove_prefix(std::min(end + 1, usage.size()));
    }
    out += fmt::format("\n{}\n", command.about);
    if (!command.options.empty()) {
        Table table({});
        for (const Option& option : command.options) table.row({option_words(option), option.help});
        out += "\nOptions:\n" + table.text(4);
    }
    if (*command.examples) {
        out += "\nExamples:\n";
        append_indented(out, command.examples);
    }
    return out;
}

std::string exit_codes_text() {
    return "Exit codes of coral, as git's:\n"
           "    0    done\n"
           "    1    the answer is no: nothing to commit, not found, fsck found problems\n"
           "    128  could not be done; stderr names the file, the cause and the fix\n"
           "    129  wrong usage\n"
           "    128+n  ended by signal n (130: Ctrl-C, 141: nobody reads the output any more)\n";
}

}  // namespace coral::cli
