// SPDX-License-Identifier: Apache-2.0
// Explicit little-endian encoding. No struct is ever written whole; every read checks what is left first.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral {

using Buffer = std::vector<std::byte>;

inline Bytes as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view as_text(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <std::unsigned_integral T>
T load_le(const std::byte* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    if constexpr (std::endian::native == std::endian::big && sizeof v > 1) {
        T swapped = 0;
        for (std::size_t i = 0; i < sizeof v; ++i) swapped = static_cast<T>(swapped << 8 | ((v >> (8 * i)) & 0xff));
        return swapped;
    }
    return v;
}

template <std::unsigned_integral T>
void store_le(std::byte* p, T v) {
    for (std::size_t i = 0; i < sizeof v; ++i) p[i] = static_cast<std::byte>(v >> (8 * i));
}

// Appends fields to a buffer.
class ByteWriter {
  public:
    explicit ByteWriter(Buffer& out) : out_(out) {}

    template <std::unsigned_integral T>
    ByteWriter& put(std::type_identity_t<T> v) {
        std::byte raw[sizeof(T)];
        store_le<T>(raw, v);
        out_.insert(out_.end(), raw, raw + sizeof(T));
        return *this;
    }
    ByteWriter& u8(std::uint8_t v) { return put<std::uint8_t>(v); }
    ByteWriter& u16(std::uint16_t v) { return put<std::uint16_t>(v); }
    ByteWriter& u32(std::uint32_t v) { return put<std::uint32_t>(v); }
    ByteWriter& u64(std::uint64_t v) { return put<std::uint64_t>(v); }
    ByteWriter& i64(std::int64_t v) { return put<std::uint64_t>(static_cast<std::uint64_t>(v)); }
    ByteWriter& raw(Bytes bytes) {
        out_.insert(out_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    ByteWriter& text(std::string_view t) { return raw(as_bytes(t)); }
    // u16 length, then the bytes. The caller has checked that it fits.
    ByteWriter& text16(std::string_view t) { return u16(static_cast<std::uint16_t>(t.size())).text(t); }
    template <class Tag>
    ByteWriter& id(const Id<Tag>& v) {
        return raw(v.bytes);
    }
    ByteWriter& uuid(const Uuid& v) { return raw(v.bytes); }
    std::size_t size() const { return out_.size(); }

  private:
    Buffer& out_;
};

// Takes fields from a buffer. After a read past the end every further read gives zeros and ok() is false: parse a whole
// header, then check once.
class ByteReader {
  public:
    explicit ByteReader(Bytes bytes) : bytes_(bytes) {}

    template <std::unsigned_integral T>
    T get() {
        Bytes b = take(sizeof(T));
        return b.size() == sizeof(T) ? load_le<T>(b.data()) : T{0};
    }
    std::uint8_t u8() { return get<std::uint8_t>(); }
    std::uint16_t u16() { return get<std::uint16_t>(); }
    std::uint32_t u32() { return get<std::uint32_t>(); }
    std::uint64_t u64() { return get<std::uint64_t>(); }
    std::int64_t i64() { return static_cast<std::int64_t>(get<std::uint64_t>()); }
    // Exactly n bytes, or none and ok() false.
    Bytes take(std::uint64_t n) {
        if (failed_ || n > bytes_.size() - pos_) {
            failed_ = true;
            return {};
        }
        Bytes b = bytes_.subspan(pos_, static_cast<std::size_t>(n));
        pos_ += static_cast<std::size_t>(n);
        return b;
    }
    std::string text16() { return std::string(as_text(take(u16()))); }
    template <class T>
    T id() {
        return T::from_bytes(take(32)).value_or(T{});
    }
    Uuid uuid() { return Uuid::from_bytes(take(16)).value_or(Uuid{}); }

    bool ok() const { return !failed_; }
    std::size_t pos() const { return pos_; }
    std::size_t left() const { return failed_ ? 0 : bytes_.size() - pos_; }
    bool at_end() const { return !failed_ && pos_ == bytes_.size(); }

  private:
    Bytes bytes_;
    std::size_t pos_ = 0;
    bool failed_ = false;
};

// Checked arithmetic for numbers that came from a file. False on overflow; `out` is untouched then.
template <std::unsigned_integral T>
[[nodiscard]] bool checked_add(T a, std::type_identity_t<T> b, T& out) {
    return !__builtin_add_overflow(a, b, &out);
}
template <std::unsigned_integral T>
[[nodiscard]] bool checked_mul(T a, std::type_identity_t<T> b, T& out) {
    return !__builtin_mul_overflow(a, b, &out);
}

}  // namespace coral
