// SPDX-License-Identifier: Apache-2.0
// Open files.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

bool wants_write(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY;
}

}  // namespace

Result<Opened> MountedFilesystem::open_file(NodeId id, int flags, const Caller& caller) {
    drop_unanswered();
    CORAL_TRY(NodePtr node, node_of(id));
    if (node->kind == NodeKind::kBranchEntry) {
        CORAL_TRY(BranchRef ref, branch_ref(node));
        return open_branch_file(ref, flags, caller);
    }
    if (node->is_directory()) return make_error(Errc::kIsDirectory, "is a directory");
    if (node->kind != NodeKind::kTreeFile) return make_error(Errc::kLoop, "is a symlink");
    if (wants_write(flags) || (flags & O_TRUNC)) return read_only_error(node->text);
    recent_readers_.note(caller.pid);
    return open_tree_file(node, flags);
}

Result<Opened> MountedFilesystem::open_tree_file(const NodePtr& node, int flags) {
    CORAL_TRY(auto record, record_of(node));
    auto handle = std::make_shared<FileHandle>();
    handle->node = node;
    handle->flags = flags;
    handle->readable = true;
    handle->record = std::move(record);
    handle->pin = repo_.pin(handle->record->id);
    nodes_.pin(node);
    consider_plain(node, handle->record->size);
    auto opened = open_in_some_mode(handle, false);
    if (!opened) let_go(*handle);
    return opened;
}

// All passthrough opens of a file use one backing file. When that is none of ours any more, nothing may be opened, or
// emptied by O_TRUNC: what the kernel wrote would be in no file.
Status MountedFilesystem::check_backing(Node& node) {
    std::lock_guard lock(node.mutex);
    if (!node.backing_is_lost) return {};
    return make_error(Errc::kIo,
                      "a program has the file open as it was before the daemon was replaced; close that one");
}

Result<Opened> MountedFilesystem::open_branch_file(const BranchRef& ref, int flags, const Caller& caller) {
    switch (ref.worktree->attributes(ref.inode).type) {
        case FileType::kRegular:
            break;
        case FileType::kDirectory:
            return make_error(Errc::kIsDirectory, "is a directory");
        default:
            return make_error(Errc::kLoop, "is a symlink");
    }
    auto handle = std::make_shared<FileHandle>();
    handle->node = ref.node;
    handle->flags = flags;
    handle->readable = (flags & O_ACCMODE) != O_WRONLY;
    handle->writable = wants_write(flags);
    handle->worktree = ref.worktree;
    handle->inode = ref.inode;
    CORAL_CHECK(check_backing(*ref.node));
    if (!ref.node->slot->enter(ref.worktree)) return make_error(Errc::kStale, "the branch has just been given away");
    if (auto opened = ref.worktree->open_file(ref.inode, handle->writable, (flags & O_TRUNC) != 0); !opened) {
        ref.node->slot->leave();
        return std::move(opened).error();
    }
    nodes_.pin(ref.node);
    // Only a new or emptied file can become a copy of another one as a whole.
    bool empty = handle->writable && ref.worktree->attributes(ref.inode).size == 0;
    auto opened = open_in_some_mode(handle, empty && recent_readers_.contains(caller.pid));
    if (!handle->writable) {
        recent_readers_.note(caller.pid);
        if (opened && opened->mode == IoMode::kCached)
            consider_plain(ref.node, ref.worktree->attributes(ref.inode).size);
    }
    if (!opened) let_go(*handle);
    return opened;
}

Result<std::pair<Entry, Opened>> MountedFilesystem::create(NodeId parent, std::string_view name, std::uint32_t mode,
                                                           int flags, const Caller& caller) {
    CORAL_CHECK(check_name_length(name));
    drop_unanswered();
    CORAL_TRY(BranchRef dir, changeable(parent));
    auto made =
        once([&] { return state_of(dir, name); },
             [&] { return dir.worktree->create_file(dir.inode, name, mode & ~caller.umask, caller.uid, caller.gid); },
             [&] { return dir.worktree->lookup(dir.inode, name); });
    // Somebody outside (restore, `coral add`) has just made it: then this is an open, as open(2) without O_EXCL says.
    if (!made && made.error().code == Errc::kExists && !(flags & O_EXCL)) made = dir.worktree->lookup(dir.inode, name);
    CORAL_CHECK(made);
    if (!wants_write(flags)) CORAL_CHECK(dir.worktree->complete_unwritten(*made));
    Entry entry = branch_entry(dir.node->slot, dir.worktree, dir.generation, *made, parent);
    NodePtr node = nodes_.find(entry.attr.node);
    auto opened = open_branch_file(BranchRef{node, dir.worktree, *made, dir.generation}, flags, caller);
    if (!opened) {
        nodes_.forget(entry.attr.node, 1);
        return std::move(opened).error();
    }
    if (opened->mode == IoMode::kPassthrough) entry.attr_timeout = 0;
    return std::pair{entry, *opened};
}

// ---- reading

void MountedFilesystem::read_ahead(const NodePtr& node, const std::shared_ptr<const store::FileRecord>& record,
                                   std::uint64_t offset, std::uint64_t length) {
    if (options_.readahead == 0) return;
    std::shared_ptr<ReadAhead> detector;
    {
        std::lock_guard lock(node->mutex);
        if (!node->read_ahead) node->read_ahead = std::make_shared<ReadAhead>(options_.readahead);
        detector = node->read_ahead;
    }
    if (auto range = detector->on_read(*record, offset, length)) {
        std::uint64_t taken = repo_.store().prefetch(record, range->offset, range->length);
        if (taken < range->length) detector->declined(*range, taken);
    }
}

Result<std::size_t> MountedFilesystem::read_from(FileHandle& handle, std::uint64_t offset, MutableBytes out) {
    if (handle.record) {
        read_ahead(handle.node, handle.record, offset, out.size());
        return repo_.store().read_file(*handle.record, offset, out);
    }
    if (options_.readahead != 0) {
        if (auto content = handle.worktree->stored_content(handle.inode)) {
            if (auto record = repo_.store().file(*content)) read_ahead(handle.node, *record, offset, out.size());
        }
    }
    return handle.worktree->read(handle.inode, offset, out);
}

Result<std::size_t> MountedFilesystem::read(HandleId id, std::uint64_t offset, MutableBytes out) {
    CORAL_CHECK(check_up());
    CORAL_TRY(auto handle, files_.find(id));
    // Not refused on a write-only handle: the kernel fills a partly written page through whichever handle it has.
    handle->node->served += out.size();
#ifdef CORAL_ONE_LOCK
    std::lock_guard one_at_a_time(handle->node->whole_read);
#endif
    return read_from(*handle, offset, out);
}

// ---- writing

Result<std::shared_ptr<FileHandle>> MountedFilesystem::writable_handle(HandleId id) {
    CORAL_CHECK(check_up());
    CORAL_TRY(auto handle, files_.find(id));
    if (!handle->writable) return make_error(Errc::kBadHandle, "not open for writing");
    return handle;
}

void MountedFilesystem::wrote(FileHandle& handle, std::uint64_t offset, std::uint64_t length, WriteFrom from) {
    bool drop_pages;
    {
        std::lock_guard lock(handle.node->mutex);
        drop_pages = from != WriteFrom::kPages && handle.node->io.wrote(handle.ticket);
        handle.node->copied_from.reset();
    }
    if (drop_pages) notify_contents(handle.node->id, offset, length);
}

Result<std::uint64_t> MountedFilesystem::size_of(const FileHandle& handle) const {
    if (handle.record) return handle.record->size;
    return handle.worktree->attributes(handle.inode).size;
}

Result<std::size_t> MountedFilesystem::write(HandleId id, std::uint64_t offset, Bytes data, WriteFrom from) {
    CORAL_TRY(auto handle, writable_handle(id));
    // O_APPEND: at the end, wherever that is. What lies inside the file belongs there: RWF_NOAPPEND.
    bool inside = offset < handle->worktree->attributes(handle->inode).size;
    if (from == WriteFrom::kAppender && !inside) {
        CORAL_TRY(offset, handle->worktree->append(handle->inode, data));
    } else {
        CORAL_CHECK(handle->worktree->write(handle->inode, offset, data));
    }
    wrote(*handle, offset, data.size(), from);
    if (from != WriteFrom::kPages) handle->turn = backlog_->turn(data.size());
    return data.size();
}

std::chrono::steady_clock::time_point MountedFilesystem::turn(HandleId id) {
    auto handle = files_.find(id);
    return handle ? (*handle)->turn.load() : repo::Backlog::Clock::time_point{};
}

Status MountedFilesystem::flush(HandleId id) {
    CORAL_CHECK(check_up());
    CORAL_TRY(auto handle, files_.find(id));
    if (!handle->inode) return {};
    {
        std::lock_guard lock(handle->node->mutex);
        handle->node->io.flushed(handle->ticket);
    }
    return handle->worktree->flush(handle->inode, handle->writable);
}

Status MountedFilesystem::sync(HandleId id) {
    CORAL_CHECK(check_up());
    CORAL_TRY(auto handle, files_.find(id));
    if (!handle->inode) return {};  // commits are on the disk before they have a name
    CORAL_CHECK(handle->worktree->sync_file(handle->inode));
    std::lock_guard lock(handle->node->mutex);
    handle->node->io.flushed(handle->ticket);
    return {};
}

void MountedFilesystem::release(HandleId id) {
    std::shared_ptr<FileHandle> handle = files_.take(id);
    if (!handle) return;
    if (options_.handover && handle->counted) {
        // First of all: whoever follows must not go on with a backing file that is closed below.
        handle->saved.released = true;
        options_.handover->file_opened(handle->saved);
    }
    let_go(*handle);
    // Last of all: who dies before this closes it once more.
    if (options_.handover) options_.handover->file_closed(id);
}

void MountedFilesystem::let_go(FileHandle& handle) {
    // First the mode: as long as the file counts as in passthrough the worktree must have it lent.
    if (end_io(handle)) --passthrough_handles_;
    if (handle.inode) {
        if (handle.lent)
            handle.worktree->close_lent(handle.inode, handle.writable);
        else
            handle.worktree->close_file(handle.inode, handle.writable);
        // What was written through a mapping changed the time without the kernel's telling itself.
        if (handle.lent && handle.writable && handle.readable) notify_attributes(handle.node->id);
        handle.node->slot->leave();
    }
    nodes_.unpin(handle.node);
}

Status MountedFilesystem::allocate(HandleId id, std::uint64_t offset, std::uint64_t length, int mode) {
    CORAL_TRY(auto handle, writable_handle(id));
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
        case 0:
            break;
        case FALLOC_FL_PUNCH_HOLE:  // the kernel asks for it with KEEP_SIZE only
        case FALLOC_FL_ZERO_RANGE:
            CORAL_CHECK(handle->worktree->zero(handle->inode, offset, length));
            break;
        default:
            return make_error(Errc::kUnsupported, fmt::format("fallocate mode {:#x}: files have no holes here", mode));
    }
    CORAL_CHECK(handle->worktree->allocate(handle->inode, offset, length, (mode & FALLOC_FL_KEEP_SIZE) != 0));
    wrote(*handle, offset, length);
    return {};
}

// No file has holes here, as far as anybody can see.
Result<std::uint64_t> MountedFilesystem::seek(HandleId id, std::uint64_t offset, int whence) {
    CORAL_CHECK(check_up());
    CORAL_TRY(auto handle, files_.find(id));
    if (whence != SEEK_DATA && whence != SEEK_HOLE) return make_error(Errc::kInvalid, "only SEEK_DATA and SEEK_HOLE");
    CORAL_TRY(std::uint64_t size, size_of(*handle));
    if (offset >= size) return make_error(Errc::kBeyondEnd, "beyond the end of the file");
    return whence == SEEK_DATA ? offset : size;
}

}  // namespace coral::vfs
