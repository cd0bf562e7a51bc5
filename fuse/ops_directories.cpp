// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "ops.hpp"
#include "reply.hpp"

namespace coral::fuse {

namespace {

constexpr std::size_t kMaxListing = 128u << 10;  // the kernel asks for a page or a few

// Fills a buffer as the kernel wants it; an entry that does not fit ends the reading and counts no reference.
void reply_listing(Request& r, vfs::HandleId handle, std::uint64_t offset, std::size_t size, bool plus) {
    std::vector<char> buffer(std::min(size, kMaxListing));
    std::size_t used = 0;
    auto visit = [&](const vfs::DirItem& item, const vfs::Entry* entry) {
        char* at = buffer.data() + used;
        std::size_t left = buffer.size() - used, needed;
        auto next = static_cast<off_t>(item.next);
        if (plus) {
            fuse_entry_param e{};  // node 0: "." and "..", which are no lookup
            if (entry)
                e = entry_param(*entry);
            else
                fill_stat(item.attr, e.attr);
            needed = fuse_add_direntry_plus(r.raw(), at, left, item.name.c_str(), &e, next);
        } else {
            struct stat st;
            fill_stat(item.attr, st);
            needed = fuse_add_direntry(r.raw(), at, left, item.name.c_str(), &st, next);
        }
        if (needed > left) return false;
        used += needed;
        return true;
    };
    Status status = r.fs().read_directory(handle, offset, plus, visit);
    // Entries before an error are delivered; the next call meets the error again.
    if (!status && used == 0) {
        r.error(status.error());
        return;
    }
    r.data(buffer.data(), used);
}

}  // namespace

void op_opendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
    handle(req, "opendir", [&](Request& r) {
        vfs::Filesystem& fs = r.fs();
        auto opened = fs.open_directory(node);
        if (!opened) {
            r.error(opened.error());
            return;
        }
        info->fh = *opened;
        if (!r.opened(*info)) fs.release_directory(*opened);
    });
}

void op_readdir(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    handle(req, "readdir",
           [&](Request& r) { reply_listing(r, info->fh, static_cast<std::uint64_t>(offset), size, false); });
}

void op_readdirplus(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    handle(req, "readdirplus",
           [&](Request& r) { reply_listing(r, info->fh, static_cast<std::uint64_t>(offset), size, true); });
}

void op_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
    handle(req, "releasedir", [&](Request& r) {
        r.fs().release_directory(info->fh);
        r.ok();
    });
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t node, int, fuse_file_info*) {
    handle(req, "fsyncdir", [&](Request& r) { r.status(r.fs().sync_directory(node)); });
}

}  // namespace coral::fuse
