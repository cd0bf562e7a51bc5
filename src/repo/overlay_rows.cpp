// SPDX-License-Identifier: Apache-2.0
#include "repo/overlay_rows.hpp"

#include <fmt/format.h>

#include <optional>

#include "repo/staged_file.hpp"

namespace coral::repo {

Status enter_units(Database& db, const Uuid& staging, const std::vector<std::uint64_t>& units) {
    for (std::uint64_t unit : units) {
        CORAL_CHECK(
            db.prepare("INSERT OR IGNORE INTO overlay_unit(staging, unit) VALUES(?,?)").bind(staging).bind(unit).run());
    }
    return {};
}

Result<std::vector<std::uint64_t>> units_of(Database& db, const Uuid& staging) {
    std::vector<std::uint64_t> units;
    Statement st = db.prepare("SELECT unit FROM overlay_unit WHERE staging=?");
    st.bind(staging);
    while (true) {
        CORAL_TRY(bool more, st.step());
        if (!more) return units;
        units.push_back(st.unsigned_integer(0));
    }
}

Status enter_link(Database& db, const Uuid& staging, const LinkRow& link) {
    const std::uint64_t end = link.unit * StagedFile::kUnit + link.length;
    CORAL_CHECK(db.prepare("DELETE FROM overlay_unit WHERE staging=? AND unit>=? AND unit*?<?")
                    .bind(staging)
                    .bind(link.unit)
                    .bind(StagedFile::kUnit)
                    .bind(end)
                    .run());
    // Who links the same range again and again must not leave a row each time.
    CORAL_CHECK(db.prepare("DELETE FROM overlay_link WHERE staging=? AND unit>=? AND unit*?+length<=?")
                    .bind(staging)
                    .bind(link.unit)
                    .bind(StagedFile::kUnit)
                    .bind(end)
                    .run());
    return db.prepare("INSERT INTO overlay_link(staging, unit, length, content, source) VALUES(?,?,?,?,?)")
        .bind(staging)
        .bind(link.unit)
        .bind(link.length)
        .bind(link.content)
        .bind(link.from)
        .run();
}

Result<std::vector<LinkRow>> links_of(Database& db, const Uuid& staging) {
    std::vector<LinkRow> links;
    Statement st = db.prepare("SELECT unit, length, content, source FROM overlay_link WHERE staging=? ORDER BY seq");
    st.bind(staging);
    while (true) {
        CORAL_TRY(bool more, st.step());
        if (!more) return links;
        links.push_back({st.unsigned_integer(0), st.unsigned_integer(1), st.id<FileId>(2), st.unsigned_integer(3)});
    }
}

Status cut_links(Database& db, const Uuid& staging, std::uint64_t size) {
    CORAL_CHECK(db.prepare("DELETE FROM overlay_link WHERE staging=? AND unit*?>=?")
                    .bind(staging)
                    .bind(StagedFile::kUnit)
                    .bind(size)
                    .run());
    return db.prepare("UPDATE overlay_link SET length=min(length, ?-unit*?) WHERE staging=?")
        .bind(size)
        .bind(StagedFile::kUnit)
        .bind(staging)
        .run();
}

Status forget_units(Database& db, const Uuid& staging) {
    CORAL_CHECK(db.prepare("DELETE FROM overlay_unit WHERE staging=?").bind(staging).run());
    return db.prepare("DELETE FROM overlay_link WHERE staging=?").bind(staging).run();
}

Status forget_units_of(Database& db, std::uint64_t ino) {
    std::optional<Uuid> staging;
    {
        Statement st = db.prepare("SELECT staging FROM inode WHERE ino=? AND staging IS NOT NULL");
        st.bind(ino);
        CORAL_TRY(bool there, st.step());
        if (there) staging = st.uuid(0);
    }
    return staging ? forget_units(db, *staging) : Status();
}

Status forget_stray_units(Database& db) {
    for (const char* noted : {"overlay_unit", "overlay_link"}) {
        CORAL_CHECK(db.prepare(fmt::format("DELETE FROM {} WHERE staging NOT IN (SELECT staging FROM inode WHERE "
                                           "staging IS NOT NULL)",
                                           noted))
                        .run());
    }
    return {};
}

}  // namespace coral::repo
