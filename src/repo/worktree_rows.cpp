// SPDX-License-Identifier: Apache-2.0
// Rows of the table `inode` (schema.cpp).
#include <fmt/format.h>

#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

std::optional<AnyId> optional_id(const Statement& st, int column) {
    if (st.is_null(column)) return std::nullopt;
    return st.id<AnyId>(column);
}

void bind_id(Statement& st, const std::optional<AnyId>& id) {
    if (id)
        st.bind(*id);
    else
        st.bind_null();
}

Result<std::optional<Row>> one(Statement& st) {
    CORAL_TRY(bool found, st.step());
    if (!found) return std::optional<Row>();
    return std::optional<Row>(read_row(st));
}

const std::string& select_sql(std::string_view where) {
    thread_local std::map<std::string, std::string, std::less<>> texts;
    auto found = texts.find(where);
    if (found == texts.end()) {
        found = texts.emplace(std::string(where), fmt::format("SELECT {} FROM inode WHERE {}", kColumns, where)).first;
    }
    return found->second;
}

}  // namespace

FileType file_type(EntryType type) {
    switch (type) {
        case EntryType::kFile:
            return FileType::kRegular;
        case EntryType::kDirectory:
            return FileType::kDirectory;
        case EntryType::kSymlink:
            return FileType::kSymlink;
    }
    return FileType::kOther;
}

Row read_row(const Statement& st) {
    Row row;
    row.ino = st.unsigned_integer(0);
    row.parent = st.unsigned_integer(1);
    row.name = std::string(as_text(st.blob(2)));
    row.type = static_cast<EntryType>(st.integer(3));
    row.mode = static_cast<std::uint32_t>(st.integer(4));
    row.uid = static_cast<std::uint32_t>(st.integer(5));
    row.gid = static_cast<std::uint32_t>(st.integer(6));
    row.size = st.unsigned_integer(7);
    row.mtime_ns = st.integer(8);
    row.ctime_ns = st.integer(9);
    row.content = optional_id(st, 10);
    row.link = std::string(as_text(st.blob(11)));
    Bytes xattrs = st.blob(12);
    row.xattrs.assign(xattrs.begin(), xattrs.end());
    row.filled = st.integer(13) != 0;
    row.dirty = st.integer(14) != 0;
    row.version = st.unsigned_integer(15);
    if (!st.is_null(16)) row.staging = st.uuid(16);
    row.ingested = st.integer(17) != 0;
    row.complete = st.integer(18) == kComplete;
    row.lent = st.integer(18) == kLent;
    row.synced = st.integer(19);
    row.boot = st.text(20);
    row.overlay = optional_id(st, 21);
    row.overlay_limit = st.unsigned_integer(22);
    row.previous = optional_id(st, 23);
    return row;
}

Result<std::optional<Row>> select_ino(Database& db, Ino ino) {
    Statement st = db.prepare(select_sql("ino=?"));
    st.bind(ino);
    return one(st);
}

Result<std::optional<Row>> select_child(Database& db, Ino parent, std::string_view name) {
    Statement st = db.prepare(select_sql("parent=? AND name=? AND parent!=0"));
    st.bind(parent).bind(as_bytes(name));
    return one(st);
}

Result<std::vector<Row>> select_children(Database& db, Ino parent) {
    Statement st = db.prepare(select_sql("parent=? AND parent!=0 ORDER BY name"));
    st.bind(parent);
    std::vector<Row> rows;
    while (true) {
        CORAL_TRY(bool more, st.step());
        if (!more) return rows;
        rows.push_back(read_row(st));
    }
}

Result<Ino> insert_row(Database& db, std::int64_t worktree, const Row& row) {
    Statement st = db.prepare(
        "INSERT INTO "
        "inode(worktree,parent,name,type,mode,uid,gid,size,mtime_ns,ctime_ns,content,link,xattrs,filled,dirty,"
        "version,staging,ingested,complete,synced,boot,overlay,overlay_limit,previous) "
        "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
    st.bind(worktree).bind(row.parent).bind(as_bytes(row.name)).bind(static_cast<std::int64_t>(row.type));
    st.bind(row.mode).bind(row.uid).bind(row.gid).bind(row.size).bind(row.mtime_ns).bind(row.ctime_ns);
    bind_id(st, row.content);
    st.bind(as_bytes(row.link));
    if (row.xattrs.empty())
        st.bind_null();
    else
        st.bind(Bytes(row.xattrs));
    st.bind(row.filled).bind(row.dirty).bind(row.version);
    if (row.staging)
        st.bind(*row.staging);
    else
        st.bind_null();
    st.bind(row.ingested).bind(row.complete).bind(row.synced).bind(row.boot);
    bind_id(st, row.overlay);
    st.bind(row.overlay_limit);
    bind_id(st, row.previous);
    CORAL_CHECK(st.run());
    return static_cast<Ino>(db.last_insert_rowid());
}

Status Worktree::Impl::touch_file(const InodePtr& inode) {
    const std::int64_t now = now_ns();
    CORAL_CHECK(state.write([&](Database& db) {
        return db.prepare("UPDATE inode SET mtime_ns=?, ctime_ns=? WHERE ino=?")
            .bind(now)
            .bind(now)
            .bind(inode->ino)
            .run();
    }));
    ++changes;
    std::lock_guard lock(inode->mutex);
    inode->mtime_ns = inode->ctime_ns = now;
    return {};
}

}  // namespace coral::repo
