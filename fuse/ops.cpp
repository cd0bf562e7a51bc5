// SPDX-License-Identifier: Apache-2.0
#include "ops.hpp"

#include "coral/base/log.hpp"
#include "mount.hpp"
#include "passthrough.hpp"

namespace coral::fuse {

void op_init(void* userdata, fuse_conn_info* conn) {
    auto* mount = static_cast<Mount*>(userdata);
    mount->features = negotiate(*conn);
    mount->features.direct_maps = mount->features.coherent_direct_writes && Passthrough::direct_can_be_mapped();
    log_info("{}", mount->features.text());
    mount->fs.set_direct_over_pages(mount->features.coherent_direct_writes);
    mount->fs.set_direct_maps(mount->features.direct_maps);
    if (mount->initialised) mount->initialised();
}

// Absent on purpose: access (default_permissions), getlk, setlk, flock (the kernel's own), ioctl, poll, bmap, write_buf
// (without splice it brings nothing).
const fuse_lowlevel_ops& operations() {
    static const fuse_lowlevel_ops ops = [] {
        fuse_lowlevel_ops o{};
        o.init = op_init;
        o.lookup = op_lookup;
        o.forget = op_forget;
        o.forget_multi = op_forget_multi;
        o.getattr = op_getattr;
        o.setattr = op_setattr;
        o.readlink = op_readlink;
        o.mknod = op_mknod;
        o.mkdir = op_mkdir;
        o.unlink = op_unlink;
        o.rmdir = op_rmdir;
        o.symlink = op_symlink;
        o.rename = op_rename;
        o.link = op_link;
        o.open = op_open;
        o.create = op_create;
        o.read = op_read;
        o.write = op_write;
        o.flush = op_flush;
        o.release = op_release;
        o.fsync = op_fsync;
        o.opendir = op_opendir;
        o.readdir = op_readdir;
        o.readdirplus = op_readdirplus;
        o.releasedir = op_releasedir;
        o.fsyncdir = op_fsyncdir;
        o.statfs = op_statfs;
        o.setxattr = op_setxattr;
        o.getxattr = op_getxattr;
        o.listxattr = op_listxattr;
        o.removexattr = op_removexattr;
        o.fallocate = op_fallocate;
        o.copy_file_range = op_copy_file_range;
        o.lseek = op_lseek;
        return o;
    }();
    return ops;
}

}  // namespace coral::fuse
