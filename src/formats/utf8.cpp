// SPDX-License-Identifier: Apache-2.0
#include "formats/utf8.hpp"

namespace coral::formats {

bool Utf8Checker::next(std::uint8_t byte) {
    if (left_ > 0) {
        if (byte < low_ || byte > high_) return false;
        --left_;
        low_ = 0x80;
        high_ = 0xbf;
        return true;
    }
    if (byte < 0x80) return true;
    if (byte < 0xc2 || byte > 0xf4) return false;
    left_ = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    if (byte == 0xe0) low_ = 0xa0;   // else overlong
    if (byte == 0xed) high_ = 0x9f;  // else a surrogate
    if (byte == 0xf0) low_ = 0x90;   // else overlong
    if (byte == 0xf4) high_ = 0x8f;  // else above U+10FFFF
    return true;
}

bool is_utf8(std::string_view text) {
    Utf8Checker checker;
    for (char c : text) {
        if (!checker.next(static_cast<std::uint8_t>(c))) return false;
    }
    return checker.complete();
}

void append_utf8(std::string& out, std::uint32_t code) {
    auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            put(0xe0 | code >> 12);
        } else {
            put(0xf0 | code >> 18);
            put(0x80 | ((code >> 12) & 0x3f));
        }
        put(0x80 | ((code >> 6) & 0x3f));
    }
    put(0x80 | (code & 0x3f));
}

}  // namespace coral::formats
