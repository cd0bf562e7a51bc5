// SPDX-License-Identifier: Apache-2.0
#include "cli/tree_walk.hpp"

#include <fmt/format.h>

#include <memory>
#include <vector>

namespace coral::cli {

Status walk_tree(repo::Repository& repository, const TreeId& tree,
                 const std::function<Status(const std::string& path, const repo::TreeEntry&)>& visit) {
    struct Frame {
        std::string prefix;
        std::shared_ptr<const repo::Tree> tree;
        std::size_t next = 0;
    };
    std::vector<Frame> stack;
    CORAL_TRY(auto top, repository.tree(tree));
    stack.push_back({"", std::move(top), 0});
    while (!stack.empty()) {
        Frame& frame = stack.back();
        if (frame.next == frame.tree->entries.size()) {
            stack.pop_back();
            continue;
        }
        const repo::TreeEntry& entry = frame.tree->entries[frame.next++];
        std::string path = frame.prefix + entry.name;
        CORAL_CHECK(visit(path, entry));
        if (entry.type != repo::EntryType::kDirectory) continue;
        CORAL_TRY(auto below, repository.tree(TreeId::from(entry.content)));
        stack.push_back({path + "/", std::move(below), 0});
    }
    return {};
}

}  // namespace coral::cli
