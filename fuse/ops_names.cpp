// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cerrno>
#include <span>

#include "ops.hpp"
#include "reply.hpp"

namespace coral::fuse {

namespace {

// An entry carries one kernel reference; when the kernel did not take the answer it will never give it back.
void reply_entry(Request& request, const Result<vfs::Entry>& entry) {
    if (!entry) {
        request.error(entry.error());
        return;
    }
    vfs::Filesystem& fs = request.fs();
    if (!request.entry(*entry)) fs.forget(entry->attr.node, 1);
}

}  // namespace

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
    handle(req, "lookup", [&](Request& r) { reply_entry(r, r.fs().lookup(parent, name)); });
}

void op_forget(fuse_req_t req, fuse_ino_t node, uint64_t count) {
    handle(req, "forget", [&](Request& r) {
        r.fs().forget(node, count);
        r.none();
    });
}

void op_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
    handle(req, "forget", [&](Request& r) {
        for (const fuse_forget_data& item : std::span(forgets, count)) r.fs().forget(item.ino, item.nlookup);
        r.none();
    });
}

void op_readlink(fuse_req_t req, fuse_ino_t node) {
    handle(req, "readlink", [&](Request& r) {
        auto target = r.fs().read_link(node);
        target ? r.link(*target) : r.error(target.error());
    });
}

// What is never made here: EPERM, but EROFS where nothing may be made.
static void refuse(Request& r, fuse_ino_t parent) {
    Status writable = r.fs().check_writable(parent);
    writable ? r.error(EPERM) : r.error(writable.error());
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
    handle(req, "mknod", [&](Request& r) {
        if ((mode & S_IFMT) != S_IFREG && (mode & S_IFMT) != 0) {
            refuse(r, parent);  // no devices, FIFOs, sockets in a history of files
            return;
        }
        auto made = r.fs().create(parent, name, mode & 07777, O_CREAT | O_EXCL | O_WRONLY, r.caller());
        if (!made) {
            r.error(made.error());
            return;
        }
        // As after an open and a close, so that the empty file counts as complete.
        (void)r.fs().flush(made->second.handle);
        r.fs().release(made->second.handle);
        reply_entry(r, made->first);
    });
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
    handle(req, "mkdir",
           [&](Request& r) { reply_entry(r, r.fs().make_directory(parent, name, mode & 07777, r.caller())); });
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
    handle(req, "symlink", [&](Request& r) { reply_entry(r, r.fs().make_symlink(parent, name, target, r.caller())); });
}

void op_link(fuse_req_t req, fuse_ino_t, fuse_ino_t parent, const char*) {
    handle(req, "link", [&](Request& r) { refuse(r, parent); });  // as on any filesystem without hard links
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
    handle(req, "unlink", [&](Request& r) { r.status(r.fs().unlink(parent, name)); });
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
    handle(req, "rmdir", [&](Request& r) { r.status(r.fs().remove_directory(parent, name)); });
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
               unsigned flags) {
    handle(req, "rename", [&](Request& r) {
        repo::RenameMode mode = repo::RenameMode::kReplace;
        if (flags == RENAME_NOREPLACE) {
            mode = repo::RenameMode::kNoReplace;
        } else if (flags == RENAME_EXCHANGE) {
            mode = repo::RenameMode::kExchange;
        } else if (flags != 0) {
            r.error(EINVAL);
            return;
        }
        r.status(r.fs().rename(parent, name, new_parent, new_name, mode));
    });
}

}  // namespace coral::fuse
