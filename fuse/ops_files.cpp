// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <cerrno>
#include <memory>

#include "coral/base/bytes.hpp"
#include "io_mode.hpp"
#include "ops.hpp"
#include "reply.hpp"

namespace coral::fuse {

namespace {

// One read buffer per thread of the session: at most 1 MiB each, and no allocation per request. Not from the heap's
// arenas, and not touched before the first read.
struct ReadBuffer {
    std::unique_ptr<std::byte[]> bytes{new std::byte[kMaxIo]};
    MutableBytes span(std::size_t size) { return {bytes.get(), size}; }
};

MutableBytes read_buffer(std::size_t size, Buffer& large) {
    thread_local ReadBuffer buffer;
    if (size <= kMaxIo) return buffer.span(size);
    large.resize(size);  // a kernel with a raised max_pages_limit
    return large;
}

// The kernel did not take the answer: it will never send RELEASE.
void abandon(vfs::Filesystem& fs, vfs::HandleId handle) {
    (void)fs.flush(handle);
    fs.release(handle);
}

// These requests have no bit that says whether set-user-id must go (Passthrough::kills_privileges): it must unless the
// caller may keep it, which is root's right as far as we can see.
void changed_by_caller(Request& r, fuse_ino_t node) {
    if (r.caller().uid != 0) (void)r.fs().drop_set_ids(node);
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
        if (Passthrough::kills_privileges()) (void)fs.drop_set_ids(node);
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
        const auto& [entry, opened] = *created;
        if (Passthrough::kills_privileges()) (void)fs.drop_set_ids(entry.attr.node);
        apply_io_mode(opened, *info);
        if (!r.created(entry, *info)) {
            abandon(fs, opened.handle);
            fs.forget(entry.attr.node, 1);
        }
    });
}

void op_read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    handle(req, "read", [&](Request& r) {
        Buffer large;
        MutableBytes out = read_buffer(size, large);
        auto got = r.fs().read(info->fh, static_cast<std::uint64_t>(offset), out);
        got ? r.data(out.data(), *got) : r.error(got.error());
    });
}

void op_write(fuse_req_t req, fuse_ino_t node, const char* data, size_t size, off_t offset, fuse_file_info* info) {
    handle(req, "write", [&](Request& r) {
        auto done = r.fs().write(info->fh, static_cast<std::uint64_t>(offset), as_bytes(std::string_view(data, size)));
        if (done && Passthrough::kills_privileges()) (void)r.fs().drop_set_ids(node);
        done ? r.written(*done) : r.error(done.error());
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
        copied ? r.written(*copied) : r.error(copied.error());
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
