// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <cerrno>
#include <mutex>
#include <new>
#include <vector>

#include "coral/base/bytes.hpp"
#include "io_mode.hpp"
#include "ops.hpp"
#include "reply.hpp"

namespace coral::fuse {

namespace {

// Read buffers of 1 MiB, as many as there were reads at once, and no allocation per request. The kernel wakes the
// thread that has slept longest, so a buffer of its own would have left the processor's cache: the one that was given
// back last is still there. Each begins at a page: the kernel copies page by page, and would need two of ours for each
// of its own.
class ReadBuffer {
  public:
    explicit ReadBuffer(std::size_t size) : size_(size), bytes_(size <= kMaxIo ? take() : make(size)) {}
    ~ReadBuffer() {
        if (size_ <= kMaxIo && give()) return;
        ::operator delete(bytes_, kPage);  // also when a kernel with a raised max_pages_limit asked for more
    }
    ReadBuffer(const ReadBuffer&) = delete;
    ReadBuffer& operator=(const ReadBuffer&) = delete;
    MutableBytes span() { return {bytes_, size_}; }

  private:
    static constexpr std::align_val_t kPage{4096};
    struct Spares {
        Spares() { bytes.reserve(256); }
        std::mutex mutex;
        std::vector<std::byte*> bytes;
    };
    static Spares& spares() {
        static Spares* all = new Spares;
        return *all;
    }
    static std::byte* make(std::size_t size) { return static_cast<std::byte*>(::operator new(size, kPage)); }
    static std::byte* take() {
        std::lock_guard lock(spares().mutex);
        if (spares().bytes.empty()) return make(kMaxIo);
        std::byte* last = spares().bytes.back();
        spares().bytes.pop_back();
        return last;
    }
    bool give() {
        std::lock_guard lock(spares().mutex);
        if (spares().bytes.size() == spares().bytes.capacity()) return false;
        spares().bytes.push_back(bytes_);
        return true;
    }
    std::size_t size_;
    std::byte* bytes_;
};

// The kernel did not take the answer: it will never send RELEASE.
void abandon(vfs::Filesystem& fs, vfs::HandleId handle) {
    (void)fs.flush(handle);
    fs.release(handle);
}

// These requests have no bit that says whether set-user-id must go (Passthrough::kills_privileges): it must unless the
// caller may keep it, which is root's right as far as we can see.
void changed_by_caller(Request& r, fuse_ino_t node) {
    if (r.caller().uid != 0) (void)r.fs().drop_set_ids(node, r.caller());
}

}  // namespace

void op_open(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
    handle(req, "open", [&](Request& r) {
        vfs::Filesystem& fs = r.fs();
        auto opened = fs.open_file(node, info->flags, r.caller());
        if (!opened) {
            r.error(opened.error());
            return;
        }
        if (Passthrough::kills_privileges()) (void)fs.drop_set_ids(node, r.caller());
        apply_io_mode(*opened, *info);
        if (!r.opened(*info)) abandon(fs, opened->handle);
    });
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
    handle(req, "create", [&](Request& r) {
        vfs::Filesystem& fs = r.fs();
        auto created = fs.create(parent, name, mode & 07777, info->flags, r.caller());
        if (!created) {
            r.error(created.error());
            return;
        }
        // O_TRUNC sets the bit of kills_privileges here too, but what is made now has the set-user-id that was asked
        // for.
        const auto& [entry, opened] = *created;
        apply_io_mode(opened, *info);
        if (!r.created(entry, *info)) {
            abandon(fs, opened.handle);
            fs.forget(entry.attr.node, 1);
        }
    });
}

void op_read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    handle(req, "read", [&](Request& r) {
        ReadBuffer buffer(size);
        auto got = r.fs().read(info->fh, static_cast<std::uint64_t>(offset), buffer.span());
        got ? r.data(buffer.span().data(), *got) : r.error(got.error());
    });
}

void op_write(fuse_req_t req, fuse_ino_t node, const char* data, size_t size, off_t offset, fuse_file_info* info) {
    handle(req, "write", [&](Request& r) {
        const auto from = info->writepage          ? vfs::WriteFrom::kPages
                          : info->flags & O_APPEND ? vfs::WriteFrom::kAppender
                                                   : vfs::WriteFrom::kCaller;
        auto done =
            r.fs().write(info->fh, static_cast<std::uint64_t>(offset), as_bytes(std::string_view(data, size)), from);
        if (done && Passthrough::kills_privileges()) (void)r.fs().drop_set_ids(node, r.caller());
        if (!done) {
            r.error(done.error());
            return;
        }
        // Pages that are written back hold up everybody who needs memory.
        r.written(*done, info->writepage ? LateReplies::Clock::time_point{} : r.fs().turn(info->fh));
    });
}

void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
    handle(req, "flush", [&](Request& r) { r.status(r.fs().flush(info->fh)); });
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
    handle(req, "release", [&](Request& r) {
        r.fs().release(info->fh);
        r.ok();
    });
}

void op_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info* info) {
    handle(req, "fsync", [&](Request& r) { r.status(r.fs().sync(info->fh)); });
}

void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t length, fuse_file_info* info) {
    handle(req, "fallocate", [&](Request& r) {
        if (offset < 0 || length <= 0) {
            r.error(EINVAL);
            return;
        }
        Status done =
            r.fs().allocate(info->fh, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length), mode);
        if (done) changed_by_caller(r, node);
        r.status(done);
    });
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t, off_t from_offset, fuse_file_info* from_info, fuse_ino_t to,
                        off_t to_offset, fuse_file_info* to_info, size_t length, int flags) {
    handle(req, "copy_file_range", [&](Request& r) {
        if (flags != 0) {
            r.error(EINVAL);
            return;
        }
        auto copied = r.fs().copy_range(from_info->fh, static_cast<std::uint64_t>(from_offset), to_info->fh,
                                        static_cast<std::uint64_t>(to_offset), length);
        if (copied) changed_by_caller(r, to);
        copied ? r.written(*copied, r.fs().turn(to_info->fh)) : r.error(copied.error());
    });
}

void op_lseek(fuse_req_t req, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
    handle(req, "lseek", [&](Request& r) {
        if (offset < 0) {
            r.error(ENXIO);
            return;
        }
        auto found = r.fs().seek(info->fh, static_cast<std::uint64_t>(offset), whence);
        found ? r.offset(static_cast<off_t>(*found)) : r.error(found.error());
    });
}

}  // namespace coral::fuse
