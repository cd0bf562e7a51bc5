// SPDX-License-Identifier: Apache-2.0
// Where new staging files come from, and where old ones go that may serve again (spare_files.hpp).
#include "coral/base/log.hpp"
#include "repo/worktree_impl.hpp"

namespace coral::repo {

Result<Uuid> Worktree::Impl::new_staging_file() {
    while (auto spare = spares.take(monotonic_ns())) {
        auto file = repo.os().open(staging_path(*spare), OpenMode::kReadWrite);
        if (!file) continue;
        staging_files->put(*spare, std::move(*file));
        return *spare;
    }
    Uuid uuid = Uuid::random();
    CORAL_TRY(std::shared_ptr<File> file, repo.os().open(staging_path(uuid), OpenMode::kCreateNew));
    staging_files->put(uuid, std::move(file));
    return uuid;
}

// No row on the disk names it any more. It gets another name after it was emptied: filesystems keep these two in order,
// so what a power cut leaves is a file that nobody names, or none under the name that its next row has, never old
// bytes.
bool Worktree::Impl::keep_as_spare(const Orphan& orphan) {
    if (!orphan.reusable || !*orphan.reusable || !spares.wants(monotonic_ns())) return false;
    {
        auto file = repo.os().open(orphan.path, OpenMode::kReadWrite);
        // Closed before its next use: see truncate_locked about files that were cut.
        if (!file || !(*file)->truncate(0)) return false;
    }
    Uuid uuid = Uuid::random();
    if (!repo.os().rename(orphan.path, staging_path(uuid))) return false;
    spares.put(uuid);
    return true;
}

void Worktree::Impl::remove_spares(const std::vector<Uuid>& gone) {
    for (const Uuid& uuid : gone) {
        auto removed = repo.os().remove(staging_path(uuid));
        if (!removed && removed.error().code != Errc::kNotFound) log_warn("{}", removed.error().message);
    }
}

}  // namespace coral::repo
