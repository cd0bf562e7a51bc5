// SPDX-License-Identifier: Apache-2.0
// For tests: an SQLite VFS that puts an observer between SQLite and its files, so that one log holds the writes of the
// packs and of the databases in their true order, and any of them can be made to fail. Reads, locks and the shared
// memory of a WAL go straight to SQLite's own VFS: they are nothing that outlives a power cut.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral {

// Called in place of every change of a file. `perform` does what SQLite asked for; a call that returns an error without
// performing is a failed one. Called from every thread that uses a database.
class SqliteObserver {
  public:
    using Perform = std::function<Status()>;
    virtual ~SqliteObserver() = default;

    // A database, WAL or journal is being opened, and made if `may_create` and it is not there. Returns the number that
    // the other calls know the open file by.
    virtual Result<std::uint64_t> sqlite_open(const std::string& path, bool may_create, const Perform& perform) = 0;
    virtual Status sqlite_write(std::uint64_t file, std::uint64_t offset, Bytes data,
                                const std::function<Status(Bytes)>& perform) = 0;
    virtual Status sqlite_truncate(std::uint64_t file, std::uint64_t size, const Perform& perform) = 0;
    // `directory`: SQLite's own VFS also syncs the directory now (the first sync of a new journal or WAL).
    virtual Status sqlite_sync(std::uint64_t file, bool directory, const Perform& perform) = 0;
    // The file may not be there: that is for `perform` to say.
    virtual Status sqlite_remove(const std::string& path, bool sync_directory, const Perform& perform) = 0;
};

// Registered as long as it lives; must outlive the databases that were opened with it.
class SqliteShim {
  public:
    explicit SqliteShim(SqliteObserver& observer);
    ~SqliteShim();
    SqliteShim(const SqliteShim&) = delete;
    SqliteShim& operator=(const SqliteShim&) = delete;

    const std::string& name() const;  // for Os::sqlite_vfs()

  private:
    struct Vfs;
    std::unique_ptr<Vfs> vfs_;
};

}  // namespace coral
