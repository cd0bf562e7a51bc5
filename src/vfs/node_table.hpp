// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>

#include "coral/vfs/handover.hpp"
#include "vfs/node.hpp"

namespace coral::vfs {

// All nodes that the kernel may name: counted references (lookup and forget) and pins (open handles). A node goes when
// it has neither. Thread-safe: one mutex, held for a hash lookup (and a note to the Handover), never across a call of
// another module.
class NodeTable {
  public:
    explicit NodeTable(Handover* handover = nullptr);

    // The node of `key`, made by `make` when there is none, with one more kernel reference.
    NodePtr acquire(const std::string& key, const std::function<NodePtr(NodeId)>& make);
    NodePtr acquire_branch_entry(const std::shared_ptr<TreeSlot>& slot, repo::Ino ino, NodeId parent);
    // The id that acquire would give now; nothing is kept.
    NodeId peek(const std::string& key) const;

    NodePtr find(NodeId id) const;  // null: unknown or forgotten
    // A node that the kernel knows from an earlier process: it stays until the kernel forgets more references than it
    // was given by this one. Returns the one that is there already, if there is.
    NodePtr adopt(const NodePtr& node);
    void forget(NodeId id, std::uint64_t count);
    void pin(const NodePtr& node);
    void unpin(const NodePtr& node);
    std::size_t size() const;

  private:
    struct Slot {
        NodePtr node;
        std::uint64_t references = 0, pins = 0;
        bool adopted = false;
    };
    void note(const Node& node);
    void erase_if_unused(std::unordered_map<NodeId, Slot>::iterator at);
    NodeId id_of(const std::string& key) const;

    Handover* const handover_;
    mutable std::mutex mutex_;  // guards the rest
    std::unordered_map<NodeId, Slot> nodes_;
    std::unordered_map<std::string, NodeId> collided_;
    NodeId last_collision_ = kCollisionBase;
};

}  // namespace coral::vfs
