// SPDX-License-Identifier: Apache-2.0
// Commits and tags: lines `key SP value LF` in a fixed order, a blank line, the message (docs/format.md, "Canonical
// encodings"). What decodes is encoded again and compared, so one object has exactly one spelling.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "coral/repo/objects.hpp"

namespace coral::repo {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr int kMaxZone = 24 * 60 - 1;
constexpr std::size_t kMaxLine = 64u << 10;  // of any value; names of people are shorter still
constexpr std::size_t kMaxPerson = 1024;
constexpr std::size_t kMaxMetaKey = 255;
constexpr std::size_t kMaxMessage = 64u << 20;

Error invalid(std::string message) {
    return make_error(Errc::kInvalid, std::move(message));
}
Error corrupt(std::string message) {
    return make_error(Errc::kCorrupt, std::move(message));
}

// Length of the UTF-8 sequence at the front, 0 when it is none (overlong, surrogate, beyond U+10FFFF, cut).
std::size_t utf8_length(std::string_view s) {
    auto at = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
    auto tail = [&](std::size_t i) { return i < s.size() && (at(i) & 0xc0) == 0x80; };
    unsigned char c = at(0);
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf) return tail(1) ? 2 : 0;
    if (c >= 0xe0 && c <= 0xef) {
        if (!tail(1) || !tail(2)) return 0;
        if ((c == 0xe0 && at(1) < 0xa0) || (c == 0xed && at(1) > 0x9f)) return 0;
        return 3;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        if (!tail(1) || !tail(2) || !tail(3)) return 0;
        if ((c == 0xf0 && at(1) < 0x90) || (c == 0xf4 && at(1) > 0x8f)) return 0;
        return 4;
    }
    return 0;
}

// UTF-8 without control characters (so without line ends): what a line's value may hold.
bool line_text(std::string_view text, std::size_t limit) {
    if (text.size() > limit) return false;
    while (!text.empty()) {
        auto c = static_cast<unsigned char>(text[0]);
        if (c < 0x20 || c == 0x7f) return false;
        std::size_t n = utf8_length(text);
        if (n == 0) return false;
        text.remove_prefix(n);
    }
    return true;
}

Status check_person(const Person& p, std::string_view role) {
    for (const std::string* part : {&p.name, &p.mail}) {
        if (!line_text(*part, kMaxPerson) || part->find_first_of("<>") != std::string::npos) {
            return invalid(fmt::format(
                "{}: name and mail must be UTF-8 without line ends, control characters, '<' and '>', at most {} bytes",
                role, kMaxPerson));
        }
    }
    if (p.zone_minutes < -kMaxZone || p.zone_minutes > kMaxZone) {
        return invalid(fmt::format("{}: impossible time zone of {} minutes", role, p.zone_minutes));
    }
    return {};
}

std::string person_text(const Person& p) {
    // Floor, not truncation: nanoseconds are never negative.
    std::int64_t seconds = p.time_ns / kSecond, nanos = p.time_ns % kSecond;
    if (nanos < 0) {
        nanos += kSecond;
        --seconds;
    }
    int zone = p.zone_minutes < 0 ? -p.zone_minutes : p.zone_minutes;
    return fmt::format("{} <{}> {}.{:09} {}{:02}{:02}", p.name, p.mail, seconds, nanos, p.zone_minutes < 0 ? '-' : '+',
                       zone / 60, zone % 60);
}

template <class T>
bool parse_number(std::string_view text, T& out) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

// Lenient about spelling: the caller compares with the canonical one.
Result<Person> parse_person(std::string_view text) {
    Person p;
    std::size_t open = text.find(" <"), close = text.find("> ");
    if (open == std::string_view::npos || close == std::string_view::npos || close < open + 2) {
        return corrupt("bad person line");
    }
    p.name = text.substr(0, open);
    p.mail = text.substr(open + 2, close - open - 2);
    text.remove_prefix(close + 2);
    std::size_t dot = text.find('.'), space = text.find(' ');
    if (dot == std::string_view::npos || space != dot + 10 || text.size() != space + 6)
        return corrupt("bad person line");
    std::int64_t seconds = 0, nanos = 0;
    int hours = 0, minutes = 0;
    if (!parse_number(text.substr(0, dot), seconds) || !parse_number(text.substr(dot + 1, 9), nanos) || nanos < 0 ||
        !parse_number(text.substr(space + 2, 2), hours) || !parse_number(text.substr(space + 4, 2), minutes)) {
        return corrupt("bad person line");
    }
    // Floor division of INT64_MIN + nanos stays in range only when summed in this order: checked, not assumed.
    if (__builtin_mul_overflow(seconds + (seconds < 0 ? 1 : 0), kSecond, &p.time_ns) ||
        __builtin_add_overflow(p.time_ns, nanos - (seconds < 0 ? kSecond : 0), &p.time_ns)) {
        return corrupt("bad person line: time out of range");
    }
    int zone = hours * 60 + minutes;
    if (zone > kMaxZone || zone < 0) return corrupt("bad person line: time zone out of range");
    p.zone_minutes = static_cast<std::int16_t>(text[space + 1] == '-' ? -zone : zone);
    return p;
}

// Takes lines from the front of an object.
class Lines {
  public:
    explicit Lines(std::string_view text) : rest_(text) {}

    // The value if the next line has this key; nothing (and nothing taken) otherwise.
    std::optional<std::string_view> take(std::string_view key) {
        std::size_t end = rest_.find('\n');
        if (end == std::string_view::npos) return std::nullopt;
        std::string_view line = rest_.substr(0, end);
        if (line.size() <= key.size() || !line.starts_with(key) || line[key.size()] != ' ') return std::nullopt;
        rest_.remove_prefix(end + 1);
        return line.substr(key.size() + 1);
    }
    // Everything after the blank line; nothing if there is none here.
    std::optional<std::string_view> message() {
        if (!rest_.starts_with('\n')) return std::nullopt;
        return rest_.substr(1);
    }

  private:
    std::string_view rest_;
};

Buffer to_buffer(std::string_view text) {
    Bytes bytes = as_bytes(text);
    return Buffer(bytes.begin(), bytes.end());
}

bool same_bytes(const Buffer& a, Bytes b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

Result<Person> take_person(Lines& lines, std::string_view key) {
    auto value = lines.take(key);
    if (!value) return corrupt(fmt::format("no {} line", key));
    return parse_person(*value);
}

Result<Commit> parse_commit(Bytes bytes) {
    Lines lines(as_text(bytes));
    Commit c;
    auto tree = TreeId::from_hex(lines.take("tree").value_or(""));
    if (!tree) return corrupt("no tree line");
    c.tree = *tree;
    while (auto parent = lines.take("parent")) {
        auto id = CommitId::from_hex(*parent);
        if (!id) return corrupt("bad parent line");
        c.parents.push_back(*id);
    }
    CORAL_TRY(c.author, take_person(lines, "author"));
    CORAL_TRY(c.committer, take_person(lines, "committer"));
    while (auto meta = lines.take("meta")) {
        std::size_t equals = meta->find('=');
        if (equals == std::string_view::npos) return corrupt("bad meta line");
        c.meta.emplace_back(meta->substr(0, equals), meta->substr(equals + 1));
    }
    c.signature = lines.take("signature").value_or("");
    auto message = lines.message();
    if (!message) return corrupt("no blank line before the message, or an unknown line");
    c.message = *message;
    return c;
}

Result<Tag> parse_tag(Bytes bytes) {
    Lines lines(as_text(bytes));
    Tag t;
    auto target = CommitId::from_hex(lines.take("object").value_or(""));
    if (!target) return corrupt("no object line");
    t.target = *target;
    if (lines.take("type").value_or("") != "commit") return corrupt("names something else than a commit");
    t.name = lines.take("tag").value_or("");
    CORAL_TRY(t.tagger, take_person(lines, "tagger"));
    t.signature = lines.take("signature").value_or("");
    auto message = lines.message();
    if (!message) return corrupt("no blank line before the message, or an unknown line");
    t.message = *message;
    return t;
}

}  // namespace

std::string clean_person_text(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        auto c = static_cast<unsigned char>(text[0]);
        std::size_t n = utf8_length(text);
        if (n == 0) {
            out += '?';
            n = 1;
        } else if (c == '\n' || c == '\r' || c == '\t') {
            out += ' ';
        } else if (c >= 0x20 && c != 0x7f && c != '<' && c != '>') {
            if (out.size() + n > kMaxPerson) break;
            out += text.substr(0, n);
        }
        text.remove_prefix(n);
        if (out.size() >= kMaxPerson) break;
    }
    std::size_t first = out.find_first_not_of(' '), last = out.find_last_not_of(' ');
    return first == std::string::npos ? std::string() : out.substr(first, last - first + 1);
}

Status check_commit(const Commit& commit) {
    CORAL_CHECK(check_person(commit.author, "author"));
    CORAL_CHECK(check_person(commit.committer, "committer"));
    for (std::size_t i = 0; i < commit.meta.size(); ++i) {
        const auto& [key, value] = commit.meta[i];
        if (key.empty() || !line_text(key, kMaxMetaKey) || key.find_first_of("= ") != std::string::npos) {
            return invalid("meta: a key is 1–255 bytes of UTF-8 without '=', blanks and control characters");
        }
        if (!line_text(value, kMaxLine)) {
            return invalid(fmt::format("meta {}: a value is one line of UTF-8, at most {} bytes", key, kMaxLine));
        }
        if (i > 0 && commit.meta[i - 1].first >= key) {
            return invalid(fmt::format("meta {}: twice or not sorted by key", key));
        }
    }
    if (!line_text(commit.signature, kMaxLine)) return invalid("signature: must be one line of UTF-8");
    if (commit.message.size() > kMaxMessage) return make_error(Errc::kTooLarge, "commit message: larger than 64 MiB");
    return {};
}

Buffer encode_commit(const Commit& commit) {
    if (auto good = check_commit(commit); !good) throw std::invalid_argument(good.error().message);
    std::string text = fmt::format("tree {}\n", commit.tree.hex());
    for (const CommitId& parent : commit.parents) text += fmt::format("parent {}\n", parent.hex());
    text += fmt::format("author {}\ncommitter {}\n", person_text(commit.author), person_text(commit.committer));
    for (const auto& [key, value] : commit.meta) text += fmt::format("meta {}={}\n", key, value);
    if (!commit.signature.empty()) text += fmt::format("signature {}\n", commit.signature);
    text += '\n';
    text += commit.message;
    return to_buffer(text);
}

Result<Commit> decode_commit(Bytes bytes) {
    auto commit = parse_commit(bytes);
    if (!commit) return std::move(commit).error().with("commit");
    if (auto good = check_commit(*commit); !good) return corrupt("commit: " + good.error().message);
    if (!same_bytes(encode_commit(*commit), bytes)) return corrupt("commit: not in canonical form");
    return commit;
}

Status check_tag(const Tag& tag) {
    CORAL_CHECK(check_person(tag.tagger, "tagger"));
    if (tag.name.empty() || !line_text(tag.name, kMaxPerson)) return invalid("tag: its name must be one line of UTF-8");
    if (!line_text(tag.signature, kMaxLine)) return invalid("signature: must be one line of UTF-8");
    if (tag.message.size() > kMaxMessage) return make_error(Errc::kTooLarge, "tag message: larger than 64 MiB");
    return {};
}

Buffer encode_tag(const Tag& tag) {
    if (auto good = check_tag(tag); !good) throw std::invalid_argument(good.error().message);
    std::string text =
        fmt::format("object {}\ntype commit\ntag {}\ntagger {}\n", tag.target.hex(), tag.name, person_text(tag.tagger));
    if (!tag.signature.empty()) text += fmt::format("signature {}\n", tag.signature);
    return to_buffer(text + '\n' + tag.message);
}

Result<Tag> decode_tag(Bytes bytes) {
    auto tag = parse_tag(bytes);
    if (!tag) return std::move(tag).error().with("tag");
    if (auto good = check_tag(*tag); !good) return corrupt("tag: " + good.error().message);
    if (!same_bytes(encode_tag(*tag), bytes)) return corrupt("tag: not in canonical form");
    return tag;
}

}  // namespace coral::repo
