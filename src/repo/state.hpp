// SPDX-License-Identifier: Apache-2.0
// The connections to state.db: one writer with synchronous=NORMAL (survives kill -9), one with FULL (survives power
// loss; `synchronous` cannot change inside a transaction), one reader. SQLite allows one writer at a time, so one mutex
// covers the writers: the documented exception to "no lock across I/O" (docs/architecture.md, "Locks").
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "coral/base/os.hpp"
#include "coral/base/sqlite.hpp"
#include "repo/read_only_media.hpp"

namespace coral::repo {

class State {
  public:
    static constexpr std::int64_t kVersion = 2;
    ~State();
    // Creates and migrates as needed (numbered migrations keyed by user_version); kUnsupported when it is newer than we
    // are.
    static Result<std::unique_ptr<State>> open(Os& os, const std::string& path, bool read_only, bool create);

    // One transaction each. The callback must not call back into State. An error rolls back.
    Status write(const std::function<Status(Database&)>& body);  // NORMAL
    Status write_durably(
        const std::function<Status(Database&)>& body);          // FULL: carries all earlier commits to the disk
    Status read(const std::function<Status(Database&)>& body);  // one snapshot
    // One statement that reads a row or two: cheaper, and never waits for a write.
    Status look_up(const std::function<Status(Database&)>& body);

  private:
    State(Os& os, std::string path) : os_(os), wal_path_(std::move(path) + "-wal") {}
    Status rewrite_wal();
    void reserve_wal();

    Os& os_;
    const std::string wal_path_;
    std::mutex write_mutex_;           // guards normal_, full_, suspect_ and failed_
    bool suspect_ = false;             // the WAL may hold frames that a failed sync has lost
    bool failed_ = false;              // a sync of ours has failed, and the WAL was not written anew since
    std::mutex read_mutex_;            // guards reader_
    std::unique_ptr<StateCopy> copy_;  // of a database on media that cannot be written to
    std::unique_ptr<Database> normal_, full_, reader_;
};

// The tables, in order of their migrations: kMigrations[i] brings user_version i to i + 1.
extern const char* const kMigrations[State::kVersion];

}  // namespace coral::repo
