// SPDX-License-Identifier: Apache-2.0
// Contents that this process uses although no name may lead to them any more: open files that were deleted, files of
// commits, what `coral add` has stored and not named yet. They are written to run/pins-<uuid>, whose lock is held as
// long as the process lives; `coral gc` takes them for used.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coral/base/os.hpp"

namespace coral::repo {

class Pins : public std::enable_shared_from_this<Pins> {
  public:
    Pins(Os& os, std::string run_dir) : os_(os), run_dir_(std::move(run_dir)) {}
    ~Pins();

    // Used until the last copy of the result is gone. Where nothing can be written (read-only media) nothing is pinned.
    std::shared_ptr<void> pin(const FileId& id);

    // Those of all processes that live. Files of processes that do not are removed.
    static Result<std::vector<FileId>> all(Os& os, const std::string& run_dir);

  private:
    Status write(std::byte sign, const FileId& id);
    Status make_file();
    void unpin(const FileId& id);

    Os& os_;
    const std::string run_dir_;
    std::mutex mutex_;  // guards the rest; held for one small write
    std::map<FileId, std::size_t> used_;
    std::unique_ptr<File> file_;
    std::string path_;
    std::uint64_t end_ = 0;
    bool impossible_ = false;
};

}  // namespace coral::repo
