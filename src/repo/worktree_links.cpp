// SPDX-License-Identifier: Apache-2.0
// Contents of a worktree's files that come from the store without their bytes: a whole one (place_content), or ranges
// of several, which show through a staging file (staged_file.hpp) until ingest reads them.
#include <algorithm>

#include "coral/base/log.hpp"
#include "repo/overlay_rows.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {
namespace {

// A link costs a transaction, and some decoding of what is at its ends; fewer bytes are copied as fast.
constexpr std::uint64_t kLeastLinked = 2 * StagedFile::kUnit;
static_assert(Worktree::kLinkUnit == StagedFile::kUnit);
// For units there is a byte in memory each, and a row for each link: what is behind that is copied.
constexpr std::uint64_t kMostLinked = std::uint64_t{1} << 40;
constexpr std::size_t kMostLinks = 1u << 16;

}  // namespace

std::function<Status(const std::vector<std::uint64_t>&)> Worktree::Impl::unit_writer(const Uuid& staging) {
    return [this, staging](const std::vector<std::uint64_t>& units) {
        return state.write([&](Database& db) { return enter_units(db, staging, units); });
    };
}

// A damaged record: what it would show cannot be read, but the file has a name still, and can be removed.
Result<std::shared_ptr<const store::FileRecord>> Worktree::Impl::record_below(const FileId& id, std::uint64_t size) {
    auto record = repo.store().file(id);
    if (record || (record.error().code != Errc::kCorrupt && record.error().code != Errc::kNotFound)) return record;
    log_error("{}: what lies below a file that is not stored yet cannot be read: {}", tree.branch_,
              record.error().message);
    auto unreadable = std::make_shared<store::FileRecord>();
    unreadable->id = id;
    unreadable->size = size;
    return std::shared_ptr<const store::FileRecord>(std::move(unreadable));
}

Result<std::shared_ptr<StagedFile>> Worktree::Impl::open_staged(const Row& row) {
    std::string path = staging_path(*row.staging);
    CORAL_TRY(FileStat stat, repo.os().stat(path));
    auto staged = std::make_shared<StagedFile>(*row.staging, path, staging_files, stat.size);
    if (row.synced != 0) staged->promise();
    std::vector<std::uint64_t> units;
    std::vector<LinkRow> rows;
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        CORAL_TRY(units, units_of(db, *row.staging));
        CORAL_TRY(rows, links_of(db, *row.staging));
        return {};
    }));
    if (!row.overlay && rows.empty()) return staged;
    StagedFile::Overlay overlay;
    overlay.store = &repo.store();
    if (row.overlay) {
        CORAL_TRY(overlay.record, record_below(FileId::from(*row.overlay), row.overlay_limit));
    }
    overlay.limit = row.overlay_limit;
    overlay.enter_units = unit_writer(*row.staging);
    std::vector<StagedFile::Link> links;
    for (const LinkRow& link : rows) {
        CORAL_TRY(auto record, record_below(link.content, link.from + link.length));
        links.push_back({link.unit, link.length, link.from, std::move(record)});
    }
    staged->set_overlay(std::move(overlay), units, links);
    return staged;
}

// ---- ranges

Result<Worktree::Range> Worktree::link_content(const InodePtr& to, std::uint64_t offset, std::uint64_t length,
                                               const FileId& content, std::uint64_t from) {
    std::uint64_t end = 0;
    if (!checked_add(offset, length, end) || end > kMostLinked || length < kLeastLinked) return Range{};
    // The source may be open and have no name any more.
    CORAL_TRY(store::Session session, repo_.store().session());
    CORAL_TRY(bool stored, repo_.store().contains(store::Kind::kFile, AnyId::from(content)));
    if (!stored) return Range{};
    StagedFile::Link link;
    CORAL_TRY(link.record, repo_.store().file(content));
    if (from > link.record->size || length > link.record->size - from) return Range{};
    // What the link names must not be lost with the power while the link stays.
    CORAL_CHECK(repo_.store().sync());
    std::shared_ptr<StagedFile> staged;
    while (!staged) {
        {
            std::lock_guard lock(to->mutex);
            if (to->staged && !to->complete && !to->ingested) staged = to->staged;
        }
        if (!staged) CORAL_CHECK(impl_->begin_write(to));
    }
    Range done;
    InFlight change;
    {
        StagedFile::Alone alone(*staged);
        const auto [begin, stop] = staged->whole_units(offset, length);
        if (stop - begin < kLeastLinked || staged->times_linked() >= kMostLinks) return Range{};
        link.unit = begin / StagedFile::kUnit;
        link.length = stop - begin;
        link.from = from + (begin - offset);
        CORAL_TRY(bool linked, impl_->link_alone(to, staged, link, change));
        if (!linked) return Range{};
        done = {begin, link.length};
    }
    CORAL_CHECK(impl_->finish_write(to, staged));
    return done;
}

// No write is under way in `staged`. False: the file cannot have links, or has another staging file by now.
Result<bool> Worktree::Impl::link_alone(const InodePtr& to, const std::shared_ptr<StagedFile>& staged,
                                        const StagedFile::Link& link, InFlight& change) {
    std::lock_guard ops(ops_mutex);
    {
        std::lock_guard lock(to->mutex);
        if (to->unlinked || to->staged != staged || to->complete || to->ingested) return false;
        if (to->loan.readers > 0 || to->loan.may_be_written()) return false;
        to->synced = false;
        ++to->generation;
        change.begin(to);
    }
    // First the size, which is that of the file below: a link beyond it would show when the file grows. Ours may be
    // ahead of it, when an append that had its room found none on the disk.
    CORAL_TRY(auto file, staged->file());
    CORAL_TRY(const FileStat below, file->stat());
    const std::uint64_t before = below.size, end = link.unit * StagedFile::kUnit + link.length;
    if (end > before) CORAL_CHECK(file->truncate(end));
    Status noted = state.write([&](Database& db) {
        return enter_link(db, staged->uuid(), {link.unit, link.length, link.record->id, link.from});
    });
    if (!noted && end > before) (void)file->truncate(before);
    CORAL_CHECK(noted);
    StagedFile::Overlay overlay;
    overlay.store = &repo.store();
    overlay.enter_units = unit_writer(staged->uuid());
    staged->show(link, overlay);
    return true;
}

// ---- whole files

Status Worktree::place_content(const InodePtr& to, const FileId& content, std::uint64_t size) {
    // The source may be open and have no name any more.
    CORAL_TRY(store::Session session, repo_.store().session());
    CORAL_TRY(bool stored, repo_.store().contains(store::Kind::kFile, AnyId::from(content)));
    if (!stored) return make_error(Errc::kUnsupported, "the source's content is not in the store any more");
    std::lock_guard ops(impl_->ops_mutex);
    return impl_->place_content_locked(to, content, size);
}

Status Worktree::Impl::place_content_locked(const InodePtr& to, const FileId& content, std::uint64_t size) {
    std::shared_ptr<StagedFile> orphan;
    {
        std::lock_guard lock(to->mutex);
        if (to->type != EntryType::kFile || to->unlinked)
            return make_error(Errc::kUnsupported, "the target has been removed");
        if (to->loan.readers + to->loan.writers > 0)
            return make_error(Errc::kUnsupported, "the kernel reads or writes the target itself");
        if (to->writers > 1) return make_error(Errc::kUnsupported, "the target is open elsewhere");
        orphan = to->staged;
    }
    // The content may rest on packs that are not synced: so may `to` from now on.
    CORAL_CHECK(repo.store().sync());
    std::int64_t now = now_ns();
    CORAL_CHECK(state.write([&](Database& db) -> Status {
        CORAL_CHECK(forget_units_of(db, to->ino));
        CORAL_CHECK(
            db.prepare(
                  "UPDATE inode SET content=?, size=?, mtime_ns=?, ctime_ns=?, staging=NULL, ingested=0, complete=1, "
                  "synced=0, overlay=NULL WHERE ino=?")
                .bind(content)
                .bind(size)
                .bind(now)
                .bind(now)
                .bind(to->ino)
                .run());
        Statement above =
            db.prepare("SELECT p.ino, p.mtime_ns FROM inode i JOIN inode p ON p.ino=i.parent WHERE i.ino=?");
        above.bind(to->ino);
        CORAL_TRY(bool there, above.step());
        return there ? touch_directory(db, above.unsigned_integer(0), above.integer(1)) : Status();
    }));
    ++changes;
    {
        std::lock_guard lock(to->mutex);
        to->content = content;
        to->staged = nullptr;
        to->size = size;
        to->complete = true;
        to->ingested = false;
        to->mtime_ns = to->ctime_ns = now;
        ++to->generation;
    }
    if (orphan) leave_orphan(orphan);
    return {};
}

}  // namespace coral::repo
