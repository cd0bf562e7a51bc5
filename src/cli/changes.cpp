// SPDX-License-Identifier: Apache-2.0
#include "cli/changes.hpp"

#include <fmt/format.h>

#include "cli/text.hpp"

namespace coral::cli {
namespace {

struct Look {
    const char* word;
    Color color;
};

Look look_of(repo::ChangeKind kind) {
    switch (kind) {
        case repo::ChangeKind::kAdded:
            return {"added:", Color::kGreen};
        case repo::ChangeKind::kModified:
            return {"modified:", Color::kYellow};
        case repo::ChangeKind::kDeleted:
            return {"deleted:", Color::kRed};
        case repo::ChangeKind::kTypeChanged:
            return {"type:", Color::kYellow};
        case repo::ChangeKind::kModeChanged:
            return {"mode:", Color::kYellow};
    }
    return {"modified:", Color::kYellow};
}

std::string sizes_of(const repo::Change& change) {
    if (change.directory) return {};
    switch (change.kind) {
        case repo::ChangeKind::kAdded:
            return size_text(change.new_size);
        case repo::ChangeKind::kDeleted:
            return size_text(change.old_size);
        case repo::ChangeKind::kModeChanged:
            return {};
        default:
            break;
    }
    if (change.old_size == change.new_size) return size_text(change.new_size);
    return fmt::format("{} -> {}", size_text(change.old_size), size_text(change.new_size));
}

}  // namespace

Result<std::vector<repo::Change>> changes_of(repo::Repository& repository, const repo::Commit& commit) {
    TreeId before;
    if (!commit.parents.empty()) {
        CORAL_TRY(auto parent, repository.commit(commit.parents.front()));
        before = parent->tree;
    }
    std::vector<repo::Change> changes;
    CORAL_CHECK(repo::diff_trees(repository, before, commit.tree, [&](const repo::Change& change) -> Status {
        changes.push_back(change);
        return {};
    }));
    return changes;
}

void print_changes(Output& out, const std::vector<repo::Change>& changes) {
    for (const repo::Change& change : changes) {
        Look look = look_of(change.kind);
        std::string name = quote_name(change.path) + (change.directory ? "/" : "");
        std::string sizes = sizes_of(change);
        out.print("    {} {}{}{}\n", out.paint(look.color, fmt::format("{:<10}", look.word)), name,
                  sizes.empty() ? "" : out.paint(Color::kDim, fmt::format("  ({})", sizes)),
                  change.incomplete ? out.paint(Color::kRed, "  incomplete") : "");
    }
}

ChangeCounts count_changes(const std::vector<repo::Change>& changes) {
    ChangeCounts counts;
    for (const repo::Change& change : changes) {
        if (change.kind == repo::ChangeKind::kAdded)
            ++counts.added;
        else if (change.kind == repo::ChangeKind::kDeleted)
            ++counts.deleted;
        else
            ++counts.modified;
        bool content = change.kind != repo::ChangeKind::kDeleted && change.kind != repo::ChangeKind::kModeChanged;
        if (content) counts.bytes += change.new_size;
    }
    return counts;
}

std::string counts_text(const ChangeCounts& counts) {
    std::vector<std::string> parts;
    if (counts.added) parts.push_back(fmt::format("{} added", counts.added));
    if (counts.modified) parts.push_back(fmt::format("{} modified", counts.modified));
    if (counts.deleted) parts.push_back(fmt::format("{} deleted", counts.deleted));
    std::uint64_t all = counts.added + counts.modified + counts.deleted;
    std::string detail = parts.empty() ? "" : fmt::format(" ({})", fmt::join(parts, ", "));
    return fmt::format("{} changed{}, {}", count_text(all, "file"), detail, size_text(counts.bytes));
}

}  // namespace coral::cli
