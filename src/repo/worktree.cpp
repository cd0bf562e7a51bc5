// SPDX-License-Identifier: Apache-2.0
// Opening a worktree, healing what a crash left, and the table of inodes in use.
#include "coral/repo/worktree.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "coral/base/log.hpp"
#include "repo/overlay_rows.hpp"
#include "repo/worktree_impl.hpp"
#include "repo/worktree_lock.hpp"

namespace coral::repo {
namespace {

// Encoded segments in flight per file being ingested: enough to keep the pool busy while the reader hashes ahead.
std::size_t ingest_window(const ThreadPool& pool) {
    return pool.size() + 2;
}

void bind_or_null(Statement& st, const std::optional<AnyId>& id) {
    if (id)
        st.bind(*id);
    else
        st.bind_null();
}

}  // namespace

Worktree::Worktree(Repository& repo) : repo_(repo) {}

Worktree::Impl::Impl(Worktree& worktree, ThreadPool& pool)
    : tree(worktree),
      repo(worktree.repo_),
      state(repo.state()),
      ingestor(repo.store(), repo.base_index(), pool, ingest_window(pool)),
      boot(repo.os().boot_id()),
      staging_files(std::make_shared<StagingFiles>(repo.os())) {}

std::string Worktree::lock_path(const Repository& repo, const Uuid& worktree) {
    return fmt::format("{}/run/{}.lock", repo.dir(), worktree.text());
}

std::string Worktree::owner_path(const Repository& repo, const Uuid& worktree) {
    return fmt::format("{}/run/{}.owner", repo.dir(), worktree.text());
}

Result<std::shared_ptr<Worktree>> Worktree::open(Repository& repo, const std::string& branch, ThreadPool& pool,
                                                 LockKeeper* locks) {
    if (repo.read_only())
        return make_error(Errc::kReadOnly, fmt::format("{}: the repository is read-only", repo.dir()));
    std::shared_ptr<Worktree> tree(new Worktree(repo));
    tree->impl_ = std::make_unique<Impl>(*tree, pool);
    tree->impl_->locks = locks;
    CORAL_CHECK(tree->impl_->load(branch));
    return tree;
}

Status Worktree::Impl::load(const std::string& branch) {
    CORAL_TRY(Branch found, repo.branch(branch));
    tree.branch_ = branch;
    tree.uuid_ = found.worktree;
    CORAL_CHECK(take_lock());
    CORAL_CHECK(load_row());
    staging_dir = fmt::format("{}/staging/{}", repo.dir(), tree.uuid_.text());
    if (!repo.os().exists(staging_dir)) {
        CORAL_CHECK(repo.os().make_dir(staging_dir));
        CORAL_CHECK(repo.os().sync_dir(path_parent(staging_dir)));
    }
    return heal();
}

// What another process stopped with waits until it is known who has which file open: a staging file that the kernel
// reads must not go, and one whose writer goes on is not complete.
void Worktree::Impl::start_threads() {
    if (ingest_thread.joinable()) return;
    ingest_thread = std::thread([this] { ingest_loop(); });
    reap_thread = std::thread([this] { reap_loop(); });
}

Status Worktree::Impl::take_lock() {
    if (locks) lock_file = locks->inherited(tree.uuid_);
    inherited = lock_file != nullptr;
    if (inherited) return {};
    CORAL_TRY(lock_file, lock_worktree(repo, tree.uuid_));
    if (!lock_file) {
        return make_error(Errc::kBusy,
                          fmt::format("branch {}: another process owns it (a mount of {}?)", tree.branch_, repo.dir()));
    }
    if (locks) locks->keep(tree.uuid_, *lock_file);
    return {};
}

// Under the lock: who deletes or renames a branch holds it, too.
Status Worktree::Impl::load_row() {
    const std::string& branch = tree.branch_;
    bool there = false;
    std::string now;
    std::optional<Row> root;
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT id, root, base_commit, branch FROM worktree WHERE uuid=?");
        st.bind(tree.uuid_);
        CORAL_TRY(there, st.step());
        if (!there) return {};
        row_id = st.integer(0);
        if (!st.is_null(2)) base = st.id<CommitId>(2);
        now = st.text(3);
        CORAL_TRY(root, select_ino(db, st.unsigned_integer(1)));
        return {};
    }));
    if (!there) {
        remove_worktree_lock(repo, tree.uuid_);  // we have just made it anew
        return make_error(Errc::kNotFound, fmt::format("branch {}: it has just been deleted", branch));
    }
    if (now != branch)
        return make_error(Errc::kNotFound, fmt::format("branch {}: it has just been renamed to {}", branch, now));
    if (!root)
        return make_error(Errc::kCorrupt, fmt::format("branch {}: state.db has no root directory for it", branch));
    CORAL_TRY(tree.root_, inode_of(*root, changes));
    return {};
}

Worktree::~Worktree() {
    if (!impl_) return;
    {
        std::lock_guard lock(impl_->queue_mutex);
        impl_->stop = true;
        if (impl_->current) impl_->current->cancel = true;
    }
    impl_->queue_wake.notify_all();
    if (impl_->ingest_thread.joinable()) impl_->ingest_thread.join();
    if (impl_->reap_thread.joinable()) impl_->reap_thread.join();
    impl_->leave_backlog();  // the reaper may have added to it
    impl_->remove_spares(impl_->spares.close());
    impl_->let_hot_go();
    if (!impl_->locks || !impl_->lock_file) return;
    // Closing our descriptor is not enough: the keeper has the same lock.
    if (auto done = impl_->lock_file->unlock(); !done) log_warn("{}", done.error().message);
    impl_->locks->drop(uuid_);
}

void Worktree::observe(ChangeObserver observer) {
    std::lock_guard lock(impl_->observer_mutex);
    impl_->observer = std::move(observer);
}

void Worktree::announce(const InodePtr& dir, const std::string& name, Ino replaced) {
    impl_->changed({{dir->ino, name, replaced}});
}

void Worktree::Impl::changed(const std::vector<std::tuple<Ino, std::string, Ino>>& events) {
    ChangeObserver call;
    {
        std::lock_guard lock(observer_mutex);
        call = observer;
    }
    if (!call) return;
    for (const auto& [parent, name, replaced] : events) call(parent, name, replaced);
}

std::optional<CommitId> Worktree::base_commit() const {
    std::lock_guard lock(impl_->ops_mutex);
    return impl_->base;
}

// ---- healing

Status Worktree::Impl::heal() {
    if (!inherited) CORAL_CHECK(purge_removed());
    std::vector<Ino> ready;
    CORAL_CHECK(heal_rows(ready));
    CORAL_CHECK(drop_stray_staging());
    for (Ino ino : ready) {
        CORAL_TRY(InodePtr inode, load_inode(ino));
        enqueue(inode);
    }
    return inherited ? Status() : tree.resumed();
}

Status Worktree::Impl::heal_rows(std::vector<Ino>& ready) {
    std::vector<Row> rows;
    CORAL_CHECK(state.read([&](Database& db) -> Status {
        Statement st = db.prepare(
            fmt::format("SELECT {} FROM inode WHERE worktree=? AND staging IS NOT NULL ORDER BY ino", kColumns));
        st.bind(row_id);
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            rows.push_back(read_row(st));
        }
    }));
    for (const Row& row : rows) {
        bool resumes = false;
        if (inherited) {
            CORAL_TRY(resumes, resume_row(row, ready));
        }
        if (!resumes) CORAL_CHECK(heal_row(row, ready, lent_before));
    }
    return {};
}

// The packs have the row's content; its staging file goes as a stray one, once packs and row are on the disk. After a
// power cut it must not be asked: its bytes may never have been synced.
Status Worktree::Impl::heal_stored(const Row& row) {
    CORAL_TRY(auto record, repo.store().file(FileId::from(*row.content)));
    return state.write([&](Database& db) -> Status {
        CORAL_CHECK(forget_units(db, *row.staging));
        return db
            .prepare(
                "UPDATE inode SET staging=NULL, ingested=0, complete=1, synced=0, overlay=NULL, overlay_limit=0, "
                "previous=NULL, size=? WHERE ino=?")
            .bind(record->size)
            .bind(row.ino)
            .run();
    });
}

// A killed daemon loses nothing written: the row may be behind, the file is not. No row may go on naming a content that
// the store lacks: `earlier` is what it held before, if that is there.
Status Worktree::Impl::heal_trusted(const Row& row, const FileStat& staged, const std::optional<AnyId>& earlier) {
    return state.write([&](Database& db) -> Status {
        CORAL_CHECK(cut_links(db, *row.staging, staged.size));
        Statement st = db.prepare(
            "UPDATE inode SET content=?, size=?, overlay_limit=min(overlay_limit,?), mtime_ns=max(mtime_ns,?), "
            "boot=?, ingested=0 WHERE ino=?");
        bind_or_null(st, earlier);
        return st.bind(staged.size).bind(staged.size).bind(staged.mtime_ns).bind(boot).bind(row.ino).run();
    });
}

Status Worktree::Impl::heal_earlier(const Row& row, const AnyId& earlier) {
    log_warn(
        "{}: bytes that were not synced before the machine stopped are not trusted; inode {} shows what it held before",
        tree.branch_, row.ino);
    CORAL_TRY(auto record, repo.store().file(FileId::from(earlier)));
    return state.write([&](Database& db) -> Status {
        CORAL_CHECK(forget_units(db, *row.staging));
        return db
            .prepare(
                "UPDATE inode SET staging=NULL, ingested=0, complete=1, synced=0, overlay=NULL, previous=NULL, "
                "content=?, size=? WHERE ino=?")
            .bind(earlier)
            .bind(record->size)
            .bind(row.ino)
            .run();
    });
}

Status Worktree::Impl::heal_incomplete(const Row& row, const FileStat& staged, const std::optional<AnyId>& earlier) {
    log_warn("{}: inode {} was not synced before the machine stopped: marked incomplete", tree.branch_, row.ino);
    return state.write([&](Database& db) -> Status {
        CORAL_CHECK(cut_links(db, *row.staging, staged.size));
        Statement st = db.prepare(
            "UPDATE inode SET content=?, complete=0, ingested=0, size=?, overlay_limit=min(overlay_limit,?), boot=? "
            "WHERE ino=?");
        bind_or_null(st, earlier);
        return st.bind(staged.size).bind(staged.size).bind(boot).bind(row.ino).run();
    });
}

// One row whose bytes were in a staging file when the last owner left or died.
Status Worktree::Impl::heal_row(const Row& row, std::vector<Ino>& ready, std::vector<Ino>& lent) {
    auto staged = repo.os().stat(staging_path(*row.staging));
    if (row.ingested && row.content) {
        CORAL_TRY(bool stored, repo.store().contains(store::Kind::kFile, *row.content));
        if (stored) return heal_stored(row);
    }
    bool partly = staged.ok() && row.boot != boot && row.synced == kPartlySynced;
    bool trusted = staged.ok() && (row.boot == boot || row.synced == kSynced);
    // What it held before; contents that were ingested but whose packs were not synced may be gone with the machine.
    std::optional<AnyId> earlier;
    for (const auto& content : {row.ingested ? std::nullopt : row.content, row.previous}) {
        if (!content || earlier) continue;
        CORAL_TRY(bool stored, repo.store().contains(store::Kind::kFile, *content));
        if (stored) earlier = content;
    }
    if (trusted) {
        CORAL_CHECK(heal_trusted(row, *staged, earlier));
        if (row.complete) ready.push_back(row.ino);
        if (row.lent) lent.push_back(row.ino);
        return {};
    }
    if (earlier && !partly) return heal_earlier(row, *earlier);
    if (staged.ok()) return heal_incomplete(row, *staged, earlier);
    log_warn("{}: inode {} ({}) was created but its bytes never reached the disk: removed", tree.branch_, row.ino,
             row.name);
    return state.write([&](Database& db) -> Status {
        CORAL_CHECK(forget_units(db, *row.staging));
        return db.prepare("DELETE FROM inode WHERE ino=?").bind(row.ino).run();
    });
}

// Staging files that no row names. The folder is this worktree's alone, and we hold its lock.
Status Worktree::Impl::drop_stray_staging() {
    CORAL_TRY(std::vector<std::string> names, repo.os().list_dir(staging_dir));
    if (names.empty()) return {};
    std::set<std::string> named;
    // Rows may have lost their staging in a commit that is not on the disk yet: first make sure that it is.
    CORAL_CHECK(repo.store().sync());
    CORAL_CHECK(state.write_durably([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT staging FROM inode WHERE worktree=? AND staging IS NOT NULL");
        st.bind(row_id);
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            named.insert(st.uuid(0).text());
        }
    }));
    for (const std::string& name : names) {
        if (named.count(name)) continue;
        std::string path = path_join(staging_dir, name);
        // Clients wait for us, and thousands of spare files may have been left.
        if (inherited)
            orphans.push_back({std::move(path), {}, nullptr});
        else
            CORAL_CHECK(repo.os().remove(path));
    }
    return {};
}

// ---- the table

InodePtr Worktree::Impl::cached(Ino ino) {
    std::lock_guard lock(table_mutex);
    auto found = table.find(ino);
    return found == table.end() ? nullptr : found->second.lock();
}

// The one Inode of a row. `changes_before` was read before the row was: when rows have changed since, the row may be
// old and must be read again by the caller (kConflict).
Result<InodePtr> Worktree::Impl::inode_of(const Row& row, std::uint64_t changes_before) {
    if (InodePtr known = cached(row.ino)) return known;
    auto inode = std::make_shared<Inode>(row.ino, row.type);
    inode->parent = row.parent;
    inode->name = row.name;
    inode->mode = row.mode;
    inode->uid = row.uid;
    inode->gid = row.gid;
    inode->size = row.size;
    inode->mtime_ns = inode->atime_ns = row.mtime_ns;
    inode->ctime_ns = row.ctime_ns;
    inode->link = row.link;
    inode->filled = row.filled;
    inode->complete = row.complete;
    if (!row.xattrs.empty()) {
        CORAL_TRY(inode->xattrs, decode_xattrs(row.xattrs));
    }
    if (row.type == EntryType::kFile) {
        if (row.content) inode->content = FileId::from(*row.content);
        inode->ingested = row.ingested;
        inode->synced = row.synced == kSynced;
        // Left by a daemon that died: whoever it had lent the file to may still be writing it.
        inode->loan.unknown_writers = row.staging && !row.complete;
        if (row.staging) {
            auto staged = open_staged(row);
            // The file was ingested and its staging file let go, or it was removed, after the row was read.
            if (!staged && staged.error().code == Errc::kNotFound && changes != changes_before) {
                return make_error(Errc::kConflict, "the row has changed");
            }
            CORAL_TRY(inode->staged, std::move(staged));
        }
    }
    if (row.parent == 0 && tree.root_) {
        inode->unlinked = inode->kept = true;
        pin_contents(inode);
        if (inode->staged) leave_orphan(inode->staged);
    }
    std::lock_guard lock(table_mutex);
    std::weak_ptr<Inode>& slot = table[row.ino];
    if (InodePtr known = slot.lock()) return known;
    if (changes != changes_before) return make_error(Errc::kConflict, "the row has changed");
    slot = inode;
    // Dead entries are swept when the table has doubled: no destructor needs to reach back into it.
    if (table.size() > 4096 && (table.size() & (table.size() - 1)) == 0) {
        std::erase_if(table, [](const auto& entry) { return entry.second.expired(); });
    }
    return inode;
}

Result<InodePtr> Worktree::get(Ino ino) {
    if (InodePtr known = impl_->cached(ino)) return known;
    return impl_->load_inode(ino);
}

Result<InodePtr> Worktree::Impl::load_inode(Ino ino) {
    while (true) {
        std::uint64_t before = changes;
        std::optional<Row> row;
        CORAL_CHECK(state.look_up([&](Database& db) -> Status {
            CORAL_TRY(row, select_ino(db, ino));
            return {};
        }));
        if (!row) return make_error(Errc::kNotFound, fmt::format("inode {} is gone", ino));
        auto inode = inode_of(*row, before);
        if (inode || inode.error().code != Errc::kConflict) return inode;
    }
}

}  // namespace coral::repo
