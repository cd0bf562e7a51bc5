// SPDX-License-Identifier: Apache-2.0
#include "cli/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace coral::cli {
namespace {

// Length of the well-formed UTF-8 sequence at `at` (Unicode table 3-7); 0 when there is none.
std::size_t sequence(std::string_view text, std::size_t at) {
    auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    std::size_t left = text.size() - at;
    unsigned char first = byte(0);
    if (first < 0x80) return 1;
    std::size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                         : first >= 0xe0 && first <= 0xef ? 3
                         : first >= 0xf0 && first <= 0xf4 ? 4
                                                          : 0;
    if (length == 0 || left < length) return 0;
    unsigned char low = 0x80, high = 0xbf;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    if (byte(1) < low || byte(1) > high) return 0;
    for (std::size_t i = 2; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return 0;
    }
    return length;
}

// C1 controls (U+0080–U+009F) steer some terminals as well.
bool is_control(std::string_view text, std::size_t at, std::size_t length) {
    auto first = static_cast<unsigned char>(text[at]);
    if (length == 1) return first < 0x20 || first == 0x7f;
    return length == 2 && first == 0xc2 && static_cast<unsigned char>(text[at + 1]) < 0xa0;
}

void put_escape(std::string& out, char c) {
    switch (c) {
        case '\n':
            out += "\\n";
            break;
        case '\t':
            out += "\\t";
            break;
        case '\r':
            out += "\\r";
            break;
        case '"':
            out += "\\\"";
            break;
        case '\\':
            out += "\\\\";
            break;
        default:
            out += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    }
}

std::tm local_parts(std::int64_t time_ns, int zone_minutes) {
    std::int64_t seconds = time_ns / 1'000'000'000 - (time_ns % 1'000'000'000 < 0 ? 1 : 0);
    std::time_t shifted = static_cast<std::time_t>(seconds + std::int64_t{zone_minutes} * 60);
    std::tm parts{};
    ::gmtime_r(&shifted, &parts);
    return parts;
}

}  // namespace

bool is_utf8(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        std::size_t length = sequence(text, at);
        if (length == 0) return false;
        at += length;
    }
    return true;
}

std::string to_utf8(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t length = sequence(text, at);
        if (length == 0) {
            out += "\xef\xbf\xbd";
            ++at;
        } else {
            out += text.substr(at, length);
            at += length;
        }
    }
    return out;
}

std::string quote_name(std::string_view name) {
    std::string out;
    bool plain = true;
    for (std::size_t at = 0; at < name.size();) {
        std::size_t length = sequence(name, at);
        bool escape = length == 0 || is_control(name, at, length) || name[at] == '"' || name[at] == '\\';
        length = std::max<std::size_t>(length, 1);
        if (escape) {
            plain = false;
            for (char c : name.substr(at, length)) put_escape(out, c);
        } else {
            out += name.substr(at, length);
        }
        at += length;
    }
    return plain ? out : "\"" + out + "\"";
}

std::string shown_text(std::string_view text) {
    std::string clean = to_utf8(text), out;
    for (std::size_t at = 0; at < clean.size();) {
        std::size_t length = std::max<std::size_t>(sequence(clean, at), 1);
        bool hide = is_control(clean, at, length) && clean[at] != '\n' && clean[at] != '\t';
        out += hide ? std::string("?") : clean.substr(at, length);
        at += length;
    }
    return out;
}

std::string first_line(std::string_view text) {
    return shown_text(text.substr(0, text.find('\n')));
}

std::string size_text(std::uint64_t bytes) {
    static constexpr std::array<const char*, 7> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) return fmt::format("{} B", bytes);
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1023.995 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, kUnits[unit]);
}

std::string count_text(std::uint64_t count, std::string_view noun) {
    return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string duration_text(std::uint64_t seconds) {
    if (seconds >= 3600) return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
}

std::string time_text(std::int64_t time_ns, int zone_minutes) {
    std::tm t = local_parts(time_ns, zone_minutes);
    int zone = std::abs(zone_minutes);
    return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02} {}{:02}{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                       t.tm_hour, t.tm_min, t.tm_sec, zone_minutes < 0 ? '-' : '+', zone / 60, zone % 60);
}

std::string time_iso(std::int64_t time_ns, int zone_minutes) {
    std::tm t = local_parts(time_ns, zone_minutes);
    int zone = std::abs(zone_minutes);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{:02}:{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                       t.tm_hour, t.tm_min, t.tm_sec, zone_minutes < 0 ? '-' : '+', zone / 60, zone % 60);
}

std::string mode_text(char type, unsigned mode) {
    std::string out(1, type);
    for (int shift = 6; shift >= 0; shift -= 3) {
        unsigned bits = mode >> shift;
        out += bits & 4 ? 'r' : '-';
        out += bits & 2 ? 'w' : '-';
        out += bits & 1 ? 'x' : '-';
    }
    return out;
}

std::size_t display_width(std::string_view utf8) {
    return static_cast<std::size_t>(
        std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
    a = a.substr(0, 64);
    b = b.substr(0, 64);
    std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
    for (std::size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        for (std::size_t j = 1; j <= b.size(); ++j) {
            std::size_t same = a[i - 1] == b[j - 1] ? 0 : 1;
            cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + same});
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
        }
    }
    return cost[a.size()][b.size()];
}

std::string Table::text(std::size_t indent) const {
    std::vector<std::size_t> widths;
    for (const auto& cells : rows_) {
        widths.resize(std::max(widths.size(), cells.size()));
        for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], display_width(cells[i]));
    }
    std::string out;
    for (const auto& cells : rows_) {
        std::string line(indent, ' ');
        for (std::size_t i = 0; i < cells.size(); ++i) {
            std::string pad(widths[i] - display_width(cells[i]), ' ');
            bool right = i < right_.size() && right_[i];
            line += right ? pad + cells[i] : cells[i] + pad;
            line += "  ";
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + "\n";
    }
    return out;
}

}  // namespace coral::cli
