// SPDX-License-Identifier: Apache-2.0
// The kernel's files: the only implementation that users run.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <boost/filesystem.hpp>

#include <algorithm>
#include <cerrno>

#include "coral/base/os.hpp"

namespace coral {
namespace {

FileStat from_native(const struct ::stat& st) {
    FileStat out;
    if (S_ISREG(st.st_mode))
        out.type = FileType::kRegular;
    else if (S_ISDIR(st.st_mode))
        out.type = FileType::kDirectory;
    else if (S_ISLNK(st.st_mode))
        out.type = FileType::kSymlink;
    out.size = static_cast<std::uint64_t>(st.st_size);
    out.device = st.st_dev;
    out.inode = st.st_ino;
    out.blocks = static_cast<std::uint64_t>(st.st_blocks);
    out.mode = st.st_mode & 07777;
    out.uid = st.st_uid;
    out.gid = st.st_gid;
    out.mtime_ns = time_ns(st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return out;
}

template <class Call>
auto retry(Call call) {
    decltype(call()) got;
    do {
        got = call();
    } while (got < 0 && errno == EINTR);
    return got;
}

class RealFile final : public File {
  public:
    RealFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
    ~RealFile() override { ::close(fd_); }
    RealFile(const RealFile&) = delete;
    RealFile& operator=(const RealFile&) = delete;

    Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) override {
        std::size_t done = 0;
        while (done < out.size()) {
            ssize_t got = retry(
                [&] { return ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done)); });
            if (got < 0) return errno_error(errno, path_);
            if (got == 0) break;
            done += static_cast<std::size_t>(got);
        }
        return done;
    }

    Status write_at(std::uint64_t offset, Bytes data) override {
        std::size_t done = 0;
        while (done < data.size()) {
            ssize_t put = retry([&] {
                return ::pwrite(fd_, data.data() + done, std::min<std::size_t>(kDiskWrite, data.size() - done),
                                static_cast<off_t>(offset + done));
            });
            if (put < 0) return errno_error(errno, path_);
            done += static_cast<std::size_t>(put);
        }
        return {};
    }

    Status truncate(std::uint64_t size) override {
        return check(retry([&] { return ::ftruncate(fd_, static_cast<off_t>(size)); }));
    }
    Status reserve(std::uint64_t size) override {
        if (size == 0) return truncate(0);
        int error = ::posix_fallocate(fd_, 0, static_cast<off_t>(size));
        if (error == EOPNOTSUPP || error == EINVAL) return truncate(size);
        if (error != 0) return errno_error(error, path_);
        return {};
    }
    Status sync_data() override {
        return check(retry([&] { return ::fdatasync(fd_); }));
    }
    Result<FileStat> stat() override {
        struct ::stat st;
        if (::fstat(fd_, &st) != 0) return errno_error(errno, path_);
        return from_native(st);
    }
    Status change_mode(std::uint32_t mode) override { return check(::fchmod(fd_, mode)); }
    Status set_mtime(std::int64_t ns) override {
        constexpr std::int64_t kSecond = 1'000'000'000;
        const std::int64_t rest = (ns % kSecond + kSecond) % kSecond;
        const timespec times[2] = {{0, UTIME_OMIT}, {(ns - rest) / kSecond, rest}};
        return check(::futimens(fd_, times));
    }

    Result<bool> try_lock(bool exclusive) override {
        struct flock lock {};
        lock.l_type = static_cast<short>(exclusive ? F_WRLCK : F_RDLCK);
        lock.l_whence = SEEK_SET;
        if (::fcntl(fd_, F_OFD_SETLK, &lock) == 0) return true;
        if (errno == EAGAIN || errno == EACCES) return false;
        return errno_error(errno, path_);
    }
    Status unlock() override {
        struct flock lock {};
        lock.l_type = F_UNLCK;
        lock.l_whence = SEEK_SET;
        return check(::fcntl(fd_, F_OFD_SETLK, &lock));
    }
    int native_handle() const override { return fd_; }

  private:
    Status check(int result) const {
        if (result != 0) return errno_error(errno, path_);
        return {};
    }
    int fd_;
    std::string path_;
};

class RealOs final : public Os {
  public:
    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        int flags = O_CLOEXEC | O_NOCTTY;
        switch (mode) {
            case OpenMode::kRead:
                flags |= O_RDONLY;
                break;
            case OpenMode::kReadWrite:
                flags |= O_RDWR;
                break;
            case OpenMode::kCreateNew:
                flags |= O_RDWR | O_CREAT | O_EXCL;
                break;
            case OpenMode::kOpenOrCreate:
                flags |= O_RDWR | O_CREAT;
                break;
        }
        int fd = retry([&] { return ::open(path.c_str(), flags, 0600); });
        if (fd < 0) return errno_error(errno, path);
        return std::unique_ptr<File>(std::make_unique<RealFile>(fd, path));
    }
    Status rename(const std::string& from, const std::string& to) override {
        return check(::rename(from.c_str(), to.c_str()), from);
    }
    Status remove(const std::string& path) override { return check(::unlink(path.c_str()), path); }
    Status remove_dir(const std::string& path) override { return check(::rmdir(path.c_str()), path); }
    Status make_dir(const std::string& path, std::uint32_t mode) override {
        return check(::mkdir(path.c_str(), mode), path);
    }
    Status sync_dir(const std::string& path) override {
        int fd = retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
        if (fd < 0) return errno_error(errno, path);
        Status done = check(retry([&] { return ::fsync(fd); }), path);
        ::close(fd);
        return done;
    }
    Result<FileStat> stat(const std::string& path) override {
        struct ::stat st;
        if (::stat(path.c_str(), &st) != 0) return errno_error(errno, path);
        return from_native(st);
    }
    Result<FileStat> lstat(const std::string& path) override {
        struct ::stat st;
        if (::lstat(path.c_str(), &st) != 0) return errno_error(errno, path);
        return from_native(st);
    }
    Result<std::vector<std::string>> list_dir(const std::string& path) override {
        boost::system::error_code error;
        boost::filesystem::directory_iterator it(path, error), end;
        std::vector<std::string> names;
        while (!error && it != end) {
            names.push_back(it->path().filename().native());
            it.increment(error);
        }
        if (error) return errno_error(error.value(), path);
        std::sort(names.begin(), names.end());
        return names;
    }
    Result<std::string> read_link(const std::string& path) override {
        boost::system::error_code error;
        boost::filesystem::path target = boost::filesystem::read_symlink(path, error);
        if (error) return errno_error(error.value(), path);
        return target.native();
    }
    Result<SpaceStat> space(const std::string& path) override {
        struct ::statvfs st;
        if (::statvfs(path.c_str(), &st) != 0) return errno_error(errno, path);
        return SpaceStat{st.f_frsize, st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree};
    }

    Result<bool> has_writers(const std::string& path) override {
        int fd = retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY); });
        if (fd < 0) return errno_error(errno, path);
        // Who opens the file for writing in the moments of the lease breaks it, which is told by a signal: one that
        // does nothing, instead of SIGIO, which would end the process.
        (void)::fcntl(fd, F_SETSIG, SIGURG);
        int result = ::fcntl(fd, F_SETLEASE, F_RDLCK);
        int error = errno;
        if (result == 0) (void)::fcntl(fd, F_SETLEASE, F_UNLCK);
        ::close(fd);
        if (result == 0) return false;
        if (error == EAGAIN) return true;
        return errno_error(error, path);
    }

  private:
    static Status check(int result, const std::string& path) {
        if (result != 0) return errno_error(errno, path);
        return {};
    }
};

}  // namespace

Os& real_os() {
    static RealOs os;
    return os;
}

std::unique_ptr<File> adopt_file(int descriptor, std::string path) {
    return std::make_unique<RealFile>(descriptor, std::move(path));
}

Result<std::unique_ptr<File>> make_memory_file(const std::string& name) {
    int fd = ::memfd_create(name.c_str(), MFD_CLOEXEC);
    if (fd < 0) return errno_error(errno, "memfd_create");
    return adopt_file(fd, "memory file " + name);
}

Result<std::byte*> map_shared(File& file, std::size_t size) {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.native_handle(), 0);
    if (at == MAP_FAILED) return errno_error(errno, "mmap");
    return static_cast<std::byte*>(at);
}

}  // namespace coral
