// SPDX-License-Identifier: Apache-2.0
// The FUSE operations. Each only translates: checks of form, one call into vfs, one reply.
#pragma once

#include "fuse_api.hpp"

namespace coral::fuse {

const fuse_lowlevel_ops& operations();

void op_init(void* userdata, fuse_conn_info* conn);

// ops_names.cpp
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name);
void op_forget(fuse_req_t req, fuse_ino_t node, uint64_t count);
void op_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets);
void op_readlink(fuse_req_t req, fuse_ino_t node);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t device);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode);
void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name);
void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char* name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
               unsigned flags);

// ops_attributes.cpp
void op_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat* st, int which, fuse_file_info* info);
void op_setxattr(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t node, const char* name);
void op_statfs(fuse_req_t req, fuse_ino_t node);

// ops_files.cpp
void op_open(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info);
void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info);
void op_write(fuse_req_t req, fuse_ino_t node, const char* data, size_t size, off_t offset, fuse_file_info* info);
void op_flush(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void op_release(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void op_fsync(fuse_req_t req, fuse_ino_t node, int data_only, fuse_file_info* info);
void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t length, fuse_file_info* info);
void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info* from_info, fuse_ino_t to,
                        off_t to_offset, fuse_file_info* to_info, size_t length, int flags);
void op_lseek(fuse_req_t req, fuse_ino_t node, off_t offset, int whence, fuse_file_info* info);

// ops_directories.cpp
void op_opendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info);
void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info);
void op_releasedir(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void op_fsyncdir(fuse_req_t req, fuse_ino_t node, int data_only, fuse_file_info* info);

}  // namespace coral::fuse
