// SPDX-License-Identifier: Apache-2.0
#include "cli/export_writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "cli/file_stream.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

class Fd {
  public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }
    // close(2) of a file on a network filesystem may be where "no space left" is told.
    int close() { return ::close(std::exchange(fd_, -1)); }

  private:
    int fd_;
};

Status write_all(int fd, Bytes bytes, const std::string& shown) {
    while (!bytes.empty()) {
        ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno_error(errno, quote_name(shown));
        bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
}

timespec to_timespec(std::int64_t ns) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    std::int64_t seconds = ns / kSecond, rest = ns % kSecond;
    if (rest < 0) {
        rest += kSecond;
        --seconds;
    }
    return {static_cast<time_t>(seconds), static_cast<long>(rest)};
}

Error in_the_way(const std::string& shown) {
    return make_error(Errc::kExists, fmt::format("{}: exists already; choose another DEST, or replace it with --force",
                                                 quote_name(shown)));
}

}  // namespace

// An open directory and how to call it in messages.
class ExportWriter::Dir {
  public:
    Dir(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

    // The user's own path: may lead through symlinks.
    static Result<Dir> open(const std::string& path) {
        int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) return errno_error(errno, quote_name(path));
        return Dir(fd, path);
    }
    // `name` in here, made if it is missing; never a symlink.
    Result<Dir> enter(const std::string& name, bool may_exist) const {
        std::string shown = path_join(path_, name);
        if (::mkdirat(get(), name.c_str(), 0700) != 0 && (errno != EEXIST || !may_exist)) {
            return errno == EEXIST ? in_the_way(shown) : errno_error(errno, quote_name(shown));
        }
        int fd = ::openat(get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) return Dir(fd, shown);
        if (errno != ENOTDIR && errno != ELOOP) return errno_error(errno, quote_name(shown));
        return make_error(Errc::kNotDirectory,
                          fmt::format("{}: is in the way of a directory; remove it first", quote_name(shown)));
    }
    int get() const { return fd_.get(); }
    const std::string& path() const { return path_; }

  private:
    Fd fd_;
    std::string path_;
};

Status ExportWriter::put_file(const Dir& dir, const repo::TreeEntry& entry, const std::string& temporary,
                              const std::string& shown) {
    CORAL_TRY(auto record, repository_.store().file(FileId::from(entry.content)));
    Fd fd(::openat(dir.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd.get() < 0) return errno_error(errno, quote_name(shown));
    CORAL_CHECK(stream_file(repository_.store(), record, [&](Bytes piece) -> Status {
        CORAL_CHECK(write_all(fd.get(), piece, shown));
        if (advance_) advance_(piece.size());
        return {};
    }));
    timespec times[2] = {{0, UTIME_NOW}, to_timespec(entry.mtime_ns)};
    if (::fchmod(fd.get(), entry.mode) != 0 || ::futimens(fd.get(), times) != 0 || fd.close() != 0) {
        return errno_error(errno, quote_name(shown));
    }
    return {};
}

// Written beside and renamed: the name is never seen with half its bytes.
Status ExportWriter::put(const Dir& dir, const repo::TreeEntry& entry, const std::string& name,
                         const std::string& shown) {
    std::string temporary = fmt::format(".coral-{}", Uuid::random().text());
    struct stat there {};
    if (!force_ && ::fstatat(dir.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0) return in_the_way(shown);
    auto write = [&]() -> Status {
        if (entry.type == repo::EntryType::kSymlink) {
            if (::symlinkat(entry.link.c_str(), dir.get(), temporary.c_str()) != 0)
                return errno_error(errno, quote_name(shown));
        } else {
            CORAL_CHECK(put_file(dir, entry, temporary, shown));
        }
        int renamed = ::renameat2(dir.get(), temporary.c_str(), dir.get(), name.c_str(), force_ ? 0 : RENAME_NOREPLACE);
        // Not every filesystem knows NOREPLACE; the look above then has to do.
        if (renamed != 0 && !force_ && errno == EINVAL)
            renamed = ::renameat(dir.get(), temporary.c_str(), dir.get(), name.c_str());
        if (renamed != 0) return errno == EEXIST ? in_the_way(shown) : errno_error(errno, quote_name(shown));
        return {};
    };
    Status done = write();
    if (!done)
        ::unlinkat(dir.get(), temporary.c_str(), 0);
    else
        ++files_;
    return done;
}

// No recursion: as deep as there are file descriptors, then an error that says so.
Status ExportWriter::fill(Dir top, const TreeId& tree) {
    struct Frame {
        Dir dir;
        std::shared_ptr<const repo::Tree> tree;
        std::size_t next = 0;
        std::optional<std::uint16_t> mode;  // set once it is full: it may forbid writing
    };
    std::vector<Frame> stack;
    CORAL_TRY(auto first, repository_.tree(tree));
    stack.push_back({std::move(top), std::move(first), 0, std::nullopt});
    while (!stack.empty()) {
        Frame& frame = stack.back();
        if (frame.next == frame.tree->entries.size()) {
            if (frame.mode && ::fchmod(frame.dir.get(), *frame.mode) != 0)
                return errno_error(errno, quote_name(frame.dir.path()));
            stack.pop_back();
            continue;
        }
        const repo::TreeEntry& entry = frame.tree->entries[frame.next++];
        if (entry.type != repo::EntryType::kDirectory) {
            CORAL_CHECK(put(frame.dir, entry, entry.name, path_join(frame.dir.path(), entry.name)));
            continue;
        }
        CORAL_TRY(Dir below, frame.dir.enter(entry.name, force_));
        CORAL_TRY(auto inner, repository_.tree(TreeId::from(entry.content)));
        stack.push_back({std::move(below), std::move(inner), 0, entry.mode});
    }
    return {};
}

Status ExportWriter::write_tree(const TreeId& tree, const std::string& dest) {
    auto made = real_os().make_dir(dest, 0755);
    if (!made) {
        if (made.error().code != Errc::kExists) return made;
        CORAL_TRY(std::vector<std::string> names, real_os().list_dir(dest));
        if (!names.empty() && !force_) {
            return make_error(Errc::kNotEmpty,
                              fmt::format("{}: is not empty (it holds '{}'); choose another DEST, or write into it "
                                          "with --force",
                                          quote_name(dest), quote_name(names.front())));
        }
    }
    CORAL_TRY(Dir dir, Dir::open(dest));
    return fill(std::move(dir), tree);
}

Status ExportWriter::write_entry(const repo::TreeEntry& entry, const std::string& dest) {
    CORAL_TRY(Dir dir, Dir::open(path_parent(dest)));
    return put(dir, entry, path_name(dest), dest);
}

}  // namespace coral::cli
