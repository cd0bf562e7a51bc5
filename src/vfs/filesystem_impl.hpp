// SPDX-License-Identifier: Apache-2.0
// Private to the .cpp files of this folder: the one implementation of Filesystem. How it is divided is in README.md.
#pragma once

#include <atomic>
#include <set>
#include <shared_mutex>

#include "coral/vfs/handover.hpp"
#include "vfs/branches.hpp"
#include "vfs/handle_table.hpp"
#include "vfs/node_table.hpp"
#include "vfs/recent_readers.hpp"
#include "vfs/warmer.hpp"

namespace coral::vfs {

// Ten years of seconds: the kernel takes it for "until told otherwise".
inline constexpr double kForEver = 10.0 * 365 * 24 * 3600;
// For what every path leads through, but other processes may change: `ls -l` of a large folder asks for it thousands of
// times. A change that comes through us is notified at once.
inline constexpr double kMoment = 1.0;

struct FileHandle {
    NodePtr node;
    int flags = 0;
    bool readable = false, writable = false;
    // Branch files.
    WorktreePtr worktree;
    repo::InodePtr inode;
    IoState::Ticket ticket;                                // guarded by the node's mutex
    std::atomic<repo::Backlog::Clock::time_point> turn{};  // of its writer: see Filesystem::turn
    bool lent = false;                                     // the worktree counts it as lent to the kernel
    bool counted = false;                                  // in passthrough_handles_
    SavedFile saved;                                       // what a process that follows is told of it
    std::uint32_t left_backing = 0;  // a released handle of the process before: closed with it, if nobody has done so
    PlainCache::CopyPtr plain;       // a committed file's that the kernel reads
    // Committed files.
    std::shared_ptr<const store::FileRecord> record;
    std::shared_ptr<void> pin;  // its commit may go while it is open
};

// An offset n > 2 stands for "after the (n-2)th entry that was shown", by name where the directory may change: so
// entries that are there all the time are shown exactly once, whatever comes and goes meanwhile.
struct DirectoryHandle {
    HandleId id = 0;
    NodePtr node;
    std::mutex mutex;                // guards the rest; one listing per handle at a time
    std::vector<std::string> shown;  // branch directories: names in the order shown
    std::size_t page = 32;           // branch directories: entries worth asking for
    std::vector<DirItem> listing;    // virtual directories: as at offset 0
    bool listed = false;
};

class MountedFilesystem final : public Filesystem {
  public:
    MountedFilesystem(repo::Repository& repo, const Options& options);
    ~MountedFilesystem() override;
    Status start();

    void set_notifier(Notifier* notifier) override;
    void set_backing_files(BackingFiles* files) override { backing_files_ = files; }
    void set_direct_maps(bool may) override { direct_maps_ = may; }
    void set_direct_over_pages(bool may) override {
        write_only_ = may ? IoState::Want::kDirect : IoState::Want::kDirectUnlessPages;
    }
    void set_socket_path(const std::string& path) override;
    Status shut_down() override;

    Result<Entry> lookup(NodeId parent, std::string_view name) override;
    void forget(NodeId node, std::uint64_t count) override;
    Result<std::string> read_link(NodeId node) override;
    Result<Entry> make_directory(NodeId parent, std::string_view name, std::uint32_t mode, const Caller&) override;
    Result<Entry> make_symlink(NodeId parent, std::string_view name, std::string_view target, const Caller&) override;
    Status check_writable(NodeId directory) override;
    Status unlink(NodeId parent, std::string_view name) override;
    Status remove_directory(NodeId parent, std::string_view name) override;
    Status rename(NodeId from, std::string_view from_name, NodeId to, std::string_view to_name,
                  repo::RenameMode mode) override;

    Result<Entry> attributes(NodeId node, std::optional<HandleId> handle) override;
    Result<Entry> set_attributes(NodeId node, const repo::SetAttributes& set, std::optional<HandleId> handle) override;
    Result<Entry> drop_set_ids(NodeId node, const Caller& caller) override;
    Result<std::string> get_xattr(NodeId node, const std::string& name) override;
    Result<std::vector<std::string>> list_xattrs(NodeId node) override;
    Status set_xattr(NodeId node, const std::string& name, const std::string& value,
                     repo::Worktree::XattrMode mode) override;
    Status remove_xattr(NodeId node, const std::string& name) override;
    Result<SpaceInfo> space(NodeId node) override;
    Usage usage() const override;
    Result<bool> warm(NodeId node) override;

    Result<Opened> open_file(NodeId node, int flags, const Caller&) override;
    Result<std::pair<Entry, Opened>> create(NodeId parent, std::string_view name, std::uint32_t mode, int flags,
                                            const Caller&) override;
    Result<std::size_t> read(HandleId handle, std::uint64_t offset, MutableBytes out) override;
    Result<std::size_t> write(HandleId handle, std::uint64_t offset, Bytes data, WriteFrom from) override;
    std::chrono::steady_clock::time_point turn(HandleId handle) override;
    bool behind() const override { return backlog_->behind(); }
    Status flush(HandleId handle) override;
    Status sync(HandleId handle) override;
    void release(HandleId handle) override;
    Status allocate(HandleId handle, std::uint64_t offset, std::uint64_t length, int mode) override;
    Result<std::size_t> copy_range(HandleId from, std::uint64_t from_offset, HandleId to, std::uint64_t to_offset,
                                   std::uint64_t length) override;
    Result<std::uint64_t> seek(HandleId handle, std::uint64_t offset, int whence) override;

    Result<HandleId> open_directory(NodeId node) override;
    Status read_directory(HandleId handle, std::uint64_t offset, bool plus,
                          const std::function<bool(const DirItem&, const Entry*)>& visit) override;
    void release_directory(HandleId handle) override;
    Status sync_directory(NodeId node) override;

    Result<WorktreePtr> worktree(const std::string& branch) override;
    Status branches_changed() override;
    Status release_branch(const std::string& branch) override;

  private:
    // A branch entry that can be worked with.
    struct BranchRef {
        NodePtr node;
        WorktreePtr worktree;
        repo::InodePtr inode;
        std::uint64_t generation = 0;
    };
    using Visit = std::function<bool(const DirItem&, const Entry*)>;

    // ---- filesystem.cpp
    Status check_up() const;
    Result<NodePtr> node_of(NodeId id);
    Result<BranchRef> branch_ref(const NodePtr& node);
    // For changes: kReadOnly for everything that is not a worktree's.
    Result<BranchRef> changeable(NodeId id);
    void notify_entry(NodeId parent, const std::string& name);
    void forget_below(const std::string& branch);
    void notify_attributes(NodeId node);
    void notify_contents(NodeId node, std::uint64_t offset, std::uint64_t length);
    void on_outside_change(repo::Ino parent, const std::string& name, repo::Ino replaced);

    // ---- resume.cpp
    Status resume();
    NodePtr rebuild_branch_entry(NodeId id);
    void resume_nodes(const Saved& saved);
    Status resume_file(const SavedFile& file);
    Result<std::shared_ptr<FileHandle>> reopened(const NodePtr& node, const SavedFile& file);
    void drop_unanswered();
    using State = Handover::State;
    State state_of(const BranchRef& dir, std::string_view name) const;
    // Carries a change out that must not be done twice. `now` tells what the change is about; `done` answers when a
    // process before this one had carried it out and died before its answer.
    template <class Now, class Change, class Done>
    auto once(Now&& now, Change&& change, Done&& done) -> decltype(change()) {
        Handover* handover = options_.handover;
        if (!handover) return change();
        const CurrentRequest& request = current_request();
        State state = now();
        if (request.again) {
            if (auto before = handover->found_before(request.unique)) return *before == state ? change() : done();
        }
        handover->found(request.unique, state);
        return change();
    }

    // ---- lookup.cpp
    Result<Entry> lookup_number(NodeId id, bool its_parent);
    Result<Entry> lookup_root(std::string_view name);
    Result<Entry> lookup_branch(const Node& parent, const std::string& name);
    Result<Entry> lookup_tag(const Node& parent, const std::string& name);
    Result<Entry> lookup_revision(const Node& parent, const std::string& name);
    Result<Entry> lookup_commit(std::string_view name);
    Result<Entry> lookup_in_tree(const Node& parent, std::string_view name);
    Result<Entry> lookup_in_branch(const NodePtr& parent, std::string_view name);
    Entry branch_entry(const std::shared_ptr<TreeSlot>& slot, const WorktreePtr& worktree, std::uint64_t generation,
                       const repo::InodePtr& inode, NodeId parent);
    Entry prefix_entry(NodeKind area, const std::string& prefix, NodeId parent);
    Entry link_entry(NodeKind area, const std::string& name, const std::string& target, const CommitId& commit,
                     NodeId parent);
    Result<bool> is_prefix(NodeKind area, const std::string& prefix);

    // ---- tree_nodes.cpp
    struct TreePlace {            // a directory of a commit
        std::string space, path;  // path "" is the root
        CommitId commit;
        TreeId tree;
        std::int64_t time_ns = 0;
    };
    std::string tree_key(const TreePlace& dir, const repo::TreeEntry& entry) const;
    Entry tree_entry(const TreePlace& dir, const repo::TreeEntry& entry, NodeId parent, double entry_timeout);
    Result<TreePlace> tree_place(const Node& node);  // of a kTreeDirectory or a kForeignBranch
    Result<std::shared_ptr<const repo::Tree>> tree_of(const TreePlace& place);
    Attr tree_attr(NodeId id, const repo::TreeEntry& entry, std::int64_t time_ns) const;
    Result<std::shared_ptr<const store::FileRecord>> record_of(const NodePtr& node);

    // ---- attributes.cpp
    Attr directory_attr(NodeId id, std::int64_t time_ns) const;
    Attr attr_of(const repo::Attributes& a) const;
    Result<Attr> attr_of(const NodePtr& node);
    static double attr_timeout(const Node& node);
    static double attr_timeout(const repo::Attributes& attributes);
    Result<Entry> entry_of(const NodePtr& node);

    // ---- xattrs.cpp
    Result<std::string> coral_xattr(const NodePtr& node, std::string_view name);
    Result<std::string> coral_xattr_branch(const BranchRef& ref, std::string_view name);
    Result<std::string> coral_xattr_tree(const NodePtr& node, std::string_view name);

    // ---- changes.cpp
    Result<Entry> make_branch(NodeId parent, const std::string& name);
    Status remove_branch(const std::string& name);
    Status remove_branch_once(const std::string& name);
    Result<bool> reachable_elsewhere(const std::string& branch, const CommitId& commit);
    void keep_removed(repo::InodePtr removed, const WorktreePtr& worktree);

    // ---- files.cpp
    static Status check_backing(Node& node);
    Result<Opened> open_branch_file(const BranchRef& ref, int flags, const Caller& caller);
    void let_go(FileHandle& handle);
    // open_mode.cpp. `copying`: whoever opens it will ask for copy_range next.
    Result<Opened> open_in_some_mode(const std::shared_ptr<FileHandle>& handle, bool copying);
    std::uint32_t lend_to_kernel(FileHandle& handle, BackingFiles& files);
    std::uint32_t lend_plain(FileHandle& handle, BackingFiles& files);
    Result<Opened> join_passthrough(const std::shared_ptr<FileHandle>& handle, std::unique_lock<std::mutex>& lock);
    Opened opened(const std::shared_ptr<FileHandle>& handle, const IoState::Decision& io);
    // warmer.cpp
    void consider_plain(const NodePtr& node, std::uint64_t size);
    Result<bool> warm_node(const NodePtr& node);
    bool end_io(FileHandle& handle);
    HandleId enter(const std::shared_ptr<FileHandle>& handle, IoMode mode, std::uint32_t backing);
    Result<Opened> open_tree_file(const NodePtr& node, int flags);
    Result<std::shared_ptr<FileHandle>> writable_handle(HandleId handle);
    void read_ahead(const NodePtr& node, const std::shared_ptr<const store::FileRecord>& record, std::uint64_t offset,
                    std::uint64_t length);
    void wrote(FileHandle& handle, std::uint64_t offset, std::uint64_t length, WriteFrom from = WriteFrom::kCaller);
    Result<std::uint64_t> size_of(const FileHandle& handle) const;

    // ---- copy.cpp
    Result<bool> copy_as_metadata(FileHandle& from, FileHandle& to, std::uint64_t offset, std::uint64_t length);
    static std::optional<FileId> stored_whole(const FileHandle& handle);
    Result<std::size_t> copy_linked(FileHandle& from, std::uint64_t from_offset, FileHandle& to,
                                    std::uint64_t to_offset, std::uint64_t length);
    Result<std::size_t> copy_bytes(FileHandle& from, std::uint64_t from_offset, FileHandle& to, std::uint64_t to_offset,
                                   std::uint64_t length);
    Result<std::size_t> read_from(FileHandle& handle, std::uint64_t offset, MutableBytes out);

    // ---- directories.cpp
    bool show_dots(const DirectoryHandle& dir, std::uint64_t& offset, const Visit& visit) const;
    Status read_branch_directory(DirectoryHandle& dir, std::uint64_t offset, bool plus, const Visit& visit);
    Status show_branch_directory(DirectoryHandle& dir, bool plus, const Visit& visit);
    Result<bool> skip_branch_entries(DirectoryHandle& dir, std::uint64_t offset);
    Status read_tree_directory(DirectoryHandle& dir, std::uint64_t offset, bool plus, const Visit& visit);
    Status read_virtual_directory(DirectoryHandle& dir, std::uint64_t offset, const Visit& visit);
    Result<std::vector<DirItem>> list_virtual(const Node& node);
    Result<std::vector<DirItem>> list_refs(NodeKind area, const std::string& prefix);

    repo::Repository& repo_;
    const Options options_;
    const std::int64_t started_ns_;
    std::uint32_t uid_ = 0, gid_ = 0;
    ThreadPool pool_;  // before branches_: worktrees use it to their end
    std::atomic<BackingFiles*> backing_files_{nullptr};
    std::atomic<IoState::Want> write_only_{IoState::Want::kDirect};
    std::atomic<bool> direct_maps_{false};
    std::atomic<std::uint64_t> passthrough_handles_{0};
    RecentReaders recent_readers_;
    std::mutex unanswered_mutex_;  // guards unanswered_
    std::map<std::uint64_t, std::pair<HandleId, bool>>
        unanswered_;         // by request; handles resumed, true: of a directory
    bool resuming_ = false;  // set before the first request
    NodeTable nodes_;
    HandleTable<FileHandle> files_;
    HandleTable<DirectoryHandle> directories_;
    std::atomic<bool> down_{false};

    mutable std::shared_mutex notifier_mutex_;  // guards notifier_ and socket_path_; a Notifier only queues
    Notifier* notifier_ = nullptr;
    std::string socket_path_;

    std::shared_ptr<repo::HotTier> hot_ = std::make_shared<repo::HotTier>();
    const std::shared_ptr<repo::Backlog> backlog_;
    PlainCache plain_;
    Branches branches_;
    Warmer warmer_;  // after all that it uses
};

// "exp/x" is two levels below branches/: the way from there to the root's children.
std::string up_from(std::string_view name);
// The part of `name` behind `prefix` up to the next '/', and whether more follows.
struct Component {
    std::string name;
    bool folder = false;
};
Component component_after(const std::string& name, std::size_t prefix_length);
Error read_only_error(std::string_view what);
Status check_name_length(std::string_view name);

}  // namespace coral::vfs
