// SPDX-License-Identifier: Apache-2.0
// copy_file_range(2).
#include <algorithm>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

constexpr std::uint64_t kCopyBuffer = 4u << 20;
// The answer's field has 32 bits, and one request should not hold its thread for ever.
constexpr std::uint64_t kMostAtOnce = 1u << 30;
constexpr std::uint64_t kMostLinked = 0x7ffff000;

}  // namespace

// The content that all of its bytes are, if it is in the store.
std::optional<FileId> MountedFilesystem::stored_whole(const FileHandle& handle) {
    if (handle.record) return handle.record->id;
    return handle.worktree->content_id(handle.inode);
}

// The kernel cuts a request at 2 GiB, so a file is copied as metadata step by step: the target becomes the first n
// bytes of the stored source, each time more, until it is all of it. A step that does not go on where the last one
// ended is no such copy.
Result<bool> MountedFilesystem::copy_as_metadata(FileHandle& from, FileHandle& to, std::uint64_t offset,
                                                 std::uint64_t length) {
    if (from.node == to.node) return false;
    const std::optional<FileId> content = stored_whole(from);
    if (!content) return false;
    CORAL_TRY(auto record, repo_.store().file(*content));
    if (record->size == 0 || to.worktree->attributes(to.inode).size != offset) return false;
    if (offset != 0) {
        std::lock_guard lock(to.node->mutex);
        if (to.node->copied_from != content || to.node->copied != offset) return false;
    }
    std::uint64_t end = std::min(record->size, offset + length);
    // A few bytes are cheaper copied than renamed in the state.
    if (offset == 0 && end < kCopyBuffer && end < record->size) return false;
    auto cloned = to.worktree->place_content(to.inode, *content, record->size);
    if (!cloned) {
        if (cloned.error().code == Errc::kUnsupported) return false;
        return std::move(cloned).error();
    }
    if (end < record->size) {
        repo::SetAttributes cut;
        cut.size = end;
        CORAL_CHECK(to.worktree->set_attributes(to.inode, cut));
    }
    wrote(to, offset, end - offset);
    std::lock_guard lock(to.node->mutex);
    to.node->copied_from = content;
    to.node->copied = end;
    return true;
}

Result<std::size_t> MountedFilesystem::copy_bytes(FileHandle& from, std::uint64_t from_offset, FileHandle& to,
                                                  std::uint64_t to_offset, std::uint64_t length) {
    Buffer buffer(static_cast<std::size_t>(std::min(length, kCopyBuffer)));
    std::uint64_t done = 0;
    while (done < length) {
        MutableBytes part(buffer.data(),
                          static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), length - done)));
        auto got = read_from(from, from_offset + done, part);
        Status written;
        if (got && *got > 0) written = to.worktree->write(to.inode, to_offset + done, part.first(*got));
        // What was copied before an error counts; the next call meets it again.
        if (!got || !written) {
            if (done > 0) break;
            if (!got) return std::move(got).error();
            return std::move(written).error();
        }
        if (*got == 0) break;
        done += *got;
        wrote(to, to_offset + done - *got, *got);
        to.turn = backlog_->turn(*got);
        // The answer waits for its turn: no more comes before it than a few writes would bring.
        if (to.turn.load() > repo::Backlog::Clock::now()) break;
    }
    return static_cast<std::size_t>(done);
}

// What of the range can be shown in the target without its bytes is not copied; what is before and behind it is.
Result<std::size_t> MountedFilesystem::copy_linked(FileHandle& from, std::uint64_t from_offset, FileHandle& to,
                                                   std::uint64_t to_offset, std::uint64_t length) {
    auto copied = [&](std::uint64_t done, std::uint64_t end) -> Result<std::uint64_t> {
        if (done >= end) return done;
        auto more = copy_bytes(from, from_offset + done, to, to_offset + done, end - done);
        if (!more && done == 0) return std::move(more).error();
        return done + (more ? *more : 0);
    };
    const std::optional<FileId> content = stored_whole(from);
    const std::uint64_t past = to_offset % repo::Worktree::kLinkUnit;
    const std::uint64_t before = past ? repo::Worktree::kLinkUnit - past : 0;
    if (!content || before >= length) return copied(0, std::min(length, kMostAtOnce));
    // What is before the first unit comes first: the client must not be told of an error when the file has changed.
    CORAL_TRY(std::uint64_t done, copied(0, before));
    if (done < before) return done;
    auto linked =
        to.worktree->link_content(to.inode, to_offset + before, length - before, *content, from_offset + before);
    if (!linked && done == 0) return std::move(linked).error();
    if (!linked) return done;
    if (linked->length == 0) return copied(done, std::min(length, done + kMostAtOnce));
    wrote(to, linked->offset, linked->length);
    return copied(linked->offset + linked->length - to_offset, length);
}

Result<std::size_t> MountedFilesystem::copy_range(HandleId from_id, std::uint64_t from_offset, HandleId to_id,
                                                  std::uint64_t to_offset, std::uint64_t length) {
    CORAL_TRY(auto to, writable_handle(to_id));
    CORAL_TRY(auto from, files_.find(from_id));
    if (!from->readable) return make_error(Errc::kBadHandle, "not open for reading");
    CORAL_TRY(std::uint64_t size, size_of(*from));
    if (from_offset >= size || length == 0) return std::size_t{0};
    length = std::min(length, size - from_offset);
    if (from->node == to->node && from_offset < to_offset + length && to_offset < from_offset + length) {
        return make_error(Errc::kInvalid, "the ranges overlap");
    }
    if (from_offset == to_offset) {
        std::uint64_t whole = std::min(length, kMostLinked);
        CORAL_TRY(bool cloned, copy_as_metadata(*from, *to, to_offset, whole));
        if (cloned) return static_cast<std::size_t>(whole);
    }
    return copy_linked(*from, from_offset, *to, to_offset, std::min(length, kMostLinked));
}

}  // namespace coral::vfs
