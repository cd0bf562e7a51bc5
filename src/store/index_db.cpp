// SPDX-License-Identifier: Apache-2.0
// The SQLite half of the index: schema, replacement, reading connections, batched writes.
#include <fmt/format.h>

#include <chrono>
#include <set>
#include <thread>

#include "coral/base/log.hpp"
#include "store/index.hpp"

namespace coral::store {
namespace {

constexpr std::int64_t kIndexVersion = 1;
// A whole check of a small database costs less than the doubt; a large one is checked page by page as it is read.
constexpr std::uint64_t kCheckWhole = 8u << 20;

constexpr const char* kSchema = R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE packs(no INTEGER PRIMARY KEY, uuid BLOB NOT NULL UNIQUE, created INTEGER NOT NULL, phase INTEGER NOT NULL,
  indexed_to INTEGER NOT NULL, next_seq INTEGER NOT NULL, ref_seq INTEGER NOT NULL, tail_offset INTEGER NOT NULL,
  tail_sum INTEGER NOT NULL, index_bytes INTEGER NOT NULL);
CREATE TABLE objects(kind INTEGER NOT NULL, id BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
  slot INTEGER NOT NULL, stored INTEGER NOT NULL, raw INTEGER NOT NULL, rank INTEGER NOT NULL, flags INTEGER NOT NULL,
  PRIMARY KEY(kind, id, pack, offset, slot)) WITHOUT ROWID;
)";

constexpr const char* kRowColumns =
    "o.id, o.kind, o.flags, o.rank, p.uuid, p.created, o.offset, o.stored, o.raw, o.slot "
    "FROM objects o JOIN packs p ON p.no = o.pack ";

Row read_row(const Statement& st) {
    Row row;
    row.id = st.id<AnyId>(0);
    row.kind = static_cast<Kind>(st.integer(1));
    row.flags = static_cast<std::uint16_t>(st.integer(2));
    row.rank = static_cast<std::uint32_t>(st.integer(3));
    row.pack = st.uuid(4);
    row.created_ns = st.integer(5);
    row.offset = st.unsigned_integer(6);
    row.stored = st.unsigned_integer(7);
    row.raw = st.unsigned_integer(8);
    row.slot = static_cast<std::int32_t>(st.integer(9));
    return row;
}

// Held while index.db is opened, made or thrown away, so that no two processes do so at once.
Result<std::unique_ptr<File>> lock_index(Os& os, const std::string& path) {
    CORAL_TRY(auto file, os.open(path + "-lock", OpenMode::kOpenOrCreate));
    for (int tries = 0; tries < 6000; ++tries) {
        CORAL_TRY(bool locked, file->try_lock(true));
        if (locked) return file;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return make_error(Errc::kBusy, fmt::format("{}-lock: held by another process for 30 s", path));
}

}  // namespace

Status Index::check_database(Database& db) {
    CORAL_TRY(std::int64_t version, db.user_version());
    if (version != kIndexVersion) return make_error(Errc::kStale, fmt::format("{}: version {}", path_, version));
    Statement st = db.prepare("SELECT value FROM meta WHERE key='repo'");
    CORAL_TRY(bool row, st.step());
    if (!row || st.uuid(0) != repo_) return make_error(Errc::kStale, fmt::format("{}: of another repository", path_));
    CORAL_TRY(FileStat stat, os_.stat(path_));
    if (stat.size > kCheckWhole) return {};
    Statement check = db.prepare("PRAGMA quick_check(1)");
    CORAL_TRY(bool answer, check.step());
    if (!answer || check.text(0) != "ok")
        return make_error(Errc::kCorrupt, fmt::format("{}: {}", path_, check.text(0)));
    return {};
}

Status Index::create_schema(Database& db) {
    CORAL_TRY(Transaction transaction, Transaction::begin(db));
    CORAL_CHECK(db.execute(kSchema));
    CORAL_CHECK(db.prepare("INSERT INTO meta VALUES('repo', ?)").bind(repo_).run());
    CORAL_CHECK(db.prepare("INSERT INTO meta VALUES('incarnation', ?)").bind(Uuid::random()).run());
    CORAL_CHECK(db.set_user_version(kIndexVersion));
    return transaction.commit();
}

void Index::remove_database() {
    // The main file first: what is left of a cut here is a missing database, never one beside a foreign WAL.
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) (void)os_.remove(path_ + suffix);
}

Status Index::open_or_create(bool discard) {
    CORAL_TRY(auto lock, lock_index(os_, path_));
    database_.reset();
    if (discard) remove_database();
    for (int attempt = 0; attempt < 2; ++attempt) {
        bool fresh = !os_.exists(path_);
        if (fresh) remove_database();  // a WAL left alone must not be played into a new database
        auto opened = Database::open(os_, path_, {});
        Status good;
        if (!opened) {
            good = opened.error();
        } else {
            good = fresh ? create_schema(**opened) : check_database(**opened);
        }
        if (good) {
            database_ = std::move(*opened);
            CORAL_TRY(FileStat stat, os_.stat(path_));
            database_inode_ = stat.inode;
            database_device_ = stat.device;
            return {};
        }
        Errc code = good.error().code;
        if (attempt == 1 || fresh || code == Errc::kBusy || code == Errc::kNoSpace) return good;
        log_warn("index is built again: {}", good.error().message);
        if (opened) opened->reset();
        remove_database();
    }
    return {};
}

Status Index::open_database(bool discard) {
    std::lock_guard lock(database_mutex_);
    Status opened = open_or_create(discard);
    generation_.fetch_add(1);
    has_database_ = opened.ok();
    if (!opened && read_only_) {
        log_info("index is kept in memory: {}", opened.error().message);
        return {};
    }
    return opened;
}

bool Index::database_replaced() {
    if (!has_database_) return false;
    auto stat = os_.stat(path_);
    return !stat || stat->inode != database_inode_ || stat->device != database_device_;
}

Result<std::vector<PackState>> Index::load_packs() {
    std::vector<PackState> packs;
    if (!has_database_) return packs;
    std::lock_guard lock(database_mutex_);
    Statement st = database_->prepare(
        "SELECT uuid, created, phase, indexed_to, next_seq, ref_seq, tail_offset, tail_sum, index_bytes FROM packs");
    while (true) {
        CORAL_TRY(bool more, st.step());
        if (!more) return packs;
        PackState s;
        s.uuid = st.uuid(0);
        s.created_ns = st.integer(1);
        s.phase = static_cast<PackPhase>(st.integer(2));
        s.committed_to = s.synced_to = s.scanned_to = st.unsigned_integer(3);
        s.next_seq = st.unsigned_integer(4);
        s.ref_seq = st.unsigned_integer(5);
        s.tail_offset = st.unsigned_integer(6);
        s.tail_sum = st.unsigned_integer(7);
        s.index_bytes = st.unsigned_integer(8);
        packs.push_back(s);
    }
}

Status Index::write_packs(Database& db, const Snapshot& snapshot, std::map<Uuid, std::int64_t>& numbers) {
    for (const PackState& s : snapshot.packs) {
        Statement st = db.prepare("SELECT no, indexed_to, phase FROM packs WHERE uuid=?");
        st.bind(s.uuid);
        CORAL_TRY(bool known, st.step());
        // Rows before committed_to are not in this snapshot: a database that lacks them is not the one that we knew.
        if (known ? st.unsigned_integer(1) < s.committed_to : s.committed_to != kFileHeaderSize) {
            return make_error(Errc::kStale, fmt::format("{}: was replaced", path_));
        }
        if (known) {
            numbers[s.uuid] = st.integer(0);
            bool forward = s.scanned_to > st.unsigned_integer(1) || static_cast<int>(s.phase) > st.integer(2);
            if (!forward) continue;
            CORAL_CHECK(db.prepare("UPDATE packs SET phase=?, indexed_to=?, next_seq=?, ref_seq=?, tail_offset=?, "
                                   "tail_sum=?, index_bytes=? WHERE no=?")
                            .bind(static_cast<std::int64_t>(s.phase))
                            .bind(s.scanned_to)
                            .bind(s.next_seq)
                            .bind(s.ref_seq)
                            .bind(s.tail_offset)
                            .bind(s.tail_sum)
                            .bind(s.index_bytes)
                            .bind(st.integer(0))
                            .run());
        } else {
            CORAL_CHECK(
                db.prepare("INSERT INTO packs(uuid, created, phase, indexed_to, next_seq, ref_seq, tail_offset, "
                           "tail_sum, index_bytes) VALUES(?,?,?,?,?,?,?,?,?)")
                    .bind(s.uuid)
                    .bind(s.created_ns)
                    .bind(static_cast<std::int64_t>(s.phase))
                    .bind(s.scanned_to)
                    .bind(s.next_seq)
                    .bind(s.ref_seq)
                    .bind(s.tail_offset)
                    .bind(s.tail_sum)
                    .bind(s.index_bytes)
                    .run());
            numbers[s.uuid] = db.last_insert_rowid();
        }
    }
    return {};
}

Status Index::write_rows(const Snapshot& snapshot) {
    std::lock_guard lock(database_mutex_);
    if (!database_) return make_error(Errc::kStale, fmt::format("{}: not open", path_));
    CORAL_TRY(Transaction transaction, Transaction::begin(*database_));
    std::map<Uuid, std::int64_t> numbers;
    CORAL_CHECK(write_packs(*database_, snapshot, numbers));
    for (const Row& row : snapshot.rows) {
        auto number = numbers.find(row.pack);
        if (number == numbers.end()) continue;
        CORAL_CHECK(database_->prepare("INSERT OR IGNORE INTO objects VALUES(?,?,?,?,?,?,?,?,?)")
                        .bind(static_cast<std::int64_t>(row.kind))
                        .bind(row.id)
                        .bind(number->second)
                        .bind(row.offset)
                        .bind(static_cast<std::int64_t>(row.slot))
                        .bind(row.stored)
                        .bind(row.raw)
                        .bind(row.rank)
                        .bind(static_cast<std::int64_t>(row.flags))
                        .run());
    }
    return transaction.commit();
}

Status Index::forget_pack(const Uuid& uuid) {
    if (!has_database_) return {};
    std::lock_guard lock(database_mutex_);
    CORAL_TRY(Transaction transaction, Transaction::begin(*database_));
    CORAL_CHECK(
        database_->prepare("DELETE FROM objects WHERE pack=(SELECT no FROM packs WHERE uuid=?)").bind(uuid).run());
    CORAL_CHECK(database_->prepare("DELETE FROM packs WHERE uuid=?").bind(uuid).run());
    return transaction.commit();
}

// One pass over all rows for any number of packs; `gone` is no phase of a pack that is there.
Status Index::drop_rows(const std::vector<Uuid>& packs) {
    if (!has_database_ || packs.empty()) return {};
    constexpr std::int64_t kGone = 9;
    std::lock_guard lock(database_mutex_);
    CORAL_TRY(Transaction transaction, Transaction::begin(*database_));
    for (const Uuid& uuid : packs) {
        CORAL_CHECK(database_->prepare("UPDATE packs SET phase=? WHERE uuid=?").bind(kGone).bind(uuid).run());
    }
    CORAL_CHECK(
        database_->prepare("DELETE FROM objects WHERE pack IN (SELECT no FROM packs WHERE phase=?)").bind(kGone).run());
    CORAL_CHECK(database_->prepare("DELETE FROM packs WHERE phase=?").bind(kGone).run());
    return transaction.commit();
}

Status Index::each_duplicate(const std::function<void(Kind, const AnyId&)>& visit) {
    return with_reader([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT kind, id FROM objects GROUP BY kind, id HAVING COUNT(*) > 1");
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            visit(static_cast<Kind>(st.integer(0)), st.id<AnyId>(1));
        }
    });
}

Status Index::with_reader(const std::function<Status(Database&)>& run) {
    if (!has_database_) return {};
    Reader reader;
    std::uint64_t generation = generation_.load();
    {
        std::lock_guard lock(readers_mutex_);
        while (!readers_.empty() && !reader.db) {
            reader = std::move(readers_.back());
            readers_.pop_back();
            if (reader.generation != generation) reader.db.reset();
        }
    }
    if (!reader.db) {
        DatabaseOptions options;
        options.create = false;
        CORAL_TRY(reader.db, Database::open(os_, path_, options));
        reader.generation = generation;
    }
    Status done = run(*reader.db);
    if (!done) return done;  // the connection goes with its trouble
    std::lock_guard lock(readers_mutex_);
    readers_.push_back(std::move(reader));
    return {};
}

Result<std::vector<Row>> Index::find_committed(Kind kind, const AnyId& id) {
    std::vector<Row> rows;
    static const std::string kSql = fmt::format("SELECT {} WHERE o.kind=? AND o.id=?", kRowColumns);
    CORAL_CHECK(with_reader([&](Database& db) -> Status {
        rows.clear();
        Statement st = db.prepare(kSql);
        st.bind(static_cast<std::int64_t>(kind)).bind(id);
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            rows.push_back(read_row(st));
        }
    }));
    return rows;
}

Status Index::each(Kind kind, const std::function<Status(const Row&)>& visit) {
    static const std::string kSql = fmt::format("SELECT {} WHERE o.kind=?", kRowColumns);
    CORAL_CHECK(with_reader([&](Database& db) -> Status {
        Statement st = db.prepare(kSql);
        st.bind(static_cast<std::int64_t>(kind));
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            Row row = read_row(st);
            if (pack(row.pack)) CORAL_CHECK(visit(row));
        }
    }));
    for (const Row& row : snapshot().rows) {
        if (row.kind == kind) CORAL_CHECK(visit(row));
    }
    return {};
}

Result<std::vector<AnyId>> Index::find_prefix(Kind kind, std::string_view prefix, std::size_t limit) {
    std::string low(prefix), high(prefix);
    if (prefix.size() > 64) return std::vector<AnyId>();
    low.resize(64, '0');
    high.resize(64, 'f');
    auto first = AnyId::from_hex(low), last = AnyId::from_hex(high);
    if (!first || !last) return make_error(Errc::kInvalid, fmt::format("'{}' is no prefix of an id", prefix));
    std::set<AnyId> found;
    CORAL_CHECK(with_reader([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT DISTINCT id FROM objects WHERE kind=? AND id BETWEEN ? AND ? LIMIT ?");
        st.bind(static_cast<std::int64_t>(kind)).bind(*first).bind(*last).bind(static_cast<std::uint64_t>(limit));
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            found.insert(st.id<AnyId>(0));
        }
    }));
    std::shared_lock lock(pending_mutex_);
    for (auto it = pending_.lower_bound({kind, *first}); it != pending_.end() && it->first <= Key{kind, *last}; ++it) {
        found.insert(it->first.second);
    }
    std::vector<AnyId> ids(found.begin(), found.end());
    if (ids.size() > limit) ids.resize(limit);
    return ids;
}

Status Index::totals(StoreStats& stats) {
    CORAL_CHECK(with_reader([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT kind, slot >= 0, COUNT(*), SUM(stored), SUM(raw) FROM objects GROUP BY 1, 2");
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            auto kind = static_cast<Kind>(st.integer(0));
            stats.objects[kind] += st.unsigned_integer(2);
            stats.raw_by_kind[kind] += st.unsigned_integer(4);
            if (st.integer(1) == 0) stats.stored_by_kind[kind] += st.unsigned_integer(3);
        }
    }));
    std::shared_lock lock(pending_mutex_);
    for (const auto& [key, rows] : pending_) {
        for (const Row& row : rows) {
            auto state = states_.find(row.pack);
            if (state != states_.end() && row.offset < state->second.committed_to) continue;  // counted above
            ++stats.objects[row.kind];
            stats.raw_by_kind[row.kind] += row.raw;
            if (row.slot < 0) stats.stored_by_kind[row.kind] += row.stored;
        }
    }
    return {};
}

}  // namespace coral::store
