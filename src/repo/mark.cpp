// SPDX-License-Identifier: Apache-2.0
#include "repo/mark.hpp"

#include <fmt/format.h>

#include "repo/pins.hpp"
#include "repo/refs.hpp"
#include "repo/state.hpp"

namespace coral::repo {
namespace {

using store::Kind;

Error damaged(Error error) {
    Errc code = error.code == Errc::kNotFound ? Errc::kCorrupt : error.code;
    return make_error(
        code, fmt::format("the repository is damaged, so nothing is removed: {}; see `coral fsck`", error.message));
}

}  // namespace

Status Marker::read_commits(Database& db) {
    CORAL_TRY(std::string head, read_head(db));
    if (auto id = CommitId::from_hex(head)) roots_.push_back(AnyId::from(*id));
    Statement st = db.prepare(
        "SELECT target FROM refs UNION SELECT base_commit FROM worktree WHERE base_commit IS NOT NULL UNION "
        "SELECT old_target FROM reflog WHERE time_ns >= ?1 AND old_target IS NOT NULL UNION "
        "SELECT new_target FROM reflog WHERE time_ns >= ?1 AND new_target IS NOT NULL");
    st.bind(reflog_from_);
    while (true) {
        CORAL_TRY(bool row, st.step());
        if (!row) return {};
        roots_.push_back(st.id<AnyId>(0));
    }
}

Status Marker::read_rows(Database& db) {
    CORAL_CHECK(read_links(db));
    Statement st = db.prepare(
        "SELECT type, content, overlay, previous, staging IS NOT NULL, ingested FROM inode "
        "WHERE content IS NOT NULL OR overlay IS NOT NULL OR previous IS NOT NULL");
    while (true) {
        CORAL_TRY(bool row, st.step());
        if (!row) return {};
        if (st.integer(0) == static_cast<int>(EntryType::kDirectory)) {
            if (!st.is_null(1)) add_tree(st.id<TreeId>(1));
            continue;
        }
        bool staged = st.integer(4) != 0, ingested = st.integer(5) != 0;
        for (int column : {1, 2, 3}) {
            bool may_lack = staged && (column != 2 || ingested);
            if (!st.is_null(column)) files_.push_back({st.id<FileId>(column), may_lack});
        }
    }
}

// Packs are on the disk before a link is made to what they hold.
Status Marker::read_links(Database& db) {
    Statement st = db.prepare("SELECT DISTINCT content FROM overlay_link");
    while (true) {
        CORAL_TRY(bool row, st.step());
        if (!row) return {};
        files_.push_back({st.id<FileId>(0), false});
    }
}

// All of one moment. What processes use comes after it: a name goes only once its content is pinned.
Status Marker::read_names() {
    roots_.clear();
    files_.clear();
    CORAL_CHECK(repo_.state().read([&](Database& db) -> Status {
        CORAL_CHECK(read_commits(db));
        return read_rows(db);
    }));
    CORAL_TRY(std::vector<FileId> pinned, Pins::all(repo_.os(), path_join(repo_.dir(), "run")));
    // Whoever opened one that was on its way out may meet an error; those that are there stay.
    for (const FileId& id : pinned) files_.push_back({id, true});
    return {};
}

Status Marker::run() {
    CORAL_CHECK(read_names());
    for (const AnyId& root : roots_) CORAL_CHECK(follow_root(root));
    CORAL_CHECK(drain());
    for (const Named& named : files_) CORAL_CHECK(follow_file(named.file, named.may_lack));
    return {};
}

// A reflog does not say whether it was a tag object.
Status Marker::follow_root(const AnyId& target) {
    CORAL_TRY(bool tag, repo_.store().contains(Kind::kTag, target));
    if (!tag) {
        add_commit(CommitId::from(target));
        return {};
    }
    if (!live_.add(Kind::kTag, target)) return {};
    auto object = repo_.tag(TagId::from(target));
    if (!object) return damaged(std::move(object).error());
    add_commit((*object)->target);
    return {};
}

void Marker::add_commit(const CommitId& id) {
    if (live_.add(Kind::kCommit, AnyId::from(id))) commits_.push_back(id);
}

void Marker::add_tree(const TreeId& id) {
    if (live_.add(Kind::kTree, AnyId::from(id))) trees_.push_back(id);
}

// Trees first: the list of commits holds little, that of trees one commit's worth.
Status Marker::drain() {
    while (!commits_.empty() || !trees_.empty()) {
        if (cancelled_ && cancelled_()) return make_error(Errc::kConflict, "interrupted");
        if (!trees_.empty()) {
            TreeId id = trees_.back();
            trees_.pop_back();
            CORAL_CHECK(follow_tree(id));
            continue;
        }
        CommitId id = commits_.back();
        commits_.pop_back();
        CORAL_CHECK(follow_commit(id));
    }
    return {};
}

Status Marker::follow_commit(const CommitId& id) {
    auto raw = repo_.store().object(Kind::kCommit, AnyId::from(id));
    if (!raw) return damaged(std::move(raw).error());
    auto commit = decode_commit(*raw);
    if (!commit) return damaged(std::move(commit).error().with(id.hex()));
    add_tree(commit->tree);
    for (const CommitId& parent : commit->parents) add_commit(parent);
    return {};
}

Status Marker::follow_tree(const TreeId& id) {
    auto raw = repo_.store().object(Kind::kTree, AnyId::from(id));
    if (!raw) return damaged(std::move(raw).error());
    auto tree = decode_tree(*raw);
    if (!tree) return damaged(std::move(tree).error().with(id.hex()));
    for (const TreeEntry& entry : tree->entries) {
        if (!entry.xattrs.is_zero()) live_.add(Kind::kSegment, AnyId::from(entry.xattrs));
        if (entry.type == EntryType::kDirectory) add_tree(TreeId::from(entry.content));
        if (entry.type == EntryType::kFile) CORAL_CHECK(follow_file(FileId::from(entry.content), false));
    }
    return {};
}

Status Marker::follow_file(const FileId& id, bool may_lack) {
    if (live_.contains(Kind::kFile, AnyId::from(id))) return {};
    auto record = repo_.store().file(id);
    if (!record) {
        if (record.error().code == Errc::kNoData) return {};  // dropped on purpose
        if (may_lack && record.error().code == Errc::kNotFound) return {};
        return damaged(std::move(record).error());
    }
    live_.add(Kind::kFile, AnyId::from(id));
    for (const SegmentId& segment : (*record)->segments) live_.add(Kind::kSegment, AnyId::from(segment));
    return {};
}

}  // namespace coral::repo
