// SPDX-License-Identifier: Apache-2.0
// What the kernel knows by a number. A node's identity never changes; only its caches do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "coral/repo/worktree.hpp"
#include "coral/vfs/filesystem.hpp"
#include "vfs/io_mode.hpp"
#include "vfs/plain_cache.hpp"
#include "vfs/read_ahead.hpp"

namespace coral::vfs {

class TreeSlot;  // branches.hpp

enum class NodeKind : std::uint8_t {
    kMountRoot,
    kBranches,
    kTags,
    kCommits,
    kAt,
    kPrefix,         // a folder of names with '/': branches/exp, tags/exp, at/exp
    kLink,           // HEAD, a tag, at/REVISION: a symlink made up here
    kForeignBranch,  // root of a branch that this process does not own: its commit, read-only
    kBranchEntry,    // an inode of a worktree, its root included
    kTreeDirectory,
    kTreeFile,
    kTreeLink,
};

// Number ranges of node ids. Fixed ones are small; a branch entry's is its row's, so it outlives the daemon; the others
// are a hash of the node's key, so that a listing can tell a number without keeping a node, and a remount gives the
// same. Two keys with one hash: the second gets a number from a counter above all hashes.
inline constexpr NodeId kBranchesId = 2, kTagsId = 3, kCommitsId = 4, kAtId = 5;
// In listings, for what has a number only once it is looked up. (0 would hide the entry.)
inline constexpr NodeId kHeadListedId = 6, kUnlookedId = 7;
inline constexpr NodeId kBranchEntryBase = NodeId{1} << 40;
inline constexpr NodeId kHashedBase = NodeId{1} << 52;
inline constexpr NodeId kHashedMask = (NodeId{1} << 62) - 1;
inline constexpr NodeId kCollisionBase = NodeId{1} << 63;

inline NodeId branch_entry_id(repo::Ino ino) {
    return kBranchEntryBase + ino;
}

struct Node {
    explicit Node(NodeId number, NodeKind what) : id(number), kind(what) {}

    const NodeId id;
    const NodeKind kind;
    NodeId parent = kRoot;                 // where it was first seen: only for ".."
    std::string key;                       // empty: the id is not a hash
    NodeKind area = NodeKind::kMountRoot;  // kPrefix: of kBranches, kTags or kAt
    std::string text;  // kPrefix: "exp/"; kLink: the target; kForeignBranch: the branch; kTree*: path in the commit
    std::int64_t time_ns = 0;  // kLink, kTreeDirectory, kTreeLink: the commit's
    // kTree*
    std::string space;  // what its keys begin with: nodes of different spaces are never shared
    CommitId commit;    // directories and links; of a shared file: one of those that have it
    repo::TreeEntry entry;
    // kBranchEntry
    std::shared_ptr<TreeSlot> slot;
    repo::Ino ino = 0;

    std::atomic<std::uint64_t> served{0};  // bytes read through us
#ifdef CORAL_ONE_LOCK
    std::mutex whole_read;  // what we must not have, to measure what it would cost
#endif

    mutable std::mutex mutex;  // guards the rest; held for moments only
    repo::InodePtr inode;      // of `generation` of the slot; loaded when it is first needed
    std::uint64_t generation = 0;
    IoState io;
    std::condition_variable io_settled;  // io is not kPreparing any more
    std::uint32_t backing = 0;           // while kPassthrough
    bool backing_is_lost = false;        // it was another process's file, and is none of the branch's now
    PlainCache::CopyPtr plain;           // the same, of a committed file
    bool warming = false;                // a plain copy is being made
    std::shared_ptr<ReadAhead> read_ahead;
    std::shared_ptr<const store::FileRecord> record;  // kTreeFile, while it is open or being read
    // copy_range has made the first `copied` bytes equal to those of file `copied_from`; any other change clears it.
    std::optional<FileId> copied_from;
    std::uint64_t copied = 0;

    bool is_directory() const {
        switch (kind) {
            case NodeKind::kLink:
            case NodeKind::kTreeFile:
            case NodeKind::kTreeLink:
            case NodeKind::kBranchEntry:
                return false;  // of a branch entry its inode tells
            default:
                return true;
        }
    }
};
using NodePtr = std::shared_ptr<Node>;

}  // namespace coral::vfs
