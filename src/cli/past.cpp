// SPDX-License-Identifier: Apache-2.0
#include "cli/past.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <limits>

#include "coral/repo/repository.hpp"

namespace coral::cli {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

// "2.weeks.ago", "3 days ago", "1 hour"
std::optional<std::int64_t> parse_words(std::string text) {
    std::replace(text.begin(), text.end(), '.', ' ');
    if (text.ends_with(" ago")) text.resize(text.size() - 4);
    std::size_t space = text.find(' ');
    if (space == std::string::npos) return std::nullopt;
    std::string number = text.substr(0, space), unit = text.substr(space + 1);
    if (unit.ends_with("s")) unit.pop_back();
    const char* letter = unit == "second"   ? "s"
                         : unit == "minute" ? "m"
                         : unit == "hour"   ? "h"
                         : unit == "day"    ? "d"
                         : unit == "week"   ? "w"
                                            : nullptr;
    return letter ? repo::parse_duration(number + letter) : std::nullopt;
}

std::optional<std::int64_t> parse_date(const std::string& text) {
    for (const char* format :
         {"%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"}) {
        std::tm local{};
        const char* end = ::strptime(text.c_str(), format, &local);
        if (!end || *end != '\0') continue;
        local.tm_isdst = -1;
        std::time_t seconds = std::mktime(&local);
        if (seconds == -1) return std::nullopt;
        return static_cast<std::int64_t>(seconds) * kSecond;
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::int64_t> parse_past(const std::string& text, std::int64_t now_ns) {
    if (text == "now" || text == "all") return now_ns;
    if (text == "never") return std::numeric_limits<std::int64_t>::min();
    auto age = repo::parse_duration(text);
    if (!age) age = parse_words(text);
    if (age) return now_ns - *age;
    return parse_date(text);
}

}  // namespace coral::cli
