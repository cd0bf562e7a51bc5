// SPDX-License-Identifier: Apache-2.0
#include "repo/format_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "coral/base/bytes.hpp"
#include "coral/base/hash.hpp"

namespace coral::repo {
namespace {

// Features by name (docs/format.md, "Features"). Format 1 as such needs none.
constexpr std::array<std::string_view, 0> kKnownNeeds{};
constexpr std::array<std::string_view, 0> kKnownMays{};

Error damaged(const std::string& path, std::string_view why) {
    return make_error(
        Errc::kCorrupt,
        fmt::format("{}: {}; put the file back from a backup (it is a few lines of text; the repository's id in "
                    "it is also in the header of every file in packs/)",
                    path, why));
}

Error too_new(const std::string& path, std::string_view what) {
    return make_error(Errc::kUnsupported,
                      fmt::format("{}: {}, which this version of CoralFS does not know; install a newer "
                                  "one to open this repository",
                                  path, what));
}

std::string sum_of(std::string_view lines) {
    return fmt::format("{:016x}", xxh3_64(as_bytes(lines)));
}

// The line at the front without its LF; nothing when there is no whole line.
bool take_line(std::string_view& text, std::string_view& line) {
    std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return false;
    line = text.substr(0, end);
    text.remove_prefix(end + 1);
    return true;
}

}  // namespace

std::string format_text(const FormatFile& format) {
    std::string text = fmt::format("coral 1\nrepo {}\n", format.repo.text());
    for (const std::string& feature : format.need) text += fmt::format("need {}\n", feature);
    for (const std::string& feature : format.may) text += fmt::format("may {}\n", feature);
    return text + fmt::format("sum {}\n", sum_of(text));
}

Result<FormatFile> parse_format(std::string_view text, const std::string& path, bool& read_only) {
    std::string_view rest = text, line;
    if (!take_line(rest, line) || !line.starts_with("coral ")) return damaged(path, "is not a CoralFS FORMAT file");
    // The version before the sum: a later version may sum differently.
    if (line != "coral 1") return too_new(path, fmt::format("says '{}'", line.substr(0, 40)));

    std::size_t sum_at = text.rfind("\nsum ");
    if (sum_at == std::string_view::npos) return damaged(path, "has no sum line (cut short?)");
    std::string_view summed = text.substr(0, sum_at + 1);
    if (text.substr(sum_at + 1) != fmt::format("sum {}\n", sum_of(summed))) {
        return damaged(path, "does not match its checksum (edited or damaged)");
    }

    FormatFile format;
    rest = summed.substr(text.size() - rest.size());
    if (!take_line(rest, line) || !line.starts_with("repo ")) return damaged(path, "has no repo line");
    auto repo = Uuid::parse(line.substr(5));
    if (!repo) return damaged(path, "has a bad repo line");
    format.repo = *repo;
    while (take_line(rest, line)) {
        if (line.starts_with("need ")) {
            format.need.emplace_back(line.substr(5));
            if (std::find(kKnownNeeds.begin(), kKnownNeeds.end(), line.substr(5)) == kKnownNeeds.end()) {
                return too_new(path, fmt::format("needs the feature '{}'", line.substr(5, 80)));
            }
        } else if (line.starts_with("may ")) {
            format.may.emplace_back(line.substr(4));
            if (std::find(kKnownMays.begin(), kKnownMays.end(), line.substr(4)) == kKnownMays.end()) read_only = true;
        } else {
            return too_new(path, fmt::format("has the line '{}'", line.substr(0, 80)));
        }
    }
    return format;
}

}  // namespace coral::repo
