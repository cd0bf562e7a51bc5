// SPDX-License-Identifier: Apache-2.0
#include "vfs/node_table.hpp"

#include <algorithm>

#include "coral/base/bytes.hpp"
#include "coral/base/hash.hpp"

namespace coral::vfs {
namespace {

NodeId hashed_id(const std::string& key) {
    return kHashedBase + (xxh3_64(as_bytes(key)) & kHashedMask);
}

}  // namespace

NodeTable::NodeTable(Handover* handover) : handover_(handover) {
    auto fixed = [this](NodeId id, NodeKind kind) {
        Slot slot{std::make_shared<Node>(id, kind), 0, 1};  // pinned for ever
        nodes_.emplace(id, std::move(slot));
    };
    fixed(kRoot, NodeKind::kMountRoot);
    fixed(kBranchesId, NodeKind::kBranches);
    fixed(kTagsId, NodeKind::kTags);
    fixed(kCommitsId, NodeKind::kCommits);
    fixed(kAtId, NodeKind::kAt);
}

NodeId NodeTable::id_of(const std::string& key) const {
    if (auto at = collided_.find(key); at != collided_.end()) return at->second;
    NodeId id = hashed_id(key);
    auto at = nodes_.find(id);
    return at == nodes_.end() || at->second.node->key == key ? id : 0;
}

void NodeTable::note(const Node& node) {
    if (!handover_) return;
    SavedNode saved;
    saved.id = node.id;
    saved.parent = node.parent;
    saved.kind = static_cast<std::uint8_t>(node.kind);
    saved.area = static_cast<std::uint8_t>(node.area);
    saved.time_ns = node.time_ns;
    saved.key = node.key;
    saved.text = node.text;
    saved.space = node.space;
    saved.commit = node.commit;
    saved.entry = node.entry;
    handover_->node_made(saved);
}

NodePtr NodeTable::adopt(const NodePtr& node) {
    std::lock_guard lock(mutex_);
    Slot& slot = nodes_[node->id];
    if (!slot.node) slot.node = node;
    slot.adopted = true;
    if (node->id >= kCollisionBase) {
        collided_[node->key] = node->id;
        last_collision_ = std::max(last_collision_, node->id);
    }
    return slot.node;
}

NodePtr NodeTable::acquire(const std::string& key, const std::function<NodePtr(NodeId)>& make) {
    std::lock_guard lock(mutex_);
    NodeId id = id_of(key);
    if (id == 0) {
        id = ++last_collision_;
        collided_.emplace(key, id);
    }
    Slot& slot = nodes_[id];
    if (!slot.node) {
        slot.node = make(id);
        slot.node->key = key;
        note(*slot.node);
    }
    ++slot.references;
    return slot.node;
}

NodePtr NodeTable::acquire_branch_entry(const std::shared_ptr<TreeSlot>& tree, repo::Ino ino, NodeId parent) {
    NodeId id = branch_entry_id(ino);
    std::lock_guard lock(mutex_);
    Slot& slot = nodes_[id];
    if (!slot.node) {
        slot.node = std::make_shared<Node>(id, NodeKind::kBranchEntry);
        slot.node->slot = tree;
        slot.node->ino = ino;
        slot.node->parent = parent;
    }
    ++slot.references;
    return slot.node;
}

NodeId NodeTable::peek(const std::string& key) const {
    std::lock_guard lock(mutex_);
    NodeId id = id_of(key);
    return id ? id : last_collision_ + 1;
}

NodePtr NodeTable::find(NodeId id) const {
    std::lock_guard lock(mutex_);
    auto at = nodes_.find(id);
    return at == nodes_.end() ? nullptr : at->second.node;
}

void NodeTable::erase_if_unused(std::unordered_map<NodeId, Slot>::iterator at) {
    if (at->second.references != 0 || at->second.pins != 0 || at->second.adopted) return;
    if (at->first >= kCollisionBase) collided_.erase(at->second.node->key);
    if (handover_ && !at->second.node->key.empty()) handover_->node_gone(at->first);
    nodes_.erase(at);
}

void NodeTable::forget(NodeId id, std::uint64_t count) {
    NodePtr last;  // freed after the lock: it may be the last owner of an inode
    std::lock_guard lock(mutex_);
    auto at = nodes_.find(id);
    if (at == nodes_.end()) return;
    if (count > at->second.references) at->second.adopted = false;
    at->second.references -= std::min(count, at->second.references);
    last = at->second.node;
    erase_if_unused(at);
}

void NodeTable::pin(const NodePtr& node) {
    std::lock_guard lock(mutex_);
    Slot& slot = nodes_[node->id];
    if (!slot.node) slot.node = node;  // forgotten between find and pin: it lives on with the handle
    ++slot.pins;
}

void NodeTable::unpin(const NodePtr& node) {
    std::lock_guard lock(mutex_);
    auto at = nodes_.find(node->id);
    if (at == nodes_.end()) return;
    --at->second.pins;
    erase_if_unused(at);
}

std::size_t NodeTable::size() const {
    std::lock_guard lock(mutex_);
    return nodes_.size();
}

}  // namespace coral::vfs
