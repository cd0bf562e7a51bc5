// SPDX-License-Identifier: Apache-2.0
// The writable state of one branch: a tree of inodes over its base commit. One process owns a worktree (an OFD lock)
// and serves all its changes; others forward to it. Rows live in state.db, written bytes in staging files, and ingest
// follows behind. Thread-safe.
//
// Directories are filled with rows when they are first looked into (EdenFS calls it materialised); until then a
// directory is only a tree id. Inode numbers are row ids: they never go back and outlive the daemon.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "coral/base/os.hpp"
#include "coral/repo/backlog.hpp"
#include "coral/repo/diff.hpp"
#include "coral/repo/ingest.hpp"
#include "coral/repo/repository.hpp"

namespace coral {
class Database;
class Statement;
}  // namespace coral

namespace coral::repo {

class StagedFile;  // src/repo/staged_file.hpp

using Ino = std::uint64_t;

struct Attributes {
    Ino ino = 0;
    FileType type = FileType::kRegular;
    std::uint32_t mode = 0;  // permission bits, & 07777
    std::uint32_t uid = 0, gid = 0;
    std::uint64_t size = 0;
    std::int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0;
    std::uint32_t nlink = 1;
    bool incomplete = false;
    bool lent = false;  // the kernel writes it without us: size and times may change at any moment
};

struct SetAttributes {
    std::optional<std::uint32_t> mode, uid, gid;
    std::optional<std::uint64_t> size;
    std::optional<std::int64_t> atime_ns, mtime_ns;
};

enum class RenameMode { kReplace, kNoReplace, kExchange };

// One file, directory or symlink of a worktree. Owned jointly by the worktree's table and whoever uses it; stays usable
// after it is unlinked. Opaque: use Worktree's calls.
class Inode;
using InodePtr = std::shared_ptr<Inode>;

struct DirEntry {
    std::string name;
    Attributes attributes;
};

struct CommitOptions {
    std::string message;
    std::vector<std::string> paths;  // empty: everything
    std::optional<Person> author;    // else the repository's identity
    std::vector<std::pair<std::string, std::string>> meta;
    bool wait = false;        // for files that are open for writing, as long as it takes
    bool allow_open = false;  // leave them out (their last complete content stays)
    // When the commit is made, ns since 1970; nothing: now. With `again` a commit of this time and message that is the
    // branch's last one already is the result: the answer to an earlier request was lost.
    std::optional<std::int64_t> time_ns;
    bool again = false;
    // Asked while the commit waits for writers and ingest, at least ten times a second. True, because this process is
    // about to end or because nobody wants the commit any more: nothing is committed (kBusy). Null: never.
    std::function<bool()> give_up;
};

struct CommitResult {
    CommitId id;
    std::string branch;
    std::uint64_t changed = 0, added = 0, deleted = 0;
};

struct StatusResult {
    std::string branch;
    std::optional<CommitId> commit;
    std::vector<Change> changes;  // sorted by path
};

// Staging files that stay for a while after their ingest, newest first: of all worktrees that were given it together.
struct HotTier {
    std::uint64_t limit = 0;             // bytes
    std::atomic<std::uint64_t> used{0};  // bytes
};

// Keeps the locks of a process that another one will follow (a mount's worker, fuse/supervisor.hpp): whoever follows
// finds its branches as its own, and nobody else had them meanwhile.
class LockKeeper {
  public:
    virtual ~LockKeeper() = default;
    virtual std::unique_ptr<File> inherited(const Uuid& worktree) = 0;  // once; null: there is none
    virtual void keep(const Uuid& worktree, const File& lock) = 0;
    virtual void drop(const Uuid& worktree) = 0;  // it is unlocked
};

class Worktree {
  public:
    // Takes the branch's lock; kBusy when another process owns it (its socket is in `owner_socket_path`). Heals what a
    // crash left: staging that was not synced before a reboot is not trusted. `pool` encodes.
    // With a keeper, files that are removed while they are open keep their rows, so that whoever follows can go on
    // with them; with an inherited lock those are there still, and resumed() must be called once they are open again.
    static Result<std::shared_ptr<Worktree>> open(Repository& repo, const std::string& branch, ThreadPool& pool,
                                                  LockKeeper* locks = nullptr);
    ~Worktree();  // waits for running ingest, keeps the rest for the next owner

    const std::string& branch() const { return branch_; }
    const Uuid& uuid() const { return uuid_; }
    Repository& repository() const { return repo_; }

    // ---- names
    InodePtr root() const { return root_; }
    Result<bool> has(Ino ino);      // is it one of this worktree's?
    Result<InodePtr> get(Ino ino);  // kNotFound (kStale for the kernel) when it is gone
    Result<InodePtr> lookup(const InodePtr& dir, std::string_view name);
    Result<InodePtr> lookup_path(std::string_view path);  // "" is the root
    // Entries sorted by name, strictly after `after`; at most `limit`.
    Result<std::vector<DirEntry>> list(const InodePtr& dir, std::string_view after, std::size_t limit);
    Result<std::string> path_of(const InodePtr& inode);  // "a/b"; kStale when unlinked
    Result<InodePtr> parent_of(const InodePtr& inode);   // null: it is the root; kStale when unlinked

    Result<InodePtr> create_file(const InodePtr& dir, std::string_view name, std::uint32_t mode, std::uint32_t uid,
                                 std::uint32_t gid);  // kExists; not yet open
    // After create_file for a descriptor that cannot write (O_RDONLY | O_CREAT): complete, unless somebody writes.
    Status complete_unwritten(const InodePtr& inode);
    Result<InodePtr> make_directory(const InodePtr& dir, std::string_view name, std::uint32_t mode, std::uint32_t uid,
                                    std::uint32_t gid);
    Result<InodePtr> make_symlink(const InodePtr& dir, std::string_view name, std::string_view target,
                                  std::uint32_t uid, std::uint32_t gid);
    // Returns what was removed: open handles go on with it.
    Result<InodePtr> unlink(const InodePtr& dir, std::string_view name);  // kIsDirectory
    Result<InodePtr> remove_directory(const InodePtr& dir, std::string_view name);
    // Atomic. Returns the inode that was replaced, if any. POSIX rules: kNotEmpty, kIsDirectory, kNotDirectory,
    // kInvalid (into itself), kExists.
    Result<InodePtr> rename(const InodePtr& from_dir, std::string_view from, const InodePtr& to_dir,
                            std::string_view to, RenameMode mode);

    // ---- attributes
    Attributes attributes(const InodePtr& inode) const;
    Status set_attributes(const InodePtr& inode, const SetAttributes& set);
    std::string link_target(const InodePtr& inode) const;
    Xattrs xattrs(const InodePtr& inode) const;
    enum class XattrMode { kAny, kCreate, kReplace };
    Status set_xattr(const InodePtr& inode, const std::string& name, const std::string& value, XattrMode mode);
    Status remove_xattr(const InodePtr& inode, const std::string& name);  // kNoData
    // FILE id of the content, when it is known: ingested and not changed since.
    std::optional<FileId> content_id(const InodePtr& inode) const;

    // ---- contents. Every open is matched by one close; read and write are positional.
    Status open_file(const InodePtr& inode, bool writable, bool truncate);
    Result<std::size_t> read(const InodePtr& inode, std::uint64_t offset, MutableBytes out);
    Status write(const InodePtr& inode, std::uint64_t offset, Bytes data);
    // Writes at the end, wherever that is now (O_APPEND); returns the offset.
    Result<std::uint64_t> append(const InodePtr& inode, Bytes data);
    Status allocate(const InodePtr& inode, std::uint64_t offset, std::uint64_t length, bool keep_size);
    // Zeros for what of the range lies within the file. Written, not cut out: a staging file may be an overlay.
    Status zero(const InodePtr& inode, std::uint64_t offset, std::uint64_t length);
    Status flush(const InodePtr& inode, bool writable);  // close(2) of one descriptor
    Status sync_file(const InodePtr& inode);             // fsync(2)
    Status sync_names();                                 // fsync(2) of a directory: one FULL commit
    void close_file(const InodePtr& inode, bool writable);
    // After a worktree with an inherited lock was opened and all files that were open in it are open again: what
    // nobody has open any more goes, or is complete.
    Status resumed();
    // Tells the observer of every name: for a kernel that may have been told too little.
    Status announce_all();
    // ---- lending: the kernel reads and writes the staging file itself (FUSE passthrough). Between open_file and
    // close_file; the file stays this inode's staging file until it is given back. False: it cannot be lent, because
    // there is no staging file, or a stored file shows through. Readers are lent only what has `at_least` bytes, unless
    // somebody is lent it for writing. `mappable`: the descriptor can be mapped for writing, so writes may come after
    // it was closed; ingest then waits until the kernel says that there is no writer left.
    struct Lending {
        bool writable = false, mappable = false;
        std::uint64_t at_least = 0;
    };
    Result<bool> lend(const InodePtr& inode, const Lending& lending);
    Result<std::shared_ptr<File>> lent_file(const InodePtr& inode);  // read-only
    void take_back(const InodePtr& inode, bool writable);  // the kernel did not want it; open_file still counts
    // Instead of close_file. For writers ingest begins here: flush() does not complete a lent file.
    void close_lent(const InodePtr& inode, bool writable);

    // Decodes a file that is in packs only into a staging file, as if it had just been saved: then it can be lent, and
    // is hot. False: it is not at rest in packs, or there is no room for it. Takes as long as decoding it does.
    Result<bool> make_plain(const InodePtr& inode, const std::atomic<bool>& stop);

    // The whole of a stored content becomes that of `to` without copying bytes; kUnsupported when `to` is removed, or
    // open elsewhere.
    Status place_content(const InodePtr& to, const FileId& content, std::uint64_t size);
    struct Range {
        std::uint64_t offset = 0, length = 0;
    };
    static constexpr std::uint64_t kLinkUnit = 256u << 10;
    // `length` bytes of a stored content from `from` on become those of `to` from `offset` on, as far as they fill
    // whole units of kLinkUnit there (at the end of `to` also a part of one): nothing is decoded. Returns what was
    // linked, in `to`; nothing when that is less than two of them, or cannot be done. Between open_file and close_file.
    Result<Range> link_content(const InodePtr& to, std::uint64_t offset, std::uint64_t length, const FileId& content,
                               std::uint64_t from);
    // FILE id when all bytes come from packs, none from a staging file: then reading ahead is worth it.
    std::optional<FileId> stored_content(const InodePtr& inode) const;
    // Content that is already in the store, at `path` (folders are made); replaces a file there. For `coral add`,
    // restore.
    Result<InodePtr> place_file(const std::string& path, const FileId& file, std::uint64_t size, std::uint32_t mode,
                                std::int64_t mtime_ns, std::uint32_t uid, std::uint32_t gid);

    // ---- history
    Result<StatusResult> status();
    // Waits for ingest, builds trees, moves the ref. kConflict: nothing to commit. kBusy names files open for writing.
    Result<CommitResult> commit(const CommitOptions& options);
    // Makes `paths` (all when empty) as they are in `source`; what is not there is deleted. Returns how many changed.
    Result<std::uint64_t> restore(const TreeId& source, const std::vector<std::string>& paths);
    std::optional<CommitId> base_commit() const;

    // ---- ingest
    // Of everything complete; or until `give_up`, asked ten times a second, says so.
    Status wait_ingested(const std::function<bool()>& give_up = {});
    std::uint64_t pending() const;  // files that wait or run
    BaseMap& base_map() { return base_map_; }
    void keep_hot(std::shared_ptr<HotTier> tier);  // without it staging files go as soon as they may
    void count_in(std::shared_ptr<Backlog> backlog);

    // Called, with no lock held, when names or contents change otherwise than through this interface's own caller:
    // restore, place_file. (parent, name, replaced inode or 0).
    using ChangeObserver = std::function<void(Ino parent, const std::string& name, Ino replaced)>;
    void observe(ChangeObserver observer);
    // For a caller that is not the observer and changed a name through the calls above (control, place_all).
    void announce(const InodePtr& dir, const std::string& name, Ino replaced);

    static std::string lock_path(const Repository& repo, const Uuid& worktree);
    // Where the owner says how to reach it (a text file beside the lock: the socket's path).
    static std::string owner_path(const Repository& repo, const Uuid& worktree);

  private:
    friend class Inode;
    struct Impl;
    explicit Worktree(Repository& repo);
    Repository& repo_;
    std::string branch_;
    Uuid uuid_;
    InodePtr root_;
    BaseMap base_map_;
    std::unique_ptr<Impl> impl_;
};

}  // namespace coral::repo
