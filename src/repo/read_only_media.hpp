// SPDX-License-Identifier: Apache-2.0
// A repository on media, or in a directory, that this process cannot write to: SQLite's WAL needs files beside the
// database, so state.db and its -wal are copied out and opened there, and the index lies in the user's cache.
// (`immutable=1` would do without files, and drops what is in the WAL silently.)
#pragma once

#include <memory>
#include <string>

#include "coral/base/os.hpp"

namespace coral::repo {

// True when not even FORMAT can be opened for writing.
bool is_on_read_only_media(Os& os, const std::string& dir);

// Where the index of such a repository lies; its directory exists.
Result<std::string> index_in_cache(Os& os, const std::string& dir);

// A private directory with a copy of state.db, gone with the object.
class StateCopy {
  public:
    // kBusy when the original keeps changing while it is copied.
    static Result<std::unique_ptr<StateCopy>> make(Os& os, const std::string& state_path);
    ~StateCopy();
    StateCopy(const StateCopy&) = delete;
    StateCopy& operator=(const StateCopy&) = delete;
    const std::string& path() const { return path_; }

  private:
    StateCopy(Os& os, std::string dir) : os_(os), dir_(std::move(dir)), path_(path_join(dir_, "state.db")) {}
    Os& os_;
    std::string dir_, path_;
};

}  // namespace coral::repo
