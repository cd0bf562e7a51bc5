// SPDX-License-Identifier: Apache-2.0
// How things look in a terminal: names, sizes, times. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coral::cli {

bool is_utf8(std::string_view text);
// Every byte that is not UTF-8 becomes U+FFFD.
std::string to_utf8(std::string_view text);

// As git quotes paths (core.quotePath off): as it is, or "a\tb\377" in quotes when a control character, a quote, a
// backslash or bytes that are not UTF-8 are in it. One name always is one line, and never talks to the terminal.
std::string quote_name(std::string_view name);
// The same for text with lines (messages): control characters but line ends and tabs become '?'.
std::string shown_text(std::string_view text);
std::string first_line(std::string_view text);

std::string size_text(std::uint64_t bytes);                          // "1.50 GiB"
std::string count_text(std::uint64_t count, std::string_view noun);  // "1 file", "3 files"
std::string duration_text(std::uint64_t seconds);                    // "1:02:03", "0:07"
// "2026-11-21 10:51:29 +0100" and "2026-11-21T10:51:29+01:00"
std::string time_text(std::int64_t time_ns, int zone_minutes);
std::string time_iso(std::int64_t time_ns, int zone_minutes);
std::string mode_text(char type, unsigned mode);   // "-rw-r--r--"
std::size_t display_width(std::string_view utf8);  // code points; wide characters count once

// Damerau-Levenshtein, for "did you mean".
std::size_t edit_distance(std::string_view a, std::string_view b);

// Columns padded to their widest cell; numbers to the right where `right` says so.
class Table {
  public:
    explicit Table(std::vector<bool> right) : right_(std::move(right)) {}
    void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
    std::string text(std::size_t indent = 0) const;

  private:
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace coral::cli
