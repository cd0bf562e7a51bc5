// SPDX-License-Identifier: Apache-2.0
// UTF-8 as in RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coral::formats {

// Checks a text byte by byte.
class Utf8Checker {
  public:
    // False at the first byte that cannot follow the bytes before it.
    bool next(std::uint8_t byte);
    bool complete() const { return left_ == 0; }

  private:
    int left_ = 0;                           // continuation bytes still due
    std::uint8_t low_ = 0x80, high_ = 0xbf;  // what the next of them may be
};

bool is_utf8(std::string_view text);
// `code` must be a scalar value: at most 0x10ffff and no surrogate.
void append_utf8(std::string& out, std::uint32_t code);

}  // namespace coral::formats
