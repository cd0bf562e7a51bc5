// SPDX-License-Identifier: Apache-2.0
// The operating system, behind an interface, so that tests can record, cut and fail every write (tests/support).
// Everything that CoralFS keeps on disk goes through an Os, SQLite's files included (base/sqlite.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral {

enum class FileType : std::uint8_t { kRegular, kDirectory, kSymlink, kOther };

struct FileStat {
    FileType type = FileType::kOther;
    std::uint64_t size = 0;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t blocks = 0;  // of 512 bytes
    std::uint32_t mode = 0;    // permission bits
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::int64_t mtime_ns = 0;
};

// Bytes of one write(2) to a disk. With more, ext4 asks the kernel for large folios first, and when free memory is in
// pieces it compacts that for them: up to five times slower (decision 25).
inline constexpr std::uint32_t kDiskWrite = 128u << 10;

struct SpaceStat {
    std::uint64_t block_size = 0, blocks = 0, blocks_free = 0, blocks_available = 0, files = 0, files_free = 0;
};

enum class OpenMode {
    kRead,       // must exist
    kReadWrite,  // must exist
    kCreateNew,  // read-write, must not exist; mode 0600
    kOpenOrCreate,
};

// An open file. Thread-safe: all I/O is positional. Closed by the destructor.
class File {
  public:
    virtual ~File() = default;
    // Bytes read: fewer than asked only at the end of the file.
    virtual Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) = 0;
    // All or an error; the kernel gets it in pieces of kDiskWrite, in order.
    virtual Status write_at(std::uint64_t offset, Bytes data) = 0;
    virtual Status truncate(std::uint64_t size) = 0;
    // Room for `size` bytes, taken from the disk now where that is possible; the file has that size then.
    virtual Status reserve(std::uint64_t size) { return truncate(size); }
    virtual Status sync_data() = 0;  // fdatasync
    virtual Result<FileStat> stat() = 0;
    virtual Status change_mode(std::uint32_t mode) = 0;
    virtual Status set_mtime(std::int64_t ns) = 0;  // since 1970
    // Open-file-description locks on the whole file; released when the file is closed. False: somebody else has it.
    virtual Result<bool> try_lock(bool exclusive) = 0;
    virtual Status unlock() = 0;
    // For splice, passthrough and sendfile; -1 where there is none (tests): the caller then copies.
    virtual int native_handle() const = 0;
};

class Os {
  public:
    virtual ~Os() = default;
    virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
    virtual Status rename(const std::string& from, const std::string& to) = 0;  // replaces; same directory tree
    virtual Status remove(const std::string& path) = 0;  // file or symlink; kNotFound is an error
    virtual Status remove_dir(const std::string& path) = 0;
    virtual Status make_dir(const std::string& path, std::uint32_t mode = 0700) = 0;
    virtual Status sync_dir(const std::string& path) = 0;
    virtual Result<FileStat> stat(const std::string& path) = 0;  // follows symlinks
    virtual Result<FileStat> lstat(const std::string& path) = 0;
    virtual Result<std::vector<std::string>> list_dir(const std::string& path) = 0;  // names, sorted, no "." and ".."
    virtual Result<std::string> read_link(const std::string& path) = 0;
    virtual Result<SpaceStat> space(const std::string& path) = 0;
    // Does any descriptor or shared mapping, of whatever process, still write to this file? Asked of the kernel (a read
    // lease is refused while there is one), so descriptors of our own count too. kUnsupported where it cannot tell.
    virtual Result<bool> has_writers(const std::string& path);
    virtual std::string sqlite_vfs() const { return {}; }  // name of the SQLite VFS to open databases with
    virtual std::string boot_id();                         // coral::boot_id(), unless a test plays a power cut

    bool exists(const std::string& path) { return stat(path).ok(); }
};

// The kernel's files. Lives as long as the program.
Os& real_os();

// A file without a name, in memory, that outlives its process as long as somebody else has the descriptor, too.
Result<std::unique_ptr<File>> make_memory_file(const std::string& name);
// A descriptor that came from another process; `path` is what errors say. Closed by the destructor.
std::unique_ptr<File> adopt_file(int descriptor, std::string path);
// The first `size` bytes of a memory file, shared by all who map it, until the process ends.
Result<std::byte*> map_shared(File& file, std::size_t size);

// Whole small files. `write_file_atomic`: temporary file, fdatasync, rename, sync of the directory.
Result<std::string> read_file(Os& os, const std::string& path, std::uint64_t limit = 64u << 20);
Status write_file_atomic(Os& os, const std::string& path, Bytes data);

std::int64_t now_ns();  // wall clock, since 1970
// `rest` ns after `seconds` since 1970. What does not fit is the earliest or latest that does (1677 and 2262): far off
// as it was, not in another century.
std::int64_t time_ns(std::int64_t seconds, std::int64_t rest);
std::int64_t monotonic_ns();  // for measuring
std::string boot_id();        // differs after every boot of the machine
std::string path_join(std::string_view a, std::string_view b);
std::string path_parent(std::string_view path);
std::string path_name(std::string_view path);
// Absolute, without "." and ".." and double slashes; symlinks of existing parts resolved.
Result<std::string> absolute_path(const std::string& path);
std::string home_dir();
std::string login_name();  // of the process's user; never empty

}  // namespace coral
