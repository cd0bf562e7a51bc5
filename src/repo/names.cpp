// SPDX-License-Identifier: Apache-2.0
#include "repo/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace coral::repo {
namespace {

constexpr std::int64_t kLockWaitNs = 30'000'000'000;
constexpr std::size_t kMaxComponent = 255;
constexpr std::size_t kMaxBranchName = 1000;

bool valid_component(std::string_view part) {
    return !part.empty() && part.size() <= kMaxComponent && part.front() != '.' && !part.ends_with(".lock");
}

}  // namespace

// The rules of git-check-ref-format(1), and a length that fits a path.
bool valid_branch_name(std::string_view name) {
    if (name.empty() || name.size() > kMaxBranchName || name == "@" || name == "HEAD") return false;
    if (name.front() == '-' || name.back() == '.') return false;
    if (name.find("..") != std::string_view::npos || name.find("@{") != std::string_view::npos) return false;
    for (char c : name) {
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return false;
    }
    if (name.find_first_of("~^:?*[\\") != std::string_view::npos) return false;
    for (std::string_view rest = name;;) {
        std::size_t slash = rest.find('/');
        if (!valid_component(rest.substr(0, slash))) return false;
        if (slash == std::string_view::npos) return true;
        rest.remove_prefix(slash + 1);
    }
}

Result<NamesLock> NamesLock::take(Os& os, const std::string& dir) {
    std::string path = path_join(dir, "lock");
    CORAL_TRY(auto file, os.open(path, OpenMode::kOpenOrCreate));
    auto pause = std::chrono::microseconds(200);
    for (std::int64_t start = monotonic_ns();;) {
        CORAL_TRY(bool mine, file->try_lock(true));
        if (mine) return NamesLock(std::move(file));
        if (monotonic_ns() - start > kLockWaitNs) break;
        std::this_thread::sleep_for(pause);
        pause = std::min(pause * 2, std::chrono::microseconds(20'000));
    }
    return make_error(Errc::kBusy,
                      fmt::format("{}: another process has held this lock for 30 s; see who with `fuser {}`, and "
                                  "try again once it is gone",
                                  path, path));
}

// The owner of /proc/self is the process's effective user and group.
Owner process_owner() {
    auto self = real_os().stat("/proc/self");
    return self ? Owner{self->uid, self->gid} : Owner{};
}

Status insert_branch(Database& db, const NewBranch& branch, const Owner& owner) {
    std::int64_t now = now_ns();
    {
        Statement st = db.prepare("INSERT INTO worktree(uuid, branch, base_commit) VALUES(?, ?, ?)");
        st.bind(branch.worktree).bind(branch.name);
        CORAL_CHECK(bind_optional(st, branch.commit.value_or(CommitId{})).run());
    }
    std::int64_t worktree = db.last_insert_rowid();
    {
        // A branch with a commit is filled from its tree when it is first looked into; an unborn one is empty and full.
        Statement st = db.prepare(
            "INSERT INTO inode(worktree, parent, name, type, mode, uid, gid, size, mtime_ns, ctime_ns, content, "
            "filled) "
            "VALUES(?, 0, x'', 2, ?, ?, ?, 0, ?, ?, ?, ?)");
        st.bind(worktree).bind(0755).bind(owner.uid).bind(owner.gid).bind(now).bind(now);
        bind_optional(st, branch.tree.value_or(TreeId{}));
        CORAL_CHECK(st.bind(!branch.commit).run());
    }
    std::int64_t root = db.last_insert_rowid();
    return db.prepare("UPDATE worktree SET root = ? WHERE id = ?").bind(root).bind(worktree).run();
}

}  // namespace coral::repo
