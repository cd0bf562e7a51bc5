// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "coral/base/thread_pool.hpp"
#include "coral/repo/repository.hpp"
#include "coral/repo/worktree.hpp"
#include "crash/facts.hpp"
#include "support/recording_os.hpp"

namespace coral::test {

// Small caches and packs: several packs are sealed within a few MiB.
repo::RepositoryOptions small_options();
// Noise that no codec makes smaller, the same for a seed.
std::string noise(std::size_t size, std::uint64_t seed);

// A training run in small, through the same calls as the mount makes. Each step is tried twice (a user would), then the
// rest is left out; what was promised is written down in facts().
class Workload {
  public:
    Workload(RecordingOs& os, std::string dir);
    ~Workload();
    bool start();  // makes and opens the repository
    bool run();    // all; true: every step succeeded, if not at once
    void close();
    const Facts& facts() const { return facts_; }

  private:
    enum class Sync { kNo, kFile };
    Status open();
    bool first_epoch();
    bool change_in_place();
    bool second_epoch();
    bool third_epoch();
    bool step(std::string_view what, const std::function<Status()>& body);

    bool save(const std::string& path, const std::string& content, Sync sync);
    bool overwrite(const std::string& path, std::size_t offset, const std::string& data, Sync sync);
    // A new file that `from` is linked into, synced; then written to in place while it is still open.
    bool link_and_patch(const std::string& from, const std::string& to);
    bool rename(const std::string& from, const std::string& to, const std::function<Status()>& after);
    bool remove(const std::string& path);
    bool make_directory(const std::string& path);
    bool sync_names();
    bool commit(const std::string& message);
    bool restore_first(const std::string& path);  // as in the first commit
    bool make_ref(const std::string& name);

    Status write_all(const std::string& path, std::string_view content, std::size_t offset, bool replace, Sync sync);
    Result<repo::InodePtr> parent_of(const std::string& path);
    Version& begin(const std::string& path, std::optional<std::string> content);
    const Version* current(const std::string& path) const;

    RecordingOs& os_;
    std::string dir_;
    Facts facts_;
    ThreadPool pool_{"crash-encode", 2};
    std::unique_ptr<repo::Repository> repo_;
    std::shared_ptr<repo::Worktree> tree_;
};

}  // namespace coral::test
