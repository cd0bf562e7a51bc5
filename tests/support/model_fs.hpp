// SPDX-License-Identifier: Apache-2.0
// The reference model: what a branch must be after any sequence of calls, in plain maps. No paging, no caches, no
// threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "coral/base/os.hpp"
#include "coral/base/result.hpp"
#include "coral/repo/worktree.hpp"

namespace coral::test {

struct ModelNode;
using ModelPtr = std::shared_ptr<ModelNode>;

struct ModelNode {
    FileType type = FileType::kRegular;
    std::uint32_t mode = 0;
    std::string content;  // of a file; the text of a symlink
    std::map<std::string, ModelPtr> children;
    std::map<std::string, std::string> xattrs;
    std::int64_t mtime_ns = 0;  // 0: whatever it is

    bool is_directory() const { return type == FileType::kDirectory; }
};

// What a commit keeps of a tree: the permission bits below 01000.
inline ModelPtr snapshot(const ModelNode& from, std::uint32_t mask) {
    auto copy = std::make_shared<ModelNode>(from);
    if (copy->type != FileType::kSymlink) copy->mode &= mask;
    for (auto& [name, child] : copy->children) child = snapshot(*child, mask);
    return copy;
}

// Equal for `coral commit`: a touch alone is no change.
inline bool same_content(const ModelNode& a, const ModelNode& b) {
    if (a.type != b.type || a.content != b.content || a.children.size() != b.children.size()) return false;
    if ((a.mode & 0777) != (b.mode & 0777) || a.xattrs != b.xattrs) return false;
    auto at = b.children.begin();
    for (const auto& [name, child] : a.children) {
        if (name != at->first || !same_content(*child, *at->second)) return false;
        ++at;
    }
    return true;
}

// A touch alone is no change: what is equal to the commit before keeps its time.
inline void keep_times(ModelNode& now, const ModelNode& before) {
    for (auto& [name, child] : now.children) {
        auto old = before.children.find(name);
        if (old == before.children.end() || old->second->type != child->type) continue;
        if (child->is_directory())
            keep_times(*child, *old->second);
        else if (same_content(*child, *old->second))
            child->mtime_ns = old->second->mtime_ns;
    }
}

// For messages: where and how two trees differ.
inline std::string first_difference(const ModelNode& a, const ModelNode& b, const std::string& path = "") {
    if (a.type != b.type) return path + ": type";
    if (a.content != b.content) return path + ": content";
    if ((a.mode & 0777) != (b.mode & 0777)) return path + ": mode";
    if (a.xattrs != b.xattrs) return path + ": xattrs";
    for (const auto& [name, child] : a.children) {
        auto other = b.children.find(name);
        if (other == b.children.end()) return path + "/" + name + ": added";
        std::string below = first_difference(*child, *other->second, path + "/" + name);
        if (!below.empty()) return below;
    }
    for (const auto& [name, child] : b.children) {
        if (!a.children.count(name)) return path + "/" + name + ": removed";
    }
    return {};
}

// One branch. Paths are relative to its root, without leading '/'; every call returns what the filesystem must return.
class ModelFs {
  public:
    ModelFs() : root_(std::make_shared<ModelNode>()) {
        root_->type = FileType::kDirectory;
        root_->mode = 0755;
    }
    explicit ModelFs(ModelPtr root) : root_(std::move(root)) {}
    const ModelPtr& root() const { return root_; }

    Result<ModelPtr> find(std::string_view path) const {
        ModelPtr at = root_;
        while (!path.empty()) {
            std::size_t slash = path.find('/');
            std::string part(path.substr(0, slash));
            path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
            if (!at->is_directory()) return make_error(Errc::kNotDirectory, part);
            auto next = at->children.find(part);
            if (next == at->children.end()) return make_error(Errc::kNotFound, part);
            at = next->second;
        }
        return at;
    }

    Result<ModelPtr> create(std::string_view path, FileType type, std::uint32_t mode, std::string content = {}) {
        CORAL_TRY(auto at, parent(path));
        if (at.first->children.count(at.second)) return make_error(Errc::kExists, at.second);
        auto made = std::make_shared<ModelNode>();
        made->type = type;
        made->mode = mode;
        made->content = std::move(content);
        at.first->children[at.second] = made;
        return made;
    }
    Status remove(std::string_view path, bool directory) {
        CORAL_TRY(auto at, parent(path));
        auto there = at.first->children.find(at.second);
        if (there == at.first->children.end()) return make_error(Errc::kNotFound, at.second);
        if (directory && !there->second->is_directory()) return make_error(Errc::kNotDirectory, at.second);
        if (!directory && there->second->is_directory()) return make_error(Errc::kIsDirectory, at.second);
        if (!there->second->children.empty()) return make_error(Errc::kNotEmpty, at.second);
        at.first->children.erase(there);
        return {};
    }
    Status rename(std::string_view from, std::string_view to, repo::RenameMode mode) {
        CORAL_TRY(auto a, parent(from));
        CORAL_TRY(auto b, parent(to));
        auto source = a.first->children.find(a.second);
        if (source == a.first->children.end()) return make_error(Errc::kNotFound, a.second);
        auto target = b.first->children.find(b.second);
        bool replaces = target != b.first->children.end();
        if (mode == repo::RenameMode::kNoReplace && replaces) return make_error(Errc::kExists, b.second);
        if (mode == repo::RenameMode::kExchange && !replaces) return make_error(Errc::kNotFound, b.second);
        if (replaces && source->second == target->second) return {};
        ModelPtr moved = source->second, other = replaces ? target->second : nullptr;
        if (contains(moved, b.first)) return make_error(Errc::kInvalid, "into itself");
        if (mode == repo::RenameMode::kExchange) {
            if (contains(other, a.first)) return make_error(Errc::kInvalid, "into itself");
            std::swap(source->second, target->second);
            return {};
        }
        if (other && other->is_directory() && !moved->is_directory()) return make_error(Errc::kIsDirectory, b.second);
        if (other && !other->is_directory() && moved->is_directory()) return make_error(Errc::kNotDirectory, b.second);
        if (other && !other->children.empty()) return make_error(Errc::kNotEmpty, b.second);
        a.first->children.erase(source);
        b.first->children[b.second] = moved;
        return {};
    }
    static void write(ModelNode& node, std::uint64_t offset, std::string_view data) {
        node.content.resize(std::max<std::size_t>(node.content.size(), offset + data.size()));
        node.content.replace(offset, data.size(), data);
        node.mtime_ns = 0;
    }
    static void truncate(ModelNode& node, std::uint64_t size) {
        node.content.resize(size);
        node.mtime_ns = 0;
    }

  private:
    Result<std::pair<ModelPtr, std::string>> parent(std::string_view path) const {
        std::size_t slash = path.rfind('/');
        std::string name(slash == std::string_view::npos ? path : path.substr(slash + 1));
        CORAL_TRY(ModelPtr dir, find(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash)));
        if (!dir->is_directory()) return make_error(Errc::kNotDirectory, name);
        return std::pair{dir, name};
    }
    static bool contains(const ModelPtr& dir, const ModelPtr& node) {
        if (dir == node) return true;
        return std::any_of(dir->children.begin(), dir->children.end(),
                           [&](const auto& child) { return contains(child.second, node); });
    }
    ModelPtr root_;
};

}  // namespace coral::test
