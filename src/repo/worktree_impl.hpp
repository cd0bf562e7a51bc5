// SPDX-License-Identifier: Apache-2.0
// Private to worktree*.cpp: the inode, its row, and what a Worktree keeps.
//
// Locks, in order: ops_mutex_ (one change of names or rows at a time; SQLite has one writer anyway) > State's writer >
// Inode::mutex > table_mutex_ > queue_mutex_. Only ops_mutex_ and State's writer are held across I/O, and only SQLite's
// own; reading and writing file contents, decoding, ingest and callbacks run with no lock at all.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <thread>
#include <unordered_map>

#include "coral/base/sqlite.hpp"
#include "coral/repo/worktree.hpp"
#include "repo/spare_files.hpp"
#include "repo/staged_file.hpp"
#include "repo/state.hpp"

namespace coral::repo {

// Settled staging that is worth a sync before its time.
inline constexpr std::uint64_t kReapBytes = 256u << 20;

// inode.synced: how much of the staging file is known to be on the disk.
inline constexpr std::int64_t kUnsynced = 0, kSynced = 1, kPartlySynced = 2;
// inode.complete: kLent is incomplete to everybody but the owner after a crash, who asks the kernel.
inline constexpr std::int64_t kIncomplete = 0, kComplete = 1, kLent = 2;

// A row of `inode`, in the order of kColumns.
struct Row {
    Ino ino = 0, parent = 0;
    std::string name;
    EntryType type = EntryType::kFile;
    std::uint32_t mode = 0, uid = 0, gid = 0;
    std::uint64_t size = 0;
    std::int64_t mtime_ns = 0, ctime_ns = 0;
    std::optional<AnyId> content;
    std::string link;
    Buffer xattrs;
    bool filled = false, dirty = false;
    std::uint64_t version = 0;
    std::optional<Uuid> staging;
    bool ingested = false, complete = true, lent = false;
    std::int64_t synced = kUnsynced;
    std::string boot;
    std::optional<AnyId> overlay;
    std::uint64_t overlay_limit = 0;
    std::optional<AnyId> previous;
};

inline constexpr std::string_view kColumns =
    "ino,parent,name,type,mode,uid,gid,size,mtime_ns,ctime_ns,content,link,xattrs,filled,dirty,version,staging,"
    "ingested,"
    "complete,synced,boot,overlay,overlay_limit,previous";

Row read_row(const Statement& st);
Result<std::optional<Row>> select_ino(Database& db, Ino ino);
Result<std::optional<Row>> select_child(Database& db, Ino parent, std::string_view name);
Result<std::vector<Row>> select_children(Database& db, Ino parent);
// Inserts with a fresh inode number, which it returns.
Result<Ino> insert_row(Database& db, std::int64_t worktree, const Row& row);
FileType file_type(EntryType type);

// A dirty directory at one moment. Clean subdirectories stand in `rows` with their tree id only.
struct DirSnapshot {
    Row row;
    std::vector<Row> rows;                            // sorted by name
    std::vector<std::unique_ptr<DirSnapshot>> dirty;  // of the directories among rows, in their order
    TreeId tree;                                      // set by build
};

// Its content is in the store, under the id that the row names.
inline bool is_ready(const Row& row) {
    return row.content && (!row.staging || row.ingested);
}
inline std::string join_names(const std::string& path, const std::string& name) {
    return path.empty() ? name : path + "/" + name;
}

// What the kernel was lent of a staging file (worktree_lend.cpp). Guarded by Inode::mutex.
struct Loan {
    std::uint32_t readers = 0, writers = 0;
    // Somebody who is not counted may still write: a mapping after its descriptor was closed, a client of a daemon that
    // died. Only the kernel knows when he is gone.
    bool unknown_writers = false;
    bool may_be_written() const { return writers > 0 || unknown_writers; }
    bool releasing = false;  // the row is losing its staging file: nothing to lend
    bool synced = false;     // fsync(2) came: once more when the last writer is gone
    // The file when its first writer came: if it is the same when the last one goes, nothing was written.
    bool was_complete = false, was_ingested = false;
    bool times_set = false;  // by somebody who may have hidden a write so
    std::uint64_t generation = 0, size = 0;
    std::int64_t mtime_ns = 0;
    std::int64_t seen_mtime_ns = 0;  // the staging file's, last time: another one means writes
    // Whoever asks the kernel takes a number first: an answer counts only if nobody who asked later has brought one.
    std::uint64_t asked = 0, answered = 0;
};

class Inode {
  public:
    Inode(Ino number, EntryType kind) : ino(number), type(kind) {}
    const Ino ino;
    const EntryType type;

    mutable std::mutex mutex;  // guards all below
    Ino parent = 0;
    std::string name;
    bool unlinked = false;
    std::uint32_t mode = 0, uid = 0, gid = 0;
    std::uint64_t size = 0;  // of staged, when there is one
    std::int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0;
    std::string link;
    Xattrs xattrs;
    bool filled = false;  // directories

    // Contents of a file. content: FILE id of the last ingested content. staged: the bytes that count now.
    std::optional<FileId> content;
    std::shared_ptr<StagedFile> staged;
    bool ingested = false;  // content names staged's bytes
    bool complete = true;
    bool synced = false;
    std::uint64_t generation = 0;  // grows before and after every change of the bytes
    unsigned changing = 0;         // changes between the two
    std::uint32_t writers = 0, handles = 0;
    // The row stays until the last handle is closed, though the name is gone: for the process after this one.
    bool kept = false;
    bool queued = false;
    Loan loan;
    std::vector<std::shared_ptr<void>> pins;  // of one without a name: what it shows stays in the store
};

// A change of a file's bytes, from before it begins until after it was noted. Ends with its scope.
class InFlight {
  public:
    InFlight() = default;
    ~InFlight() {
        if (!inode_) return;
        std::lock_guard lock(inode_->mutex);
        --inode_->changing;
    }
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;
    // Its mutex is held; once.
    void begin(const InodePtr& inode) {
        inode_ = inode;
        ++inode->changing;
    }

  private:
    InodePtr inode_;
};

struct Worktree::Impl {
    Impl(Worktree& worktree, ThreadPool& pool);

    Worktree& tree;
    Repository& repo;
    State& state;
    Ingestor ingestor;
    std::unique_ptr<File> lock_file;
    LockKeeper* locks = nullptr;
    bool inherited = false;
    std::vector<Ino> lent_before;  // rows that are complete as soon as nobody writes them, until resumed()
    std::int64_t row_id = 0;
    std::string staging_dir, boot;
    std::shared_ptr<StagingFiles> staging_files;
    SpareFiles spares;

    std::mutex ops_mutex;  // see above; guards base
    std::optional<CommitId> base;
    std::atomic<std::uint64_t> changes{0};  // grows with every change of a row: notices lookups that read an old one

    std::mutex table_mutex;  // guards table and written
    std::unordered_map<Ino, std::weak_ptr<Inode>> table;
    std::map<Ino, std::uint32_t> written;  // writable handles by inode: flushed is not yet closed (fork and exec flush)

    std::mutex observer_mutex;  // guards observer
    ChangeObserver observer;

    std::mutex queue_mutex;  // guards the rest
    std::condition_variable queue_wake, queue_idle;
    struct Waiting {
        InodePtr inode;
        std::uint64_t bytes = 0;  // on the disk
        bool counted = false;     // in the backlog
    };
    std::deque<Waiting> queue;
    std::shared_ptr<Backlog> backlog;
    std::uint64_t running = 0, queued_ever = 0, done_ever = 0;
    std::shared_ptr<IngestProgress> current;
    InodePtr current_inode;
    std::vector<InodePtr> settled;  // ingested; their staging files go once packs and state are synced
    // Staging files that no row names any more: unlinked once the rows are on the disk and nobody uses them.
    struct Orphan {
        std::string path;
        std::weak_ptr<StagedFile> used;
        std::shared_ptr<const std::atomic<bool>> reusable;
    };
    std::vector<Orphan> orphans;
    bool removed_large = false;  // one of them is worth looking whether its room is wanted now
    std::uint64_t settled_bytes = 0;
    struct Candidate {  // a settled file as it was when the packs were synced
        InodePtr inode;
        std::shared_ptr<StagedFile> staged;
        std::uint64_t generation = 0;
    };
    std::vector<Candidate> hot;  // oldest first
    std::atomic<std::size_t> hot_files{0};
    std::uint64_t hot_bytes = 0;  // of `hot`; the reaper's own
    std::shared_ptr<HotTier> hot_tier;
    std::vector<InodePtr> lingering;      // closed, but the kernel says that somebody can still write
    std::vector<InodePtr> uncompleted;    // closed, but state.db did not take it
    std::map<Ino, std::string> failures;  // why ingest of a file failed last
    bool stop = false, bases_learnt = false;
    std::thread ingest_thread, reap_thread;

    using Events = std::vector<std::tuple<Ino, std::string, Ino>>;  // (parent, name, replaced)

    // ---- worktree_resume.cpp
    Status let_go_of_closed();

    // ---- worktree.cpp
    Status load(const std::string& branch);
    Status load_row();
    Status take_lock();
    void start_threads();
    Status heal();
    Status heal_rows(std::vector<Ino>& ready);
    // True: its bytes are as the process before us left them, and it goes on from there.
    Result<bool> resume_row(const Row& row, std::vector<Ino>& ready);
    Status purge_removed();
    // `ready`: to be ingested. `lent`: complete as soon as nobody writes them.
    // What heal_row finds: the packs have it, its bytes are right, they cannot be trusted, or only with a mark.
    Status heal_stored(const Row& row);
    Status heal_trusted(const Row& row, const FileStat& staged, const std::optional<AnyId>& earlier);
    Status heal_earlier(const Row& row, const AnyId& earlier);
    Status heal_incomplete(const Row& row, const FileStat& staged, const std::optional<AnyId>& earlier);
    Status heal_row(const Row& row, std::vector<Ino>& ready, std::vector<Ino>& lent);
    Status drop_stray_staging();
    std::string staging_path(const Uuid& uuid) const { return path_join(staging_dir, uuid.text()); }
    Result<InodePtr> inode_of(const Row& row, std::uint64_t changes_before);
    InodePtr cached(Ino ino);
    void changed(const std::vector<std::tuple<Ino, std::string, Ino>>& events);

    // ---- worktree_names.cpp; ops_mutex held
    Status fill(const InodePtr& dir);
    Status fill_rows(Database& db, Ino dir, const Tree& tree, std::int64_t mtime_ns);
    Status touch_directory(Database& db, Ino dir, std::int64_t now);
    void touch_memory(const InodePtr& dir, std::int64_t now);
    void pin_contents(const InodePtr& inode);
    void forget_removed(const InodePtr& inode);
    bool keeps_row(Ino ino);
    void drop_kept_row(const InodePtr& inode);
    void close_handle(const InodePtr& inode);
    Result<InodePtr> insert_child(const InodePtr& dir, Row row);
    Result<InodePtr> insert_row_in(const InodePtr& dir, Row row, const Row* replaced);
    Status empty_directory(const Row& row, Events& events, std::uint64_t& removed);
    Result<Row> child_row(const InodePtr& dir, std::string_view name);
    Result<InodePtr> load_inode(Ino ino);
    Status delete_row(Database& db, const Row& row);
    Result<InodePtr> remove_entry(const InodePtr& dir, const Row& row);
    Status store_xattrs(const InodePtr& inode, const Xattrs& xattrs);
    Status check_replace(const Row& from, const std::optional<Row>& to);
    Status check_not_below(Ino dir, Ino ancestor);

    // ---- worktree_contents.cpp
    Status begin_write(const InodePtr& inode);  // afterwards: staged, incomplete, its row says so
    Status begin_write_locked(const InodePtr& inode, bool empty);
    Status finish_write(const InodePtr& inode, const std::shared_ptr<StagedFile>& staged);
    void undo_growth(const InodePtr& inode, const std::shared_ptr<StagedFile>& staged);
    Status touch_file(const InodePtr& inode);
    Status complete_file(const InodePtr& inode);
    Status complete_unwritten(const InodePtr& inode);  // ops_mutex held
    Status complete_locked(const InodePtr& inode);
    void complete_later(const InodePtr& inode);
    void retry_uncompleted();
    Status truncate_locked(const InodePtr& inode, std::uint64_t size);
    Result<std::shared_ptr<StagedFile>> new_staged(const InodePtr& inode, bool empty);

    // ---- worktree_links.cpp
    std::function<Status(const std::vector<std::uint64_t>&)> unit_writer(const Uuid& staging);
    Result<std::shared_ptr<const store::FileRecord>> record_below(const FileId& id, std::uint64_t size);
    Result<std::shared_ptr<StagedFile>> open_staged(const Row& row);
    Result<bool> link_alone(const InodePtr& to, const std::shared_ptr<StagedFile>& staged, const StagedFile::Link& link,
                            InFlight& change);
    Status place_content_locked(const InodePtr& to, const FileId& content, std::uint64_t size);

    // ---- worktree_lend.cpp
    Status set_complete(const InodePtr& inode, std::int64_t complete);
    Status lend_writer_locked(const InodePtr& inode, bool mappable);
    Status set_staged_mtime(const InodePtr& inode, std::int64_t ns);
    void refresh_lent(const InodePtr& inode);
    bool may_still_change(const InodePtr& inode);  // ops_mutex held
    Status settle_loan(const InodePtr& inode);
    Status restore_unwritten(const InodePtr& inode);  // ops_mutex held
    void linger(const InodePtr& inode);
    Result<bool> attach_plain(const InodePtr& inode, const FileId& content, const std::shared_ptr<StagedFile>& staged);
    void retry_lingering();

    // ---- worktree_ingest.cpp
    void enqueue(const InodePtr& inode);
    void ingest_loop();
    void leave_backlog();
    Status ingest_one(const InodePtr& inode, const std::shared_ptr<IngestProgress>& progress);
    Status settle(const InodePtr& inode, const std::shared_ptr<StagedFile>& staged, std::uint64_t generation,
                  const Ingested& done);
    void wait_a_little();
    void learn_bases();
    Status learn_tree(const TreeId& tree, std::size_t& budget);

    // ---- worktree_reap.cpp
    void reap_loop();
    Status reap();
    void leave_orphan(const std::shared_ptr<StagedFile>& staged);
    bool room_is_wanted(std::unique_lock<std::mutex>& queue_lock);
    bool orphan_is_free();  // queue_mutex held
    std::vector<Orphan> take_free_orphans();
    bool disk_is_short();
    void remove_files(std::vector<Orphan> gone);
    void choose_hot(const std::vector<Candidate>& all, std::vector<Candidate>& kept, std::vector<Candidate>& going);
    Status release_rows(std::vector<Candidate>& kept, const std::vector<Candidate>& going,
                        std::vector<Candidate>& done);
    void let_hot_go();

    // ---- worktree_spares.cpp
    Result<Uuid> new_staging_file();  // empty, and among `staging_files`
    bool keep_as_spare(const Orphan& orphan);
    void remove_spares(const std::vector<Uuid>& gone);

    // ---- worktree_commit.cpp
    Result<std::unique_ptr<DirSnapshot>> snapshot();
    Status snapshot_dir(Database& db, DirSnapshot& dir);
    using MayBeOpen = std::function<bool(const std::string& path)>;
    Result<TreeId> build(DirSnapshot& dir, const std::optional<TreeId>& before_id, const std::string& path,
                         const MayBeOpen& may_be_open);
    Result<std::optional<TreeEntry>> build_file(const Row& row, const TreeEntry* before, const std::string& path,
                                                const MayBeOpen& may_be_open);
    Result<TreeId> tree_of_commit(const CommitOptions& options, DirSnapshot& snapshot,
                                  const std::optional<TreeId>& base_tree);
    Result<CommitId> put_commit(const CommitOptions& options, const TreeId& tree_id,
                                const std::optional<CommitId>& parent);
    Status move_branch(const CommitOptions& options, const DirSnapshot& snapshot, const std::optional<CommitId>& parent,
                       const CommitId& commit);
    Status count_changes(const std::optional<TreeId>& before, const TreeId& after, CommitResult& result);
    Result<std::optional<CommitResult>> made_before(const CommitOptions& options);
    void reap_soon();
    Status wait_complete(const CommitOptions& options);
    bool open_for_writing(Ino ino);
    void count_writer(const InodePtr& inode, int by);
    void retry_failed();
    Status mark_clean(Database& db, const DirSnapshot& dir, bool& clean);
    Result<std::optional<TreeId>> tree_of(const std::optional<CommitId>& commit);

    // ---- worktree_restore.cpp; ops_mutex held
    Result<std::uint64_t> restore_entry(const InodePtr& dir, const std::string& name, const TreeEntry* wanted,
                                        Events& events);
    Result<std::uint64_t> restore_directory(const InodePtr& dir, const TreeId& wanted, Events& events);
    Result<std::uint64_t> remove_recursively(const InodePtr& dir, const Row& row, Events& events);
    Result<std::optional<TreeEntry>> wanted_at(const TreeId& source, const std::string& path);
    Result<InodePtr> find_path(std::string_view path);
    // Would restoring `path`, among `paths`, fail for what is there?
    Status check_restorable(const std::string& path, bool wanted, const std::vector<std::string>& paths);
    struct Owner {
        std::uint32_t uid, gid;
    };
    static Owner owner_of(const Inode& inode);
    // `owner`: of what is made; none: that of the directory it is made in.
    Result<InodePtr> make_path(std::string_view path, std::optional<Owner> owner, Events& events);
    Result<InodePtr> find_child(const InodePtr& dir, std::string_view name);
};

}  // namespace coral::repo
