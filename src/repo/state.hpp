// SPDX-License-Identifier: Apache-2.0
// The connections to state.db: one writer with synchronous=NORMAL (survives kill -9), one with FULL (survives power loss;
// `synchronous` cannot change inside a transaction), one reader. SQLite allows one writer at a time, so one mutex covers the
// writers: the documented exception to "no lock across I/O" (docs/architecture.md, "Locks").
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "coral/base/os.hpp"
#include "coral/base/sqlite.hpp"

namespace coral::repo {

class State {
  public:
    static constexpr std::int64_t kVersion = 1;
    // Creates and migrates as needed (numbered migrations keyed by user_version); kUnsupported when it is newer than we are.
    static Result<std::unique_ptr<State>> open(Os& os, const std::string& path, bool read_only, bool create);

    // One transaction each. The callback must not call back into State. An error rolls back.
    Status write(const std::function<Status(Database&)>& body);         // NORMAL
    Status write_durably(const std::function<Status(Database&)>& body);  // FULL: carries all earlier commits to the disk
    Status read(const std::function<Status(Database&)>& body);           // one snapshot

  private:
    State() = default;
    std::mutex write_mutex_;  // guards normal_ and full_
    std::mutex read_mutex_;   // guards reader_
    std::unique_ptr<Database> normal_, full_, reader_;
};

// The tables, in order of their migrations: kMigrations[i] brings user_version i to i + 1.
extern const char* const kMigrations[State::kVersion];

}  // namespace coral::repo
