// SPDX-License-Identifier: Apache-2.0
#include "formats/zip_directory.hpp"

#include <algorithm>
#include <array>

#include "formats/limits.hpp"

namespace coral::formats {

namespace {

constexpr std::uint32_t kLocalMagic = 0x04034b50;
constexpr std::uint32_t kEntryMagic = 0x02014b50;
constexpr std::uint32_t kEndMagic = 0x06054b50;
constexpr std::uint32_t kEnd64Magic = 0x06064b50;
constexpr std::uint32_t kLocator64Magic = 0x07064b50;
constexpr std::uint64_t kLocalSize = 30, kEntrySize = 46, kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20;
constexpr std::uint64_t kMaxComment = 0xffff;
constexpr std::uint32_t kNone32 = 0xffffffff;  // "see the zip64 field"
constexpr std::uint16_t kNone16 = 0xffff;
constexpr std::uint16_t kZip64Extra = 1;
// Encrypted, patched, strongly encrypted, masked directory: the bytes are not the content.
constexpr std::uint16_t kOpaqueFlags = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 13;

// Puts the 64-bit values of the zip64 extra field where the 32-bit ones say so; false when they are not there.
bool resolve_zip64(Bytes extra, std::uint64_t& size, std::uint64_t& stored_size, std::uint64_t& offset) {
    if (size != kNone32 && stored_size != kNone32 && offset != kNone32) return true;
    ByteReader fields(extra);
    while (fields.left() >= 4) {
        const std::uint16_t id = fields.u16();
        Bytes body = fields.take(fields.u16());
        if (!fields.ok() || id != kZip64Extra) continue;
        ByteReader values(body);
        for (std::uint64_t* value : {&size, &stored_size, &offset}) {
            if (*value == kNone32) *value = values.u64();
        }
        return values.ok();
    }
    return false;
}

}  // namespace

struct ZipDirectory::End {
    std::uint64_t count = 0;
    std::uint64_t size = 0;
    std::uint64_t offset = 0;
    std::uint64_t limit = 0;  // what follows the directory starts here
};

// The end record is the last one whose comment reaches exactly to the end of the file.
Result<std::optional<ZipDirectory::End>> ZipDirectory::find_end(const ByteSource& source) {
    const std::uint64_t file_size = source.size();
    if (file_size < kEndSize) return std::optional<End>{};
    Buffer tail(static_cast<std::size_t>(std::min(file_size, kEndSize + kMaxComment)));
    CORAL_CHECK(source.read_at(file_size - tail.size(), tail));
    for (std::size_t at = tail.size() - kEndSize + 1; at-- > 0;) {
        if (load_le<std::uint32_t>(&tail[at]) != kEndMagic) continue;
        if (load_le<std::uint16_t>(&tail[at + 20]) != tail.size() - at - kEndSize) continue;
        ByteReader reader(Bytes(tail).subspan(at + 4));
        const std::uint16_t disk = reader.u16(), directory_disk = reader.u16(), count_here = reader.u16();
        End end;
        end.count = reader.u16();
        end.size = reader.u32();
        end.offset = reader.u32();
        end.limit = file_size - tail.size() + at;
        const bool one_disk = disk == directory_disk && (disk == 0 || disk == kNone16) && count_here == end.count;
        if (!one_disk) return std::optional<End>{};
        return apply_zip64(source, end, end.limit);
    }
    return std::optional<End>{};
}

// A zip64 end record, if there is a locator for one, must agree with whatever the short record does say.
Result<std::optional<ZipDirectory::End>> ZipDirectory::apply_zip64(const ByteSource& source, End end,
                                                                   std::uint64_t end_offset) {
    if (end_offset < kLocator64Size + kEnd64Size) return std::optional<End>(end);
    std::array<std::byte, kLocator64Size> locator;
    CORAL_CHECK(source.read_at(end_offset - kLocator64Size, locator));
    if (load_le<std::uint32_t>(locator.data()) != kLocator64Magic) return std::optional<End>(end);
    ByteReader where(Bytes(locator).subspan(4));
    const std::uint32_t disk = where.u32();
    const std::uint64_t record_offset = where.u64();
    const std::uint32_t disks = where.u32();
    if (disk != 0 || disks > 1 || record_offset > end_offset - kLocator64Size - kEnd64Size) return std::optional<End>{};

    std::array<std::byte, kEnd64Size> raw;
    CORAL_CHECK(source.read_at(record_offset, raw));
    if (load_le<std::uint32_t>(raw.data()) != kEnd64Magic) return std::optional<End>{};
    ByteReader reader(Bytes(raw).subspan(16));
    const std::uint32_t this_disk = reader.u32(), directory_disk = reader.u32();
    const std::uint64_t count_here = reader.u64();
    End end64;
    end64.count = reader.u64();
    end64.size = reader.u64();
    end64.offset = reader.u64();
    end64.limit = record_offset;
    const bool agrees = this_disk == 0 && directory_disk == 0 && count_here == end64.count &&
                        (end.count == kNone16 || end.count == end64.count) &&
                        (end.size == kNone32 || end.size == end64.size) &&
                        (end.offset == kNone32 || end.offset == end64.offset);
    if (!agrees) return std::optional<End>{};
    return std::optional<End>(end64);
}

bool ZipDirectory::parse_entries(std::uint64_t count) {
    ByteReader reader(raw_);
    members_.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
        if (reader.u32() != kEntryMagic) return false;
        reader.take(4);  // versions
        const std::uint16_t flags = reader.u16(), method = reader.u16();
        reader.take(8);  // time, date, CRC
        std::uint64_t stored_size = reader.u32(), size = reader.u32();
        const std::uint16_t name_length = reader.u16(), extra_length = reader.u16(), comment_length = reader.u16();
        reader.take(8);  // disk, attributes
        std::uint64_t offset = reader.u32();
        ZipMember member;
        member.name = as_text(reader.take(name_length));
        Bytes extra = reader.take(extra_length);
        reader.take(comment_length);
        if (!reader.ok() || name_length == 0 || !resolve_zip64(extra, size, stored_size, offset)) return false;
        member.header_offset = offset;
        member.size = stored_size;
        member.stored = method == 0 && (flags & kOpaqueFlags) == 0 && size == stored_size;
        members_.push_back(member);
    }
    return reader.at_end();
}

// The local header's own lengths decide where the bytes start; its sizes may be zero (data descriptor) and are ignored.
Result<bool> ZipDirectory::read_local_headers(const ByteSource& source, std::uint64_t directory_offset) {
    Buffer header;
    for (ZipMember& member : members_) {
        const std::uint64_t needed = kLocalSize + member.name.size();
        if (member.header_offset > directory_offset || needed > directory_offset - member.header_offset) return false;
        header.resize(static_cast<std::size_t>(needed));
        CORAL_CHECK(source.read_at(member.header_offset, header));
        if (load_le<std::uint32_t>(header.data()) != kLocalMagic) return false;
        const std::uint64_t name_length = load_le<std::uint16_t>(&header[26]);
        const std::uint64_t extra_length = load_le<std::uint16_t>(&header[28]);
        member.offset = member.header_offset + kLocalSize + name_length + extra_length;
        if (member.offset > directory_offset || member.size > directory_offset - member.offset) return false;
        // Programs that walk the headers instead of the directory would see another member here.
        const bool same =
            as_text(Bytes(header).subspan(kLocalSize)) == member.name && name_length == member.name.size();
        if (!same) member.stored = false;
    }
    return true;
}

bool ZipDirectory::sort_members(std::uint64_t directory_offset) {
    std::sort(members_.begin(), members_.end(),
              [](const ZipMember& a, const ZipMember& b) { return a.header_offset < b.header_offset; });
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const std::uint64_t next = i + 1 < members_.size() ? members_[i + 1].header_offset : directory_offset;
        if (members_[i].offset + members_[i].size > next) return false;
    }
    std::sort(members_.begin(), members_.end(), [](const ZipMember& a, const ZipMember& b) { return a.name < b.name; });
    return std::adjacent_find(members_.begin(), members_.end(), [](const ZipMember& a, const ZipMember& b) {
               return a.name == b.name;
           }) == members_.end();
}

Result<std::optional<ZipDirectory>> ZipDirectory::read(const ByteSource& source) {
    std::array<std::byte, 4> magic;
    if (source.size() < magic.size()) return std::optional<ZipDirectory>{};
    CORAL_CHECK(source.read_at(0, magic));
    if (load_le<std::uint32_t>(magic.data()) != kLocalMagic) return std::optional<ZipDirectory>{};
    CORAL_TRY(std::optional<End> end, find_end(source));
    if (!end || end->count == 0 || end->count > kMaxZipMembers || end->size > kMaxZipDirectory ||
        end->count > end->size / kEntrySize || end->offset > end->limit || end->size > end->limit - end->offset) {
        return std::optional<ZipDirectory>{};
    }
    ZipDirectory directory;
    directory.raw_.resize(static_cast<std::size_t>(end->size));
    CORAL_CHECK(source.read_at(end->offset, directory.raw_));
    if (!directory.parse_entries(end->count)) return std::optional<ZipDirectory>{};
    directory.first_name_ = directory.members_.front().name;
    CORAL_TRY(bool headers_ok, directory.read_local_headers(source, end->offset));
    if (!headers_ok || !directory.sort_members(end->offset)) return std::optional<ZipDirectory>{};
    return std::optional<ZipDirectory>(std::move(directory));
}

const ZipMember* ZipDirectory::find(std::string_view name) const {
    auto it = std::lower_bound(members_.begin(), members_.end(), name,
                               [](const ZipMember& member, std::string_view n) { return member.name < n; });
    return it != members_.end() && it->name == name ? &*it : nullptr;
}

std::pair<std::size_t, std::size_t> ZipDirectory::range(std::string_view prefix) const {
    auto first = std::lower_bound(members_.begin(), members_.end(), prefix,
                                  [](const ZipMember& member, std::string_view n) { return member.name < n; });
    auto last = std::partition_point(first, members_.end(),
                                     [prefix](const ZipMember& member) { return member.name.starts_with(prefix); });
    return {static_cast<std::size_t>(first - members_.begin()), static_cast<std::size_t>(last - members_.begin())};
}

}  // namespace coral::formats
