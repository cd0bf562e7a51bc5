// SPDX-License-Identifier: Apache-2.0
#include "repo/worktree_lock.hpp"

#include <thread>

#include "coral/base/log.hpp"
#include "coral/repo/worktree.hpp"

namespace coral::repo {
namespace {

constexpr auto kPause = std::chrono::milliseconds(5);

Result<std::unique_ptr<File>> open_lock(Os& os, const std::string& path) {
    auto file = os.open(path, OpenMode::kOpenOrCreate);
    if (file || file.error().code != Errc::kNotFound) return file;
    (void)os.make_dir(path_parent(path));  // backups may leave run/ out
    return os.open(path, OpenMode::kOpenOrCreate);
}

// The lock file goes with its branch. Whoever had opened it before must not own a file that nobody else can find.
Result<bool> has_this_name(Os& os, File& file, const std::string& path) {
    CORAL_TRY(FileStat mine, file.stat());
    auto named = os.stat(path);
    if (!named && named.error().code == Errc::kNotFound) return false;
    if (!named) return std::move(named).error();
    return named->inode == mine.inode && named->device == mine.device;
}

}  // namespace

Result<std::unique_ptr<File>> lock_worktree(const Repository& repo, const Uuid& worktree,
                                            std::chrono::milliseconds patience) {
    std::string path = Worktree::lock_path(repo, worktree);
    for (auto start = std::chrono::steady_clock::now();;) {
        CORAL_TRY(auto file, open_lock(repo.os(), path));
        CORAL_TRY(bool mine, file->try_lock(true));
        if (mine) {
            CORAL_TRY(bool valid, has_this_name(repo.os(), *file, path));
            if (valid) return file;
            continue;
        }
        if (std::chrono::steady_clock::now() - start >= patience) return std::unique_ptr<File>();
        std::this_thread::sleep_for(kPause);
    }
}

void remove_worktree_lock(const Repository& repo, const Uuid& worktree) {
    for (const std::string& path : {Worktree::owner_path(repo, worktree), Worktree::lock_path(repo, worktree)}) {
        auto removed = repo.os().remove(path);
        if (!removed && removed.error().code != Errc::kNotFound) log_warn("{}", removed.error().message);
    }
}

}  // namespace coral::repo
