// SPDX-License-Identifier: Apache-2.0
// A pull reader of JSON (RFC 8259) for headers that strangers wrote: no tree, no recursion, no look-ahead beyond one
// byte, memory only for the strings that the caller asks for. Strict: what serde_json refuses in a safetensors header
// is refused. (nlohmann's SAX interface buffers every string and number whole before it hands it out, so a header could
// cost 100 MB.)
#pragma once

#include <cstdint>
#include <string>

#include "formats/source_reader.hpp"
#include "formats/utf8.hpp"

namespace coral::formats {

class JsonReader {
  public:
    explicit JsonReader(SourceReader& reader) : reader_(reader) {}

    // Skips white space, then takes `c` if it is next.
    bool accept(char c);
    // False when malformed or longer than `max` bytes.
    bool read_string(std::string& out, std::size_t max);
    // A non-negative integer without sign, fraction or exponent that fits.
    bool read_unsigned(std::uint64_t& out);
    // Any value, nested at most kMaxJsonDepth deep.
    bool skip_value();
    // Nothing but white space is left.
    bool at_end();

    // {"key": …}: calls member(key), which must read the value and return whether it liked it.
    template <class Member>
    bool read_object(std::size_t max_key, Member&& member) {
        if (!accept('{')) return false;
        if (accept('}')) return true;
        std::string key;
        do {
            if (!read_string(key, max_key) || !accept(':') || !member(key)) return false;
        } while (accept(','));
        return accept('}');
    }

  private:
    int peek_token();
    bool read_string_body(std::string* out, std::size_t max);
    bool read_escape(std::uint32_t& code);
    bool read_hex4(std::uint32_t& out);
    bool skip_key();
    bool skip_scalar(int first);
    bool skip_number();
    bool skip_digits();

    SourceReader& reader_;
};

}  // namespace coral::formats
