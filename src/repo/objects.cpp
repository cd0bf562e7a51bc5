// SPDX-License-Identifier: Apache-2.0
// Trees and extended attributes: binary canonical encodings (docs/format.md, "Canonical encodings").
#include "coral/repo/objects.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "coral/base/hash.hpp"

namespace coral::repo {
namespace {

constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxXattrValue = 64u << 10;  // XATTR_SIZE_MAX of the kernel
constexpr std::size_t kMaxXattrBytes = 16u << 20;  // one segment
constexpr std::string_view kReservedXattrs = "user.coral.";
// u16 + one byte of name, u8, u16, u64, i64, two ids: no entry is shorter, so a count can be checked before it is
// believed.
constexpr std::size_t kMinEntry = 2 + 1 + 1 + 2 + 8 + 8 + 32 + 32;
constexpr auto kMaxSize = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

Error invalid(std::string message) {
    return make_error(Errc::kInvalid, std::move(message));
}

// Names may hold any byte; messages shall not.
std::string quoted(std::string_view text) {
    std::string out = "'";
    for (char c : text) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
            out += c;
        }
    }
    return out + "'";
}

Status check_entry(const TreeEntry& e) {
    if (!valid_name(e.name)) return invalid(fmt::format("{}: not a name that a tree can hold", quoted(e.name)));
    if (e.mode > 0777)
        return invalid(fmt::format("{}: mode {:o} has more than permission bits", quoted(e.name), e.mode));
    if (e.content.is_zero()) return invalid(fmt::format("{}: has no content id", quoted(e.name)));
    if (e.type != EntryType::kFile && e.mtime_ns != 0) {
        return invalid(fmt::format("{}: only files have a time in a tree", quoted(e.name)));
    }
    if (e.type != EntryType::kSymlink && !e.link.empty()) {
        return invalid(fmt::format("{}: has a link text but is no symlink", quoted(e.name)));
    }
    switch (e.type) {
        case EntryType::kFile:
            if (e.size > kMaxSize) return invalid(fmt::format("{}: impossible size {}", quoted(e.name), e.size));
            return {};
        case EntryType::kDirectory:
            if (e.size != 0) return invalid(fmt::format("{}: a directory has no size in a tree", quoted(e.name)));
            return {};
        case EntryType::kSymlink:
            if (e.link.empty() || e.link.size() > 0xffff || e.link.find('\0') != std::string::npos) {
                return invalid(fmt::format("{}: bad link text", quoted(e.name)));
            }
            if (e.mode != 0777 || e.size != e.link.size() || e.content != Sha256::of(as_bytes(e.link))) {
                return invalid(fmt::format("{}: mode, size or id do not fit the link text", quoted(e.name)));
            }
            return {};
    }
    return invalid(fmt::format("{}: unknown type {}", quoted(e.name), static_cast<int>(e.type)));
}

Result<TreeEntry> decode_entry(ByteReader& in) {
    TreeEntry e;
    e.name = in.text16();
    e.type = static_cast<EntryType>(in.u8());
    e.mode = in.u16();
    e.size = in.u64();
    e.mtime_ns = in.i64();
    e.content = in.id<AnyId>();
    e.xattrs = in.id<SegmentId>();
    if (e.type == EntryType::kSymlink) e.link = in.text16();
    if (!in.ok()) return make_error(Errc::kCorrupt, "tree: ends within an entry");
    if (auto good = check_entry(e); !good) return make_error(Errc::kCorrupt, "tree: " + good.error().message);
    return e;
}

Status check_xattr(std::string_view name, std::string_view value) {
    if (name.empty() || name.size() > kMaxName || name.find('\0') != std::string_view::npos) {
        return invalid(fmt::format("{}: not a name for an extended attribute", quoted(name)));
    }
    if (name.starts_with(kReservedXattrs)) {
        return invalid(fmt::format("{}: attributes below user.coral are CoralFS's own and not kept", quoted(name)));
    }
    if (value.size() > kMaxXattrValue) {
        return make_error(Errc::kTooLarge, fmt::format("{}: value larger than {} bytes", quoted(name), kMaxXattrValue));
    }
    return {};
}

}  // namespace

bool valid_name(std::string_view name) {
    if (name.empty() || name.size() > kMaxName || name == "." || name == "..") return false;
    return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

const TreeEntry* Tree::find(std::string_view name) const {
    auto at = std::lower_bound(entries.begin(), entries.end(), name,
                               [](const TreeEntry& e, std::string_view n) { return e.name < n; });
    return at != entries.end() && at->name == name ? &*at : nullptr;
}

Status check_tree(const Tree& tree) {
    if (tree.entries.size() > std::numeric_limits<std::uint32_t>::max()) return invalid("tree: too many entries");
    for (std::size_t i = 0; i < tree.entries.size(); ++i) {
        CORAL_CHECK(check_entry(tree.entries[i]));
        // char_traits<char>::lt compares as unsigned char, so this is the bytewise order.
        if (i > 0 && tree.entries[i - 1].name >= tree.entries[i].name) {
            return invalid(fmt::format("{}: twice or out of order in a tree", quoted(tree.entries[i].name)));
        }
    }
    return {};
}

Buffer encode_tree(const Tree& tree) {
    if (auto good = check_tree(tree); !good) throw std::invalid_argument(good.error().message);
    Buffer out;
    ByteWriter w(out);
    w.u32(static_cast<std::uint32_t>(tree.entries.size()));
    for (const TreeEntry& e : tree.entries) {
        w.text16(e.name).u8(static_cast<std::uint8_t>(e.type)).u16(e.mode).u64(e.size).i64(e.mtime_ns);
        w.id(e.content).id(e.xattrs);
        if (e.type == EntryType::kSymlink) w.text16(e.link);
    }
    return out;
}

Result<Tree> decode_tree(Bytes bytes) {
    ByteReader in(bytes);
    std::uint32_t count = in.u32();
    if (!in.ok() || count > in.left() / kMinEntry) return make_error(Errc::kCorrupt, "tree: shorter than its count");
    Tree tree;
    tree.entries.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        CORAL_TRY(TreeEntry e, decode_entry(in));
        if (i > 0 && tree.entries.back().name >= e.name) {
            return make_error(Errc::kCorrupt, fmt::format("tree: {}: twice or out of order", quoted(e.name)));
        }
        tree.entries.push_back(std::move(e));
    }
    if (!in.at_end()) return make_error(Errc::kCorrupt, "tree: bytes after the last entry");
    return tree;
}

Status check_xattrs(const Xattrs& xattrs) {
    std::size_t total = 0;
    for (const auto& [name, value] : xattrs) {
        CORAL_CHECK(check_xattr(name, value));
        total += 2 + name.size() + 4 + value.size();
    }
    if (total > kMaxXattrBytes) return make_error(Errc::kTooLarge, "extended attributes: more than 16 MiB");
    return {};
}

Buffer encode_xattrs(const Xattrs& xattrs) {
    if (auto good = check_xattrs(xattrs); !good) throw std::invalid_argument(good.error().message);
    Buffer out;
    ByteWriter w(out);
    for (const auto& [name, value] : xattrs) {
        w.text16(name).u32(static_cast<std::uint32_t>(value.size())).text(value);
    }
    return out;
}

Result<Xattrs> decode_xattrs(Bytes bytes) {
    if (bytes.size() > kMaxXattrBytes) return make_error(Errc::kCorrupt, "extended attributes: more than 16 MiB");
    ByteReader in(bytes);
    Xattrs xattrs;
    while (in.left() > 0) {
        std::string name = in.text16();
        std::string value(as_text(in.take(in.u32())));
        if (!in.ok()) return make_error(Errc::kCorrupt, "extended attributes: end within a pair");
        if (auto good = check_xattr(name, value); !good) return make_error(Errc::kCorrupt, good.error().message);
        if (!xattrs.empty() && xattrs.rbegin()->first >= name) {
            return make_error(Errc::kCorrupt, "extended attributes: twice or out of order");
        }
        xattrs.emplace_hint(xattrs.end(), std::move(name), std::move(value));
    }
    if (!in.ok()) return make_error(Errc::kCorrupt, "extended attributes: end within a pair");
    return xattrs;
}

}  // namespace coral::repo
