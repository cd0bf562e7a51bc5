// SPDX-License-Identifier: Apache-2.0
// The members of a zip file and where their bytes lie. Nothing is ever inflated: a compressed member has a name and no
// bytes. Spec: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3 (zip64).
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "coral/formats/layout.hpp"

namespace coral::formats {

struct ZipMember {
    std::string_view name;            // into the directory that holds it; not a path, any bytes
    std::uint64_t header_offset = 0;  // of the local header
    std::uint64_t offset = 0;         // of the bytes
    std::uint64_t size = 0;           // of the bytes as they lie in the file
    bool stored = false;              // neither compressed nor encrypted: the bytes are the content
};

class ZipDirectory {
  public:
    // Nothing unless the file starts with a member and its directory is whole and unambiguous: every member inside the
    // file and before the directory, none overlapping, no name twice. Size lies are found before they allocate.
    static Result<std::optional<ZipDirectory>> read(const ByteSource& source);

    ZipDirectory(ZipDirectory&&) = default;
    ZipDirectory& operator=(ZipDirectory&&) = default;

    std::span<const ZipMember> members() const { return members_; }  // sorted by name
    const ZipMember* find(std::string_view name) const;
    // Members whose name starts with `prefix`, as indexes into members().
    std::pair<std::size_t, std::size_t> range(std::string_view prefix) const;
    // Of the member that the directory lists first: torch takes the archive's name from it.
    std::string_view first_name() const { return first_name_; }

  private:
    struct End;
    ZipDirectory() = default;

    static Result<std::optional<End>> find_end(const ByteSource& source);
    static Result<std::optional<End>> apply_zip64(const ByteSource& source, End end, std::uint64_t end_offset);
    bool parse_entries(std::uint64_t count);
    Result<bool> read_local_headers(const ByteSource& source, std::uint64_t directory_offset);
    bool sort_members(std::uint64_t directory_offset);

    Buffer raw_;  // the central directory; names point into it
    std::vector<ZipMember> members_;
    std::string_view first_name_;
};

}  // namespace coral::formats
