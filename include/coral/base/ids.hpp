// SPDX-License-Identifier: Apache-2.0
// Names of things. Everything is named by SHA-256 (docs/format.md, "Names"); kinds of names do not mix.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace coral {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

std::string to_hex(Bytes bytes);
// Nothing unless `text` is exactly two hex digits (either case) per byte of `out`.
bool from_hex(std::string_view text, MutableBytes out);

// A 32-byte SHA-256 name. The tag keeps a TreeId from being passed where a CommitId is meant.
template <class Tag>
struct Id {
    std::array<std::byte, 32> bytes{};

    auto operator<=>(const Id&) const = default;
    bool is_zero() const { return *this == Id{}; }
    std::string hex() const { return to_hex(bytes); }
    Bytes span() const { return bytes; }

    static std::optional<Id> from_hex(std::string_view text) {
        Id id;
        if (!coral::from_hex(text, id.bytes)) return std::nullopt;
        return id;
    }
    // `raw` must be 32 bytes; nothing otherwise.
    static std::optional<Id> from_bytes(Bytes raw) {
        Id id;
        if (raw.size() != id.bytes.size()) return std::nullopt;
        std::memcpy(id.bytes.data(), raw.data(), raw.size());
        return id;
    }
    template <class Other>
    static Id from(const Id<Other>& other) {
        return Id{other.bytes};
    }
};

using AnyId = Id<struct AnyTag>;
using SegmentId = Id<struct SegmentTag>;
using FileId = Id<struct FileTag>;
using TreeId = Id<struct TreeTag>;
using CommitId = Id<struct CommitTag>;
using TagId = Id<struct TagTag>;

// Random (version 4) unless it was read from somewhere.
struct Uuid {
    std::array<std::byte, 16> bytes{};

    auto operator<=>(const Uuid&) const = default;
    bool is_zero() const { return *this == Uuid{}; }
    std::string text() const;  // 8-4-4-4-12 hex
    static std::optional<Uuid> parse(std::string_view text);
    static std::optional<Uuid> from_bytes(Bytes raw);
    static Uuid random();
};

// SHA-256 output is uniform, so eight of its bytes are a hash.
template <class Array>
std::size_t prefix_hash(const Array& bytes) {
    std::size_t h;
    std::memcpy(&h, bytes.data(), sizeof h);
    return h;
}

}  // namespace coral

template <class Tag>
struct std::hash<coral::Id<Tag>> {
    std::size_t operator()(const coral::Id<Tag>& id) const noexcept { return coral::prefix_hash(id.bytes); }
};
template <>
struct std::hash<coral::Uuid> {
    std::size_t operator()(const coral::Uuid& id) const noexcept { return coral::prefix_hash(id.bytes); }
};
