// SPDX-License-Identifier: Apache-2.0
#include "reply.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "coral/base/log.hpp"

namespace coral::fuse {

namespace {

timespec timespec_of(std::int64_t ns) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    std::int64_t seconds = ns / kSecond, rest = ns % kSecond;
    if (rest < 0) {  // before 1970
        rest += kSecond;
        --seconds;
    }
    return {seconds, rest};
}

mode_t type_bits(FileType type) {
    switch (type) {
        case FileType::kDirectory:
            return S_IFDIR;
        case FileType::kSymlink:
            return S_IFLNK;
        case FileType::kRegular:
        case FileType::kOther:
            break;
    }
    return S_IFREG;
}

}  // namespace

void fill_stat(const vfs::Attr& attr, struct stat& st) {
    std::memset(&st, 0, sizeof st);
    st.st_ino = attr.node;
    st.st_mode = type_bits(attr.type) | (attr.mode & 07777);
    st.st_nlink = attr.nlink;
    st.st_uid = attr.uid;
    st.st_gid = attr.gid;
    st.st_size = static_cast<off_t>(attr.size);
    st.st_blocks = static_cast<blkcnt_t>(attr.blocks);
    st.st_blksize = static_cast<blksize_t>(attr.preferred_io);
    st.st_atim = timespec_of(attr.atime_ns);
    st.st_mtim = timespec_of(attr.mtime_ns);
    st.st_ctim = timespec_of(attr.ctime_ns);
}

fuse_entry_param entry_param(const vfs::Entry& entry) {
    fuse_entry_param e{};
    e.ino = entry.attr.node;
    fill_stat(entry.attr, e.attr);
    e.entry_timeout = entry.entry_timeout;
    e.attr_timeout = entry.attr_timeout;
    return e;
}

void log_exception(const char* operation, const char* what) {
    try {
        log_error("{}: exception: {}", operation, what);
    } catch (...) {  // nothing is left to do it with
    }
}

Request::~Request() {
    if (!raw_) return;
    mount().unanswered.fetch_add(1, std::memory_order_relaxed);
    log_exception(operation_, "request left unanswered");
    error(EIO);
}

fuse_req_t Request::take() {
    if (!raw_) log_exception(operation_, "answered twice");
    return std::exchange(raw_, nullptr);
}

vfs::Caller Request::caller() const {
    const fuse_ctx* ctx = fuse_req_ctx(raw_);
    return {ctx->uid, ctx->gid, static_cast<std::uint32_t>(ctx->pid), ctx->umask};
}

bool Request::error(int number) {
    fuse_req_t raw = take();
    return raw && fuse_reply_err(raw, number) == 0;
}

bool Request::error(const Error& error) {
    int number = to_errno(error.code);
    // Users see only "Input/output error": the log must say more.
    if (number == EIO) {
        log_error("{}: {}", operation_, error.message);
    } else {
        log_debug("{}: {}", operation_, error.message);
    }
    return this->error(number);
}

bool Request::none() {
    fuse_req_t raw = take();
    if (raw) fuse_reply_none(raw);
    return raw != nullptr;
}

bool Request::entry(const vfs::Entry& entry) {
    fuse_entry_param e = entry_param(entry);
    fuse_req_t raw = take();
    return raw && fuse_reply_entry(raw, &e) == 0;
}

bool Request::attributes(const vfs::Entry& entry) {
    struct stat st;
    fill_stat(entry.attr, st);
    fuse_req_t raw = take();
    return raw && fuse_reply_attr(raw, &st, entry.attr_timeout) == 0;
}

bool Request::created(const vfs::Entry& entry, const fuse_file_info& info) {
    fuse_entry_param e = entry_param(entry);
    fuse_req_t raw = take();
    return raw && fuse_reply_create(raw, &e, &info) == 0;
}

bool Request::opened(const fuse_file_info& info) {
    fuse_req_t raw = take();
    return raw && fuse_reply_open(raw, &info) == 0;
}

bool Request::data(const void* bytes, std::size_t size) {
    fuse_req_t raw = take();
    return raw && fuse_reply_buf(raw, static_cast<const char*>(bytes), size) == 0;
}

bool Request::written(std::size_t size, LateReplies::Clock::time_point when) {
    Mount& at = mount();
    fuse_req_t raw = take();
    return raw && at.late_replies.written(raw, size, when);
}

bool Request::link(const std::string& target) {
    fuse_req_t raw = take();
    return raw && fuse_reply_readlink(raw, target.c_str()) == 0;
}

bool Request::xattr_size(std::size_t size) {
    fuse_req_t raw = take();
    return raw && fuse_reply_xattr(raw, size) == 0;
}

bool Request::space(const struct statvfs& space) {
    fuse_req_t raw = take();
    return raw && fuse_reply_statfs(raw, &space) == 0;
}

bool Request::offset(off_t offset) {
    fuse_req_t raw = take();
    return raw && fuse_reply_lseek(raw, offset) == 0;
}

}  // namespace coral::fuse
