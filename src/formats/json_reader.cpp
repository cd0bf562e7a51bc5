// SPDX-License-Identifier: Apache-2.0
#include "formats/json_reader.hpp"

#include <array>
#include <string_view>

#include "formats/limits.hpp"

namespace coral::formats {

namespace {

bool is_digit(int c) {
    return c >= '0' && c <= '9';
}

int hex_digit(int c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

int JsonReader::peek_token() {
    for (;;) {
        int c = reader_.peek();
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return c;
        reader_.get();
    }
}

bool JsonReader::accept(char c) {
    if (peek_token() != static_cast<unsigned char>(c)) return false;
    reader_.get();
    return true;
}

bool JsonReader::at_end() {
    return peek_token() == SourceReader::kEnd && !reader_.error();
}

bool JsonReader::read_string(std::string& out, std::size_t max) {
    out.clear();
    return accept('"') && read_string_body(&out, max);
}

// After the opening quote. Without `out` the string is checked and dropped.
bool JsonReader::read_string_body(std::string* out, std::size_t max) {
    Utf8Checker utf8;
    for (;;) {
        int c = reader_.get();
        if (c < 0x20) return false;  // a control character, or the end
        if (c == '"') return utf8.complete();
        if (c == '\\') {
            std::uint32_t code = 0;
            if (!utf8.complete() || !read_escape(code)) return false;
            if (out) append_utf8(*out, code);
        } else {
            if (!utf8.next(static_cast<std::uint8_t>(c))) return false;
            if (out) out->push_back(static_cast<char>(c));
        }
        if (out && out->size() > max) return false;
    }
}

bool JsonReader::read_escape(std::uint32_t& code) {
    int c = reader_.get();
    switch (c) {
        case '"':
        case '\\':
        case '/':
            code = static_cast<std::uint32_t>(c);
            return true;
        case 'b':
            code = '\b';
            return true;
        case 'f':
            code = '\f';
            return true;
        case 'n':
            code = '\n';
            return true;
        case 'r':
            code = '\r';
            return true;
        case 't':
            code = '\t';
            return true;
        case 'u':
            break;
        default:
            return false;
    }
    if (!read_hex4(code)) return false;
    if (code < 0xd800 || code > 0xdfff) return true;
    std::uint32_t low = 0;  // a surrogate must be the first of a pair
    if (code > 0xdbff || reader_.get() != '\\' || reader_.get() != 'u' || !read_hex4(low)) return false;
    if (low < 0xdc00 || low > 0xdfff) return false;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

bool JsonReader::read_hex4(std::uint32_t& out) {
    out = 0;
    for (int i = 0; i < 4; ++i) {
        int digit = hex_digit(reader_.get());
        if (digit < 0) return false;
        out = out << 4 | static_cast<std::uint32_t>(digit);
    }
    return true;
}

bool JsonReader::read_unsigned(std::uint64_t& out) {
    int c = peek_token();
    if (!is_digit(c)) return false;
    out = 0;
    std::size_t digits = 0;
    for (; is_digit(c); c = reader_.peek(), ++digits) {
        if (!checked_mul<std::uint64_t>(out, 10, out)) return false;
        if (!checked_add<std::uint64_t>(out, static_cast<std::uint64_t>(c - '0'), out)) return false;
        if (digits == 1 && out < 10) return false;  // a leading zero
        reader_.get();
    }
    return c != '.' && c != 'e' && c != 'E';
}

bool JsonReader::skip_value() {
    std::array<char, kMaxJsonDepth> closers;
    std::size_t depth = 0;
    for (;;) {
        int c = peek_token();
        if (c == '{' || c == '[') {
            reader_.get();
            char closer = c == '{' ? '}' : ']';
            if (!accept(closer)) {
                if (depth == closers.size()) return false;
                closers[depth++] = closer;
                if (closer == '}' && !skip_key()) return false;
                continue;
            }
        } else if (!skip_scalar(c)) {
            return false;
        }
        while (depth > 0 && accept(closers[depth - 1])) --depth;
        if (depth == 0) return true;
        if (!accept(',')) return false;
        if (closers[depth - 1] == '}' && !skip_key()) return false;
    }
}

bool JsonReader::skip_key() {
    return accept('"') && read_string_body(nullptr, 0) && accept(':');
}

bool JsonReader::skip_scalar(int first) {
    std::string_view word;
    switch (first) {
        case '"':
            reader_.get();
            return read_string_body(nullptr, 0);
        case 't':
            word = "true";
            break;
        case 'f':
            word = "false";
            break;
        case 'n':
            word = "null";
            break;
        default:
            return skip_number();
    }
    for (char c : word) {
        if (reader_.get() != c) return false;
    }
    return true;
}

bool JsonReader::skip_number() {
    if (reader_.peek() == '-') reader_.get();
    if (reader_.peek() == '0') {
        reader_.get();
    } else if (!skip_digits()) {
        return false;
    }
    if (reader_.peek() == '.') {
        reader_.get();
        if (!skip_digits()) return false;
    }
    if (reader_.peek() == 'e' || reader_.peek() == 'E') {
        reader_.get();
        if (reader_.peek() == '+' || reader_.peek() == '-') reader_.get();
        return skip_digits();
    }
    return true;
}

bool JsonReader::skip_digits() {
    if (!is_digit(reader_.peek())) return false;
    while (is_digit(reader_.peek())) reader_.get();
    return true;
}

}  // namespace coral::formats
