// SPDX-License-Identifier: Apache-2.0
// Reading and editing TOML. An edit touches only the text of one value or adds one line; the result is parsed again,
// and when it does not say what it should (inline tables, unusual spelling) the file is written anew from its parsed
// form.
#include <toml++/toml.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "coral/repo/settings.hpp"

namespace coral::repo {
namespace {

constexpr std::uint64_t kConfigLimit = 1u << 20;

template <class Printable>
std::string printed(const Printable& value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

std::string value_text(const toml::node& node) {
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* number = node.as_integer()) return std::to_string(number->get());
    if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
    if (const auto* real = node.as_floating_point()) return printed(*real);
    if (const auto* array = node.as_array()) return printed(*array);
    if (const auto* date = node.as_date()) return printed(*date);
    if (const auto* time = node.as_time()) return printed(*time);
    if (const auto* moment = node.as_date_time()) return printed(*moment);
    return {};
}

// The parser bounds nesting (256), so this recursion is bounded too.
void flatten(const toml::table& table, const std::string& prefix, Settings& out) {
    for (const auto& [key, node] : table) {
        std::string name = prefix + std::string(key.str());
        if (const auto* inner = node.as_table())
            flatten(*inner, name + ".", out);
        else
            out.emplace_back(std::move(name), value_text(node));
    }
}

Settings flat(const toml::table& table) {
    Settings out;
    flatten(table, "", out);
    std::sort(out.begin(), out.end());
    return out;
}

// The packaged library is built with exceptions: they end here.
Result<toml::table> parse(const std::string& text, const std::string& path) {
    try {
        return toml::parse(std::string_view(text), std::string_view(path));
    } catch (const toml::parse_error& error) {
        return make_error(Errc::kInvalid, fmt::format("{}:{}: {}; correct it in an editor", path,
                                                      error.source().begin.line, error.description()));
    }
}

std::vector<std::string> split_key(std::string_view key) {
    std::vector<std::string> parts;
    for (std::string_view rest = key;;) {
        std::size_t dot = rest.find('.');
        parts.emplace_back(rest.substr(0, dot));
        if (dot == std::string_view::npos) return parts;
        rest.remove_prefix(dot + 1);
    }
}

bool valid_key(const std::vector<std::string>& parts) {
    if (parts.size() < 2 || parts.size() > 8) return false;
    for (const std::string& part : parts) {
        bool good = !part.empty() && part.size() <= 100 && std::all_of(part.begin(), part.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        });
        if (!good) return false;
    }
    return true;
}

// Numbers and truth values bare, when that reads back as the same text; all else as a string.
std::string literal(const std::string& value) {
    if (value == "true" || value == "false") return value;
    std::int64_t number = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error == std::errc() && end == value.data() + value.size() && std::to_string(number) == value) return value;
    std::string out = "\"";
    for (char c : value) {
        if (c == '"' || c == '\\')
            out += fmt::format("\\{}", c);
        else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        else
            out += c;
    }
    return out + "\"";
}

// Where a position lies in the text. Columns count code points.
std::size_t offset_of(const std::string& text, const toml::source_position& position) {
    std::size_t at = 0;
    for (toml::source_index line = 1; line < position.line; ++line) {
        std::size_t end = text.find('\n', at);
        if (end == std::string::npos) return text.size();
        at = end + 1;
    }
    for (toml::source_index column = 1; column < position.column && at < text.size(); ++column) {
        do {
            ++at;
        } while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
    }
    return at;
}

std::size_t line_end(const std::string& text, std::size_t at) {
    std::size_t end = text.find('\n', at);
    return end == std::string::npos ? text.size() : end + 1;
}

std::string with_final_newline(std::string text) {
    if (!text.empty() && text.back() != '\n') text += '\n';
    return text;
}

struct Place {
    const toml::table* parent = nullptr;  // of the last part, when there is one
    const toml::node* node = nullptr;
};

Place locate(const toml::table& root, const std::vector<std::string>& parts) {
    const toml::table* at = &root;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        const toml::node* next = at->get(parts[i]);
        if (!next || !next->is_table()) return {};
        at = next->as_table();
    }
    return {at, at->get(parts.back())};
}

// The smallest change of the text. May be wrong for unusual files: the caller checks.
std::string edit_text(const std::string& text, const Place& place, const std::vector<std::string>& parts,
                      const std::optional<std::string>& value) {
    if (place.node) {
        std::size_t begin = offset_of(text, place.node->source().begin),
                    end = offset_of(text, place.node->source().end);
        if (begin > end) return text;
        if (value) return text.substr(0, begin) + literal(*value) + text.substr(end);
        std::size_t start = begin == 0 ? std::string::npos : text.rfind('\n', begin - 1);
        start = start == std::string::npos ? 0 : start + 1;
        return text.substr(0, start) + text.substr(line_end(text, end));
    }
    std::string line = fmt::format("{} = {}\n", parts.back(), literal(*value));
    if (place.parent) {
        std::size_t after = line_end(text, offset_of(text, place.parent->source().begin));
        return with_final_newline(text.substr(0, after)) + line + text.substr(after);
    }
    std::string section = fmt::format("{}", fmt::join(parts.begin(), parts.end() - 1, "."));
    return with_final_newline(text) + (text.empty() ? "" : "\n") + fmt::format("[{}]\n{}", section, line);
}

// The same change on the parsed form; comments are lost.
Result<std::string> edit_tree(toml::table root, const std::vector<std::string>& parts,
                              const std::optional<std::string>& value, const std::string& path) {
    toml::table* at = &root;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        toml::node* next = at->get(parts[i]);
        if (!next) next = &at->insert(parts[i], toml::table{}).first->second;
        if (!next->is_table()) {
            return make_error(Errc::kInvalid, fmt::format("{}: '{}' is a value there, not a section", path, parts[i]));
        }
        at = next->as_table();
    }
    if (value)
        at->insert_or_assign(parts.back(), *value);
    else
        at->erase(parts.back());
    return printed(root) + "\n";
}

}  // namespace

Result<Settings> read_settings(Os& os, const std::string& path) {
    auto text = read_file(os, path, kConfigLimit);
    if (!text) {
        if (text.error().code == Errc::kNotFound) return Settings{};
        return std::move(text).error();
    }
    CORAL_TRY(toml::table table, parse(*text, path));
    return flat(table);
}

Result<std::string> edit_settings(const std::string& text, const std::string& key,
                                  const std::optional<std::string>& value, const std::string& path) {
    std::vector<std::string> parts = split_key(key);
    if (!valid_key(parts)) {
        return make_error(Errc::kInvalid,
                          fmt::format("'{}': a setting is named SECTION.NAME, of letters, digits, '-' and '_'", key));
    }
    CORAL_TRY(toml::table table, parse(text, path));
    Place place = locate(table, parts);
    if (!value && !place.node) return make_error(Errc::kNotFound, fmt::format("{}: {} is not set there", path, key));
    if (place.node && place.node->is_table()) {
        return make_error(Errc::kInvalid, fmt::format("{}: '{}' is a section there, not a value", path, key));
    }
    Settings wanted = flat(table);
    std::erase_if(wanted, [&](const auto& pair) { return pair.first == key; });
    if (value) wanted.emplace_back(key, *value);
    std::sort(wanted.begin(), wanted.end());

    std::string edited = edit_text(text, place, parts, value);
    auto again = parse(edited, path);
    if (again && flat(*again) == wanted) return edited;
    CORAL_TRY(edited, edit_tree(table, parts, value, path));
    again = parse(edited, path);
    if (again && flat(*again) == wanted) return edited;
    return make_error(Errc::kInvalid, fmt::format("{}: cannot hold this value of {} (is it UTF-8?)", path, key));
}

}  // namespace coral::repo
