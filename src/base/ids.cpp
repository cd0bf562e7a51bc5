// SPDX-License-Identifier: Apache-2.0
#include "coral/base/ids.hpp"

#include <sys/random.h>

#include <cerrno>
#include <system_error>

namespace coral {
namespace {

int nibble(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

std::string to_hex(Bytes bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    text.reserve(bytes.size() * 2);
    for (std::byte b : bytes) {
        text += kDigits[std::to_integer<unsigned>(b) >> 4];
        text += kDigits[std::to_integer<unsigned>(b) & 15];
    }
    return text;
}

bool from_hex(std::string_view text, MutableBytes out) {
    if (text.size() != out.size() * 2) return false;
    for (std::size_t i = 0; i < out.size(); ++i) {
        int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = static_cast<std::byte>(high << 4 | low);
    }
    return true;
}

std::string Uuid::text() const {
    std::string hex = to_hex(bytes);
    for (std::size_t at : {20u, 16u, 12u, 8u}) hex.insert(at, "-");
    return hex;
}

std::optional<Uuid> Uuid::parse(std::string_view text) {
    if (text.size() != 36) return std::nullopt;
    std::string hex;
    for (std::size_t i = 0; i < text.size(); ++i) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash != (text[i] == '-')) return std::nullopt;
        if (!dash) hex += text[i];
    }
    Uuid id;
    if (!from_hex(hex, id.bytes)) return std::nullopt;
    return id;
}

std::optional<Uuid> Uuid::from_bytes(Bytes raw) {
    Uuid id;
    if (raw.size() != id.bytes.size()) return std::nullopt;
    std::memcpy(id.bytes.data(), raw.data(), raw.size());
    return id;
}

Uuid Uuid::random() {
    Uuid id;
    ssize_t got;
    do {
        got = ::getrandom(id.bytes.data(), id.bytes.size(), 0);
    } while (got < 0 && errno == EINTR);
    if (got != static_cast<ssize_t>(id.bytes.size())) {
        throw std::system_error(errno, std::generic_category(), "getrandom");
    }
    id.bytes[6] = (id.bytes[6] & std::byte{0x0f}) | std::byte{0x40};
    id.bytes[8] = (id.bytes[8] & std::byte{0x3f}) | std::byte{0x80};
    return id;
}

}  // namespace coral
