// SPDX-License-Identifier: Apache-2.0
// Which way an open branch file goes: asks the state machine (io_mode.hpp), and does what passthrough needs around it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "coral/base/log.hpp"
#include "vfs/filesystem_impl.hpp"

namespace coral::vfs {
namespace {

// Smaller files that nobody writes are read through the page cache: opening them costs more than reading them.
constexpr std::uint64_t kPassthroughLeast = 1u << 20;

// Write-only descriptors cannot be mapped, so nothing is lost without the page cache, and each write is spared a copy.
// So is one for reading and writing that must have made the file (O_EXCL): a temporary file that will be renamed, as
// safetensors saves; it is seldom read, and mapped where the kernel can do that. O_APPEND stays cached: its writers are
// logs, small writes that somebody reads at the same time. So do files with a set-uid or set-gid bit, which a write
// takes away: older kernels do that for cached writes only.
IoState::Want io_want(const FileHandle& handle, bool through_cache, IoState::Want write_only, bool direct_maps) {
    const bool saves = (handle.flags & O_ACCMODE) == O_WRONLY ||
                       (direct_maps && (handle.flags & (O_ACCMODE | O_CREAT | O_EXCL)) == (O_RDWR | O_CREAT | O_EXCL));
    return saves && !(handle.flags & O_APPEND) && !through_cache ? write_only : IoState::Want::kCached;
}

// Between begin_passthrough and its end every other open of the file waits: so it ends, whatever happens.
class Preparation {
  public:
    explicit Preparation(Node& node) : node_(node) { node_.io.begin_passthrough(); }
    ~Preparation() {
        if (!settled_) settle([](Node& node) { node.io.passthrough_refused(); });
    }
    Preparation(const Preparation&) = delete;
    Preparation& operator=(const Preparation&) = delete;
    template <class F>
    void settle(F&& end) {
        {
            std::lock_guard lock(node_.mutex);
            end(node_);
        }
        settled_ = true;
        node_.io_settled.notify_all();
    }

  private:
    Node& node_;
    bool settled_ = false;
};

repo::Worktree::Lending lending_of(const FileHandle& handle, std::uint64_t at_least) {
    repo::Worktree::Lending lending;
    lending.writable = handle.writable;
    lending.mappable = handle.writable && handle.readable;
    lending.at_least = at_least;
    return lending;
}

}  // namespace

// 0: not to be had, and the file is not lent.
std::uint32_t MountedFilesystem::lend_to_kernel(FileHandle& handle, BackingFiles& files) {
    if (handle.record) return lend_plain(handle, files);
    auto lent = handle.worktree->lend(handle.inode, lending_of(handle, kPassthroughLeast));
    if (!lent) log_warn("passthrough: {}", lent.error().message);
    if (!lent || !*lent) return 0;
    auto file = handle.worktree->lent_file(handle.inode);
    auto id = file ? files.open_backing((*file)->native_handle()) : Result<std::uint32_t>(std::move(file).error());
    if (id) {
        handle.lent = true;
        return *id;
    }
    log_warn("passthrough: {}", id.error().message);
    handle.worktree->take_back(handle.inode, handle.writable);
    return 0;
}

std::uint32_t MountedFilesystem::lend_plain(FileHandle& handle, BackingFiles& files) {
    auto copy = plain_.find(handle.record->id);
    if (!copy) return 0;
    auto id = files.open_backing(copy->file->native_handle());
    if (!id) {
        log_warn("passthrough: {}", id.error().message);
        return 0;
    }
    handle.plain = std::move(copy);
    return *id;
}

// The node's mutex is locked, and unlocked on the way.
Result<Opened> MountedFilesystem::join_passthrough(const std::shared_ptr<FileHandle>& handle,
                                                   std::unique_lock<std::mutex>& lock) {
    Node& node = *handle->node;
    handle->ticket = node.io.passthrough_ready(handle->writable);
    handle->plain = node.plain;
    std::uint32_t backing = node.backing;
    lock.unlock();
    if (handle->inode) {
        // A file that is lent keeps its staging file, so this fails with the disk only.
        auto lent = handle->worktree->lend(handle->inode, lending_of(*handle, 0));
        if (!lent) return std::move(lent).error();
        if (!*lent) return make_error(Errc::kIo, "the file cannot be opened while the kernel reads it itself");
        handle->lent = true;
    }
    return Opened{enter(handle, IoMode::kPassthrough, backing), IoMode::kPassthrough, false, backing};
}

Opened MountedFilesystem::opened(const std::shared_ptr<FileHandle>& handle, const IoState::Decision& io) {
    return Opened{enter(handle, io.ticket.mode, 0), io.ticket.mode, io.keep_cache, 0};
}

HandleId MountedFilesystem::enter(const std::shared_ptr<FileHandle>& handle, IoMode mode, std::uint32_t backing) {
    if (mode == IoMode::kPassthrough) handle->counted = true;
    if (handle->counted) ++passthrough_handles_;
    HandleId id = files_.next();
    handle->saved = {id, handle->node->id, current_request().unique, handle->flags, mode, backing};
    if (options_.handover) options_.handover->file_opened(handle->saved);
    files_.put(id, handle);
    return id;
}

Result<Opened> MountedFilesystem::open_in_some_mode(const std::shared_ptr<FileHandle>& handle, bool copying) {
    Node& node = *handle->node;
    BackingFiles* files = backing_files_;
    // Writes by the kernel into the file below would leave these bits as they are.
    bool set_ids = handle->writable && (handle->worktree->attributes(handle->inode).mode & (S_ISUID | S_ISGID));
    const IoState::Want want = io_want(*handle, set_ids || options_.keep_new_pages, write_only_, direct_maps_);
    // What the kernel writes itself cannot be slowed down. And it goes on appending there when fcntl takes O_APPEND
    // away (6.18: the file below keeps the flags of the open).
    const bool behind = handle->writable && files && backlog_->behind();
    const bool appends = handle->writable && (handle->flags & O_APPEND);
    std::unique_lock lock(node.mutex);
    node.io_settled.wait(lock, [&] { return node.io.state() != IoState::State::kPreparing; });
    if (handle->flags & O_TRUNC) node.copied_from.reset();
    if (node.io.state() == IoState::State::kPassthrough) return join_passthrough(handle, lock);
    if (!files || set_ids || copying || behind || appends || !node.io.may_begin_passthrough()) {
        IoState::Decision io = node.io.open(want);
        handle->ticket = io.ticket;
        return opened(handle, io);
    }
    Preparation preparation(node);
    lock.unlock();
    std::uint32_t backing = lend_to_kernel(*handle, *files);
    IoState::Decision io;
    preparation.settle([&](Node& n) {
        if (backing != 0) {
            handle->ticket = n.io.passthrough_ready(handle->writable);
            n.backing = backing;
            n.plain = handle->plain;
            return;
        }
        n.io.passthrough_refused();
        io = n.io.open(want);
        handle->ticket = io.ticket;
    });
    if (backing == 0) return opened(handle, io);
    return Opened{enter(handle, IoMode::kPassthrough, backing), IoMode::kPassthrough, false, backing};
}

// The handle is gone: with the last one in passthrough the kernel's backing file goes, too.
// True: it was one that the kernel reads or writes itself.
bool MountedFilesystem::end_io(FileHandle& handle) {
    std::uint32_t backing = 0;
    PlainCache::CopyPtr plain;
    {
        std::lock_guard lock(handle.node->mutex);
        bool passthrough = handle.ticket.open && handle.ticket.mode == IoMode::kPassthrough;
        handle.node->io.close(handle.ticket);
        if (handle.left_backing == handle.node->backing) handle.left_backing = 0;  // others have it still
        if (passthrough && handle.node->io.passthrough() == 0) {
            std::swap(backing, handle.node->backing);
            handle.node->backing_is_lost = false;
            std::swap(plain, handle.node->plain);
        }
    }
    BackingFiles* files = backing_files_;
    if (backing != 0 && files) files->close_backing(backing);
    if (handle.left_backing != 0 && files) files->close_backing(handle.left_backing);
    return handle.counted;
}

}  // namespace coral::vfs
