// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.hpp"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "cli/text.hpp"

namespace coral::cli {
namespace {

Error wrong(std::string message) {
    return make_error(Errc::kInvalid, std::move(message));
}

bool optional_value(const Option& option) {
    return option.value && option.value[0] == '[';
}

Result<const Option*> find_long(const std::vector<Option>& options, std::string_view name) {
    const Option* found = nullptr;
    std::string also;
    for (const Option& option : options) {
        std::string_view whole = option.name;
        if (whole == name) return &option;
        if (name.empty() || !whole.starts_with(name)) continue;
        if (found) also = fmt::format("--{} or --{}", found->name, option.name);
        found = &option;
    }
    if (!also.empty()) return wrong(fmt::format("option --{} is ambiguous: {}", name, also));
    if (!found) return wrong(fmt::format("unknown option --{}", quote_name(name)));
    return found;
}

const Option* find_short(const std::vector<Option>& options, char letter) {
    for (const Option& option : options) {
        if (letter && option.letter == letter) return &option;
    }
    return nullptr;
}

// Puts words into `given` and `operands`; `at` is the word being read.
struct Reader {
    const std::vector<Option>& options;
    const std::vector<std::string>& words;
    std::size_t at = 0;
    std::map<std::string, std::vector<std::string>> given;
    std::vector<std::string> operands;
    std::optional<std::size_t> dashes;

    Status run() {
        for (; at < words.size(); ++at) {
            std::string_view word = words[at];
            if (!dashes && word == "--") {
                dashes = operands.size();
            } else if (!dashes && word.starts_with("--")) {
                CORAL_CHECK(take_long(word.substr(2)));
            } else if (!dashes && word.size() > 1 && word[0] == '-') {
                CORAL_CHECK(take_short(word.substr(1)));
            } else {
                operands.emplace_back(word);
            }
        }
        return {};
    }

    Result<std::string> next_word(const std::string& shown) {
        if (at + 1 >= words.size()) return wrong(fmt::format("option {} needs a value", shown));
        return words[++at];
    }

    Status take_long(std::string_view word) {
        std::size_t equals = word.find('=');
        CORAL_TRY(const Option* option, find_long(options, word.substr(0, equals)));
        std::vector<std::string>& into = given[option->name];
        if (equals != std::string_view::npos) {
            if (!option->value) return wrong(fmt::format("option --{} takes no value", option->name));
            into.emplace_back(word.substr(equals + 1));
        } else if (!option->value || optional_value(*option)) {
            into.emplace_back();
        } else {
            CORAL_TRY(std::string value, next_word(fmt::format("--{}", option->name)));
            into.push_back(std::move(value));
        }
        return {};
    }

    Status take_short(std::string_view letters) {
        const Option* number = find_short(options, 'n');
        if (number && letters[0] >= '0' && letters[0] <= '9') {
            given[number->name].emplace_back(letters);
            return {};
        }
        for (std::size_t i = 0; i < letters.size(); ++i) {
            const Option* option = find_short(options, letters[i]);
            if (!option) return wrong(fmt::format("unknown option -{}", quote_name(letters.substr(i, 1))));
            std::vector<std::string>& into = given[option->name];
            if (!option->value) {
                into.emplace_back();
                continue;
            }
            std::string_view rest = letters.substr(i + 1);  // -mTEXT
            if (!rest.empty() || optional_value(*option)) {
                into.emplace_back(rest);
            } else {
                CORAL_TRY(std::string value, next_word(fmt::format("-{}", letters[i])));
                into.push_back(std::move(value));
            }
            return {};
        }
        return {};
    }
};

}  // namespace

Result<Arguments> Arguments::parse(const std::vector<Option>& options, const std::vector<std::string>& words) {
    Reader reader{options, words, 0, {}, {}, {}};
    CORAL_CHECK(reader.run());
    Arguments out;
    out.given_ = std::move(reader.given);
    out.operands_ = std::move(reader.operands);
    out.dashes_ = reader.dashes;
    return out;
}

std::optional<std::string> Arguments::value(const std::string& name) const {
    auto at = given_.find(name);
    if (at == given_.end()) return std::nullopt;
    return at->second.back();
}

std::vector<std::string> Arguments::values(const std::string& name) const {
    auto at = given_.find(name);
    return at == given_.end() ? std::vector<std::string>{} : at->second;
}

Result<std::uint64_t> Arguments::number(const std::string& name, std::uint64_t low, std::uint64_t high,
                                        std::uint64_t otherwise) const {
    auto text = value(name);
    if (!text || text->empty()) return otherwise;
    std::uint64_t number = 0;
    auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
    if (error != std::errc() || end != text->data() + text->size() || number < low || number > high) {
        return wrong(fmt::format("--{}: '{}' is not a number from {} to {}", name, quote_name(*text), low, high));
    }
    return number;
}

}  // namespace coral::cli
