// SPDX-License-Identifier: Apache-2.0
// The tables overlay_unit and overlay_link: which units of a staging file are in it, and what was linked under the
// others (staged_file.hpp). Called in a transaction of the caller's.
#pragma once

#include <cstdint>
#include <vector>

#include "coral/base/ids.hpp"
#include "coral/base/sqlite.hpp"

namespace coral::repo {

struct LinkRow {
    std::uint64_t unit = 0, length = 0;  // first unit; bytes
    FileId content;
    std::uint64_t from = 0;
};

Status enter_units(Database& db, const Uuid& staging, const std::vector<std::uint64_t>& units);
Result<std::vector<std::uint64_t>> units_of(Database& db, const Uuid& staging);

// Newer than all others: its units are in the staging file no more.
Status enter_link(Database& db, const Uuid& staging, const LinkRow& link);
Result<std::vector<LinkRow>> links_of(Database& db, const Uuid& staging);  // from the oldest to the newest
// The file gets smaller: what was linked beyond `size` must not show again when it grows.
Status cut_links(Database& db, const Uuid& staging, std::uint64_t size);

// The staging file goes, or what was written since does not count.
Status forget_units(Database& db, const Uuid& staging);
Status forget_units_of(Database& db, std::uint64_t ino);
// Of files that were removed while they were open, and written to afterwards.
Status forget_stray_units(Database& db);

}  // namespace coral::repo
