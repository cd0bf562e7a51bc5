// SPDX-License-Identifier: Apache-2.0
#include "repo/state.hpp"

#include <fmt/format.h>

#include "coral/base/descriptors.hpp"
#include "coral/base/log.hpp"

namespace coral::repo {
namespace {

constexpr std::uint64_t kWalReserve = 8 << 20;  // SQLite makes a checkpoint of each 4 MiB

Status migrate(Database& db) {
    CORAL_TRY(Transaction transaction, Transaction::begin(db));
    // Asked again inside: another process may have migrated while we waited for the lock.
    CORAL_TRY(std::int64_t version, db.user_version());
    for (; version < State::kVersion; ++version) {
        CORAL_CHECK(db.execute(kMigrations[version]));
        CORAL_CHECK(db.set_user_version(version + 1));
    }
    return transaction.commit();
}

Status check_version(Database& db, bool may_create, bool read_only) {
    CORAL_TRY(std::int64_t version, db.user_version());
    if (version > State::kVersion) {
        return make_error(
            Errc::kUnsupported,
            fmt::format("{}: made by a newer CoralFS (state version {}, this one knows up to {}); install the "
                        "newer version to open this repository",
                        db.path(), version, State::kVersion));
    }
    if (version == State::kVersion) return {};
    if (version <= 0 && !may_create) {
        return make_error(Errc::kCorrupt,
                          fmt::format("{}: holds no CoralFS state (emptied or replaced?); put the file back "
                                      "from a backup",
                                      db.path()));
    }
    if (read_only) {
        return make_error(Errc::kReadOnly,
                          fmt::format("{}: has the older state version {}; open the repository once for "
                                      "writing to bring it up to date",
                                      db.path(), version));
    }
    return {};
}

// A read transaction: everything that the body sees is of one moment.
class Snapshot {
  public:
    static Result<Snapshot> begin(Database& db) {
        CORAL_CHECK(db.prepare("BEGIN").run());
        return Snapshot(&db);
    }
    Snapshot(Snapshot&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}
    Snapshot& operator=(Snapshot&&) = delete;
    ~Snapshot() {
        if (db_ && db_->in_transaction()) (void)db_->prepare("ROLLBACK").run();
    }

  private:
    explicit Snapshot(Database* db) : db_(db) {}
    Database* db_;
};

Error read_only_error() {
    return make_error(Errc::kReadOnly, "the repository is open read-only: nothing in it can be changed");
}

}  // namespace

Result<std::unique_ptr<State>> State::open(Os& os, const std::string& path, bool read_only, bool create) {
    using Sync = DatabaseOptions::Sync;
    if (!create) {
        // SQLite would say "unable to open database file"; the stat says why.
        if (auto found = os.stat(path); !found) return std::move(found).error();
    }
    auto state = std::unique_ptr<State>(new State(os, path));
    DatabaseOptions options;
    options.create = create;
    if (!read_only) {
        // What an earlier process left in the WAL may be such bytes, too.
        auto wal = os.stat(state->wal_path_);
        state->suspect_ = wal && wal->size > 0;
        CORAL_TRY(state->full_, [&] {
            options.sync = Sync::kFull;
            return Database::open(os, path, options);
        }());
        CORAL_CHECK(check_version(*state->full_, create, false));
        CORAL_CHECK(migrate(*state->full_));
        options.sync = Sync::kNormal;
        CORAL_TRY(state->normal_, Database::open(os, path, options));
    }
    options.read_only = true;
    options.create = false;
    std::string readable = path;
    if (read_only && is_on_read_only_media(os, path_parent(path))) {
        CORAL_TRY(state->copy_, StateCopy::make(os, path));
        readable = state->copy_->path();
        // The copy is ours, so it can be of this version even where the original cannot be brought up to date.
        CORAL_TRY(auto ours, Database::open(os, readable, {.create = false}));
        CORAL_CHECK(check_version(*ours, false, false));
        CORAL_CHECK(migrate(*ours));
    }
    CORAL_TRY(state->reader_, Database::open(os, readable, options));
    CORAL_CHECK(check_version(*state->reader_, false, true));
    if (!read_only) state->reserve_wal();
    return state;
}

// On a disk that contents have filled, a file can be removed only if the transaction that does so has room. The WAL
// keeps what it has for as long as anybody has the database open, and begins anew in it after a checkpoint.
void State::reserve_wal() {
    auto wal = os_.open(wal_path_, OpenMode::kReadWrite);  // nobody locks it: closing it takes no lock of SQLite's away
    Status reserved = wal ? reserve(**wal, kWalReserve) : Status(std::move(wal).error());
    if (!reserved) log_debug("{}: no room in advance: {}", wal_path_, reserved.error().message);
}

// The WAL's removal is not synced: it may come back, and must then be whole up to what the database holds.
State::~State() {
    if (!failed_ || !full_) return;
    auto transaction = Transaction::begin(*full_);
    if (transaction && rewrite_wal()) return;
    log_error("{}: what was written last may be lost if the machine stops now", wal_path_);
}

Status State::write(const std::function<Status(Database&)>& body) {
    if (!normal_) return read_only_error();
    std::lock_guard lock(write_mutex_);
    CORAL_TRY(Transaction transaction, Transaction::begin(*normal_));
    CORAL_CHECK(body(*normal_));
    return transaction.commit();
}

Status State::write_durably(const std::function<Status(Database&)>& body) {
    if (!full_) return read_only_error();
    std::lock_guard lock(write_mutex_);
    CORAL_TRY(Transaction transaction, Transaction::begin(*full_));
    if (suspect_) CORAL_CHECK(rewrite_wal());
    CORAL_CHECK(body(*full_));
    // A transaction that changes no page writes no WAL frame, and then nothing is synced.
    CORAL_CHECK(full_
                    ->prepare("INSERT INTO meta(key, value) VALUES('full_commits', 1) "
                              "ON CONFLICT(key) DO UPDATE SET value = value + 1")
                    .run());
    Status committed = transaction.commit();
    if (!committed) suspect_ = failed_ = true;
    return committed;
}

// When a sync fails, the kernel tells it once and forgets the bytes: they stay readable, but the next sync succeeds
// without them, and after a power cut the WAL ends where they were, whatever was promised behind it. Written again they
// are as good as new. The caller has SQLite's write lock, so nobody appends meanwhile; those who read see the same
// bytes as before.
Status State::rewrite_wal() {
    auto wal = os_.open(wal_path_, OpenMode::kReadWrite);
    if (!wal && wal.error().code == Errc::kNotFound) return {};
    if (!wal) return std::move(wal).error();
    std::vector<std::byte> piece(1u << 20);
    for (std::uint64_t at = 0;;) {
        CORAL_TRY(std::size_t got, (*wal)->read_at(at, piece));
        if (got == 0) break;
        CORAL_CHECK((*wal)->write_at(at, Bytes(piece).first(got)));
        at += got;
    }
    CORAL_CHECK((*wal)->sync_data());
    suspect_ = failed_ = false;
    return {};
}

// A connection keeps the pages of its own writes, and reads all of them anew after somebody else's: so what is asked
// between writes is asked of the writer's, while nobody writes.
Status State::look_up(const std::function<Status(Database&)>& body) {
    if (std::unique_lock writer(write_mutex_, std::try_to_lock); writer && normal_) return body(*normal_);
    std::lock_guard lock(read_mutex_);
    return body(*reader_);
}

Status State::read(const std::function<Status(Database&)>& body) {
    std::lock_guard lock(read_mutex_);
    CORAL_TRY(Snapshot snapshot, Snapshot::begin(*reader_));
    return body(*reader_);
}

}  // namespace coral::repo
