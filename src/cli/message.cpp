// SPDX-License-Identifier: Apache-2.0
#include "cli/message.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "cli/changes.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/bytes.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

constexpr std::size_t kMessageLimit = 16u << 20;
constexpr std::size_t kShownChanges = 200;

std::string editor() {
    for (const char* name : {"CORAL_EDITOR", "VISUAL", "EDITOR"}) {
        if (std::string value = environment(name); !value.empty()) return value;
    }
    for (const char* name : {"editor", "vi", "nano"}) {
        if (std::string path = find_program(name); !path.empty()) return path;
    }
    return {};
}

std::string template_text(const repo::StatusResult& status) {
    std::string out = fmt::format(
        "\n# Write the message of this commit. Lines that begin with '#' are left out; an empty message\n"
        "# commits nothing.\n#\n# On branch {}{}\n# Changes:\n",
        to_utf8(status.branch), status.commit ? "" : " (first commit)");
    for (std::size_t i = 0; i < status.changes.size() && i < kShownChanges; ++i) {
        const repo::Change& change = status.changes[i];
        out += fmt::format("#     {} {}{}\n", repo::change_letter(change.kind), quote_name(change.path),
                           change.incomplete ? " (incomplete)" : "");
    }
    if (status.changes.size() > kShownChanges)
        out += fmt::format("#     … {} more\n", status.changes.size() - kShownChanges);
    return out + fmt::format("#\n# {}\n", counts_text(count_changes(status.changes)));
}

// The editor is a line for the shell ("code --wait"), the file its argument: any name is safe.
Status run_editor(const std::string& path) {
    std::string command = editor();
    if (command.empty()) return make_error(Errc::kInvalid, "no editor found; set EDITOR, or give the message with -m");
    CORAL_TRY(int code, run_program("/bin/sh", {"-c", command + " \"$@\"", command, path}));
    if (code == 0) return {};
    return make_error(Errc::kInvalid,
                      fmt::format("the editor '{}' failed (exit code {}); nothing was committed", command, code));
}

}  // namespace

std::string clean_message(std::string_view text, bool comments) {
    std::string out;
    std::size_t empty = 0;
    while (!text.empty()) {
        std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (comments && line.starts_with('#')) continue;
        line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
        if (line.empty()) {
            ++empty;
            continue;
        }
        if (!out.empty()) out += empty ? "\n\n" : "\n";
        out += line;
        empty = 0;
    }
    return out;
}

Result<std::string> read_message(const std::string& file) {
    if (file != "-") return read_file(real_os(), file, kMessageLimit);
    std::string text;
    char buffer[65536];
    for (std::size_t got; (got = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
        text.append(buffer, got);
        if (text.size() > kMessageLimit)
            return make_error(Errc::kTooLarge, "the message on stdin is larger than 16 MiB");
    }
    return text;
}

Status editor_possible() {
    if (is_terminal(Stream::kIn) && is_terminal(Stream::kOut)) return {};
    return make_error(Errc::kInvalid,
                      "no message, and no terminal for an editor; give the message with -m MESSAGE or -F FILE");
}

Result<std::string> edit_message(repo::Repository& repository, const repo::StatusResult& status) {
    std::string path = path_join(repository.dir(), fmt::format("run/COMMIT_EDITMSG-{}", Uuid::random().text()));
    auto write = [&]() -> Status {
        CORAL_TRY(auto file, real_os().open(path, OpenMode::kCreateNew));
        return file->write_at(0, as_bytes(template_text(status)));
    };
    CORAL_CHECK(write());
    auto edit = [&]() -> Result<std::string> {
        CORAL_CHECK(run_editor(path));
        return read_file(real_os(), path, kMessageLimit);
    };
    auto text = edit();
    (void)real_os().remove(path);
    CORAL_CHECK(text);
    std::string message = clean_message(*text, true);
    if (message.empty()) return make_error(Errc::kInvalid, "the message is empty; nothing was committed");
    return message;
}

}  // namespace coral::cli
