// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <cerrno>
#include <string_view>

#include "coral/base/os.hpp"
#include "ops.hpp"
#include "passthrough.hpp"
#include "reply.hpp"

namespace coral::fuse {

namespace {

std::optional<vfs::HandleId> handle_of(const fuse_file_info* info) {
    if (!info) return std::nullopt;
    return info->fh;
}

std::int64_t nanoseconds(const timespec& t) {
    return time_ns(t.tv_sec, t.tv_nsec);
}

repo::SetAttributes changes_of(const struct stat& st, int which) {
    repo::SetAttributes set;
    if (which & FUSE_SET_ATTR_MODE) set.mode = st.st_mode & 07777;
    if (which & FUSE_SET_ATTR_UID) set.uid = st.st_uid;
    if (which & FUSE_SET_ATTR_GID) set.gid = st.st_gid;
    if (which & FUSE_SET_ATTR_SIZE) set.size = static_cast<std::uint64_t>(st.st_size);
    std::int64_t now = now_ns();
    if (which & FUSE_SET_ATTR_ATIME) set.atime_ns = nanoseconds(st.st_atim);
    if (which & FUSE_SET_ATTR_ATIME_NOW) set.atime_ns = now;
    if (which & FUSE_SET_ATTR_MTIME) set.mtime_ns = nanoseconds(st.st_mtim);
    if (which & FUSE_SET_ATTR_MTIME_NOW) set.mtime_ns = now;
    return set;
}

// What the kernel and common tools ask all the time and we never have: security.capability before nearly each WRITE,
// security.selinux and the ACLs at each `ls -l`. Answered without looking at the file; and not with ENODATA, after
// which `ls` asks again at the next file. 0: look.
int quick_xattr_error(std::string_view name) {
    return name.starts_with("security.") || name.starts_with("system.") ? EOPNOTSUPP : 0;
}

// A value or a list, by the rules of getxattr(2): size 0 asks how long it is.
void reply_sized(Request& r, const std::string& value, size_t size) {
    if (size == 0) {
        r.xattr_size(value.size());
    } else if (value.size() > size) {
        r.error(ERANGE);
    } else {
        r.data(value.data(), value.size());
    }
}

}  // namespace

void op_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
    handle(req, "getattr", [&](Request& r) {
        auto entry = r.fs().attributes(node, handle_of(info));
        entry ? r.attributes(*entry) : r.error(entry.error());
    });
}

void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat* st, int which, fuse_file_info* info) {
    handle(req, "setattr", [&](Request& r) {
        if ((which & FUSE_SET_ATTR_SIZE) && st->st_size < 0) {
            r.error(EINVAL);
            return;
        }
        auto entry = r.fs().set_attributes(node, changes_of(*st, which), handle_of(info));
        // A change of owner does it for everybody, root included; chmod with it says what it wants.
        bool chown = (which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) && !(which & FUSE_SET_ATTR_MODE);
        if (entry && (chown || Passthrough::kills_privileges())) entry = r.fs().drop_set_ids(node, r.caller());
        entry ? r.attributes(*entry) : r.error(entry.error());
    });
}

void op_setxattr(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size, int flags) {
    handle(req, "setxattr", [&](Request& r) {
        if (quick_xattr_error(name)) {
            r.error(EOPNOTSUPP);
            return;
        }
        auto mode = repo::Worktree::XattrMode::kAny;
        if (flags & XATTR_CREATE) mode = repo::Worktree::XattrMode::kCreate;
        if (flags & XATTR_REPLACE) mode = repo::Worktree::XattrMode::kReplace;
        r.status(r.fs().set_xattr(node, name, std::string(value, size), mode));
    });
}

void op_getxattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size) {
    handle(req, "getxattr", [&](Request& r) {
        if (int error = quick_xattr_error(name)) {
            r.error(error);
            return;
        }
        // How `coral` finds its way out of a mount to the daemon behind it; vfs knows nothing of sockets.
        if (std::string_view(name) == "user.coral.socket" && !r.mount().control_socket.empty()) {
            std::string socket = r.mount().control_socket;
            reply_sized(r, socket, size);
            return;
        }
        auto value = r.fs().get_xattr(node, name);
        if (value) {
            reply_sized(r, *value, size);
        } else {
            r.error(value.error());
        }
    });
}

void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size) {
    handle(req, "listxattr", [&](Request& r) {
        auto names = r.fs().list_xattrs(node);
        if (!names) {
            r.error(names.error());
            return;
        }
        std::string list;
        for (const std::string& name : *names) list.append(name).push_back('\0');
        reply_sized(r, list, size);
    });
}

void op_removexattr(fuse_req_t req, fuse_ino_t node, const char* name) {
    handle(req, "removexattr", [&](Request& r) {
        if (int error = quick_xattr_error(name)) {
            r.error(error);
            return;
        }
        r.status(r.fs().remove_xattr(node, name));
    });
}

void op_statfs(fuse_req_t req, fuse_ino_t node) {
    handle(req, "statfs", [&](Request& r) {
        auto space = r.fs().space(node ? node : vfs::kRoot);
        if (!space) {
            r.error(space.error());
            return;
        }
        struct statvfs st {};
        st.f_bsize = st.f_frsize = space->block_size;
        st.f_blocks = space->blocks;
        st.f_bfree = space->blocks_free;
        st.f_bavail = space->blocks_available;
        st.f_files = space->files;
        st.f_ffree = st.f_favail = space->files_free;
        st.f_namemax = space->name_max;
        r.space(st);
    });
}

}  // namespace coral::fuse
