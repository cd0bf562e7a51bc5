// SPDX-License-Identifier: Apache-2.0
// The filesystem without FUSE: nodes, handles, attributes and contents of a mounted repository. fuse/ only translates.
// All calls are thread-safe and may block on disk or decode, never on another call's disk or decode of another file.
//
//   /HEAD  /branches/…  /tags/…  /commits/<id>/…  /at/<revision>
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coral/base/thread_pool.hpp"
#include "coral/repo/repository.hpp"
#include "coral/repo/worktree.hpp"

namespace coral::vfs {

class Handover;  // handover.hpp

using NodeId = std::uint64_t;  // 1 is the root; also st_ino
using HandleId = std::uint64_t;
inline constexpr NodeId kRoot = 1;

struct Caller {
    std::uint32_t uid = 0, gid = 0, pid = 0, umask = 0;
};

struct Options {
    std::size_t threads = 0;              // ingest and prefetch; 0: as many as there are cores
    std::uint64_t readahead = 16u << 20;  // decoded ahead of a sequential reader
    bool read_only = false;               // mount -o ro
    bool share = true;                    // equal files of different commits are one inode
    // Bytes that may wait for their ingest before those who write are slowed down.
    std::uint64_t backlog = std::uint64_t{16} << 30;
    std::uint64_t hot_size = 0;    // bytes of just ingested staging files that stay plain
    std::uint64_t cache_size = 0;  // bytes of plain copies of committed files
    // Without passthrough: write-only descriptors write through the page cache, so that the first read finds its pages.
    bool keep_new_pages = false;
    enum class Materialize { kNever, kAuto, kAlways } materialize = Materialize::kAuto;
    // Of a mount whose process may be replaced; they outlive the Filesystem. Null: it may not.
    Handover* handover = nullptr;
    repo::LockKeeper* locks = nullptr;
};

struct Attr {
    NodeId node = 0;
    FileType type = FileType::kRegular;
    std::uint32_t mode = 0, uid = 0, gid = 0, nlink = 1;
    std::uint64_t size = 0, blocks = 0;
    std::int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0;
    std::uint32_t preferred_io =
        1u << 20;  // bytes; what cp and Python read or write at once: large, so that requests are few
};

// How long the kernel may keep what it was told. Immutable parts: for ever. Branch entries: for ever too, since every
// outside change is notified. branches/, tags/, HEAD, at/: not at all, so that a ref moved by another process is seen
// at once.
struct Entry {
    Attr attr;
    double entry_timeout = 0, attr_timeout = 0;  // seconds
};

// The mode belongs to the inode while it has handles (src/vfs/io_mode.hpp).
enum class IoMode { kCached, kDirect, kPassthrough };

// kAppender: through a descriptor that has O_APPEND now (fcntl sets and takes it while the file is open). kPages: the
// kernel writes back what it holds (of a mapping), so its pages are right.
enum class WriteFrom { kCaller, kAppender, kPages };

struct Opened {
    HandleId handle = 0;
    IoMode mode = IoMode::kCached;
    bool keep_cache = false;    // the kernel's pages of this node are still right
    std::uint32_t backing = 0;  // kPassthrough: from BackingFiles
};

// Files that the kernel reads and writes itself. Thread-safe.
class BackingFiles {
  public:
    virtual ~BackingFiles() = default;
    // Registers an open regular file; it may be closed afterwards. kUnsupported, kPermission: not here.
    virtual Result<std::uint32_t> open_backing(int descriptor) = 0;
    virtual void close_backing(std::uint32_t id) = 0;
};

struct DirItem {
    std::string name;
    Attr attr;
    std::uint64_t next = 0;  // offset to go on after this entry
};

// What the kernel must forget: sent by one thread, with no lock held, never from inside a request.
class Notifier {
  public:
    virtual ~Notifier() = default;
    virtual void entry_changed(NodeId parent, const std::string& name) = 0;  // forget the name
    virtual void attributes_changed(NodeId node) = 0;                        // forget size, mtime …
    // Forget these pages. Rare: only when a descriptor shared by fork goes on writing in direct mode after a flush,
    // while others have the file open cached (src/vfs/io_mode.hpp). A notifier that cannot may ignore it.
    virtual void contents_changed(NodeId node, std::uint64_t offset, std::uint64_t length) = 0;
};

struct Usage {
    std::uint64_t plain_bytes = 0, plain_limit = 0;       // of committed files
    std::uint64_t hot_bytes = 0, hot_limit = 0;           // plain copies of what was just saved
    std::uint64_t open_files = 0, passthrough_files = 0;  // handles
};

struct SpaceInfo {
    std::uint64_t block_size, blocks, blocks_free, blocks_available, files, files_free, name_max;
};

class Filesystem {
  public:
    // Takes the locks of all free branches; a branch that another process owns is read-only until it is free.
    static Result<std::unique_ptr<Filesystem>> open(repo::Repository& repo, const Options& options);
    virtual ~Filesystem() = default;
    virtual void set_notifier(Notifier* notifier) = 0;  // before the first request; null: nobody listens
    // Before the first OPEN, and until the last RELEASE; null: no passthrough.
    virtual void set_backing_files(BackingFiles*) {}
    // Before the first OPEN. False: the kernel is too old to keep direct writes and pages that it holds coherent.
    virtual void set_direct_over_pages(bool) {}
    // Before the first OPEN. True: the kernel maps files that are open directly, and keeps mappings and writes
    // coherent.
    virtual void set_direct_maps(bool) {}
    virtual void set_socket_path(const std::string&) {}  // what user.coral.socket tells; empty: no such attribute
    // Finish ingest of what is complete, sync, give the branches back. Requests after this fail.
    virtual Status shut_down() = 0;

    // ---- names. Every Entry returned by lookup, create, make_* and readdir_plus counts one kernel reference.
    // "." is `parent` itself, also when the kernel has forgotten it (kStale: it is gone), ".." what it lies in.
    virtual Result<Entry> lookup(NodeId parent, std::string_view name) = 0;
    virtual void forget(NodeId node, std::uint64_t count) = 0;
    virtual Result<std::string> read_link(NodeId node) = 0;
    virtual Result<Entry> make_directory(NodeId parent, std::string_view name, std::uint32_t mode, const Caller&) = 0;
    virtual Result<Entry> make_symlink(NodeId parent, std::string_view name, std::string_view target,
                                       const Caller&) = 0;
    virtual Status unlink(NodeId parent, std::string_view name) = 0;
    virtual Status remove_directory(NodeId parent, std::string_view name) = 0;
    virtual Status rename(NodeId from, std::string_view from_name, NodeId to, std::string_view to_name,
                          repo::RenameMode mode) = 0;

    // May names in this directory be changed? For calls that are refused anyway: EROFS comes before EPERM.
    virtual Status check_writable(NodeId directory) = 0;

    // ---- attributes
    virtual Result<Entry> attributes(NodeId node, std::optional<HandleId> handle) = 0;
    virtual Result<Entry> set_attributes(NodeId node, const repo::SetAttributes& set,
                                         std::optional<HandleId> handle) = 0;
    // Clears set-user-id, and set-group-id where the group may execute or the caller is not of it, of a regular file:
    // what a write or a change of owner does.
    virtual Result<Entry> drop_set_ids(NodeId node, const Caller& caller) = 0;
    virtual Result<std::string> get_xattr(NodeId node, const std::string& name) = 0;
    virtual Result<std::vector<std::string>> list_xattrs(NodeId node) = 0;
    virtual Status set_xattr(NodeId node, const std::string& name, const std::string& value,
                             repo::Worktree::XattrMode mode) = 0;
    virtual Status remove_xattr(NodeId node, const std::string& name) = 0;
    virtual Result<SpaceInfo> space(NodeId node) = 0;
    virtual Usage usage() const = 0;
    // Makes a plain copy of a file, so that the kernel can read it by itself; true: it has one now. kUnsupported: the
    // kernel would not use it. Takes as long as decoding the file does.
    virtual Result<bool> warm(NodeId node) = 0;

    // ---- files. `flags` are open(2)'s.
    virtual Result<Opened> open_file(NodeId node, int flags, const Caller&) = 0;
    virtual Result<std::pair<Entry, Opened>> create(NodeId parent, std::string_view name, std::uint32_t mode, int flags,
                                                    const Caller&) = 0;
    // Bytes read; fewer than asked only at the end.
    virtual Result<std::size_t> read(HandleId handle, std::uint64_t offset, MutableBytes out) = 0;
    virtual Result<std::size_t> write(HandleId handle, std::uint64_t offset, Bytes data,
                                      WriteFrom from = WriteFrom::kCaller) = 0;
    // When the writer may be told that his last bytes, written or copied, were taken. In the past, unless what was
    // saved waits too long for its ingest (behind()): until then, no writer is told before his turn. Nobody waits here.
    virtual std::chrono::steady_clock::time_point turn(HandleId handle) = 0;
    virtual bool behind() const = 0;
    virtual Status flush(HandleId handle) = 0;
    virtual Status sync(HandleId handle) = 0;
    virtual void release(HandleId handle) = 0;
    virtual Status allocate(HandleId handle, std::uint64_t offset, std::uint64_t length, int mode) = 0;
    virtual Result<std::size_t> copy_range(HandleId from, std::uint64_t from_offset, HandleId to,
                                           std::uint64_t to_offset, std::uint64_t length) = 0;
    virtual Result<std::uint64_t> seek(HandleId handle, std::uint64_t offset, int whence) = 0;  // SEEK_DATA, SEEK_HOLE

    // ---- directories
    virtual Result<HandleId> open_directory(NodeId node) = 0;
    // Entries from `offset` (0: the first, "." and ".." included) to `visit` until it returns false. With `plus` each
    // but "." and ".." counts a kernel reference when `visit` returned true.
    virtual Status read_directory(HandleId handle, std::uint64_t offset, bool plus,
                                  const std::function<bool(const DirItem&, const Entry*)>& visit) = 0;
    virtual void release_directory(HandleId handle) = 0;
    virtual Status sync_directory(NodeId node) = 0;

    // ---- for control: the worktree that this mount owns, or kNotFound / kBusy.
    virtual Result<std::shared_ptr<repo::Worktree>> worktree(const std::string& branch) = 0;
    // A branch was made, deleted or renamed by a request through control: take or drop its worktree now.
    virtual Status branches_changed() = 0;
    virtual Status release_branch(
        const std::string& branch) = 0;  // before it is deleted or renamed; kBusy with open files
};

}  // namespace coral::vfs
