// SPDX-License-Identifier: Apache-2.0
#include "coral/base/sqlite.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include "coral/base/os.hpp"

namespace coral {
namespace {

Errc category(int code) {
    switch (code & 0xff) {
        case SQLITE_FULL:
            return Errc::kNoSpace;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return Errc::kCorrupt;
        case SQLITE_READONLY:
            return Errc::kReadOnly;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return Errc::kBusy;
        case SQLITE_CONSTRAINT:
            return Errc::kExists;
        case SQLITE_CANTOPEN:
            return Errc::kNotFound;
        case SQLITE_MISUSE:
            return Errc::kInternal;
        default:
            return Errc::kIo;
    }
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : db_(std::exchange(other.db_, nullptr)),
      stmt_(std::exchange(other.stmt_, nullptr)),
      error_(other.error_),
      next_(other.next_) {}

Statement::~Statement() {
    if (stmt_) db_->give_back(stmt_);
}

Statement& Statement::bind(std::int64_t v) {
    if (stmt_ && error_ == SQLITE_OK) error_ = sqlite3_bind_int64(stmt_, next_++, v);
    return *this;
}

Statement& Statement::bind(std::string_view text) {
    if (stmt_ && error_ == SQLITE_OK) {
        // A null pointer would bind NULL instead of the empty text.
        const char* data = text.data() ? text.data() : "";
        error_ = sqlite3_bind_text64(stmt_, next_++, data, text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
    }
    return *this;
}

Statement& Statement::bind(Bytes blob) {
    if (stmt_ && error_ == SQLITE_OK) {
        const void* data = blob.data() ? static_cast<const void*>(blob.data()) : "";
        error_ = sqlite3_bind_blob64(stmt_, next_++, data, blob.size(), SQLITE_TRANSIENT);
    }
    return *this;
}

Statement& Statement::bind_null() {
    if (stmt_ && error_ == SQLITE_OK) error_ = sqlite3_bind_null(stmt_, next_++);
    return *this;
}

Result<bool> Statement::step() {
    if (!stmt_ || error_ != SQLITE_OK) return db_->error(error_, "statement");
    int code = sqlite3_step(stmt_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return db_->error(code, sqlite3_sql(stmt_));
}

Status Statement::run() {
    while (true) {
        CORAL_TRY(bool more, step());
        if (!more) return {};
    }
}

std::int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(stmt_, column);
}

std::string Statement::text(int column) const {
    const auto* data = sqlite3_column_text(stmt_, column);
    auto size = static_cast<std::size_t>(sqlite3_column_bytes(stmt_, column));
    return data ? std::string(reinterpret_cast<const char*>(data), size) : std::string();
}

Bytes Statement::blob(int column) const {
    const void* data = sqlite3_column_blob(stmt_, column);
    auto size = static_cast<std::size_t>(sqlite3_column_bytes(stmt_, column));
    return data ? Bytes(static_cast<const std::byte*>(data), size) : Bytes();
}

bool Statement::is_null(int column) const {
    return sqlite3_column_type(stmt_, column) == SQLITE_NULL;
}

Result<std::unique_ptr<Database>> Database::open(Os& os, const std::string& path, const DatabaseOptions& options) {
    auto db = std::unique_ptr<Database>(new Database);
    db->path_ = path;
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
                (options.create && !options.read_only ? SQLITE_OPEN_CREATE : 0);
    std::string vfs = os.sqlite_vfs();
    int code = sqlite3_open_v2(path.c_str(), &db->db_, flags, vfs.empty() ? nullptr : vfs.c_str());
    if (code != SQLITE_OK) return db->error(code, "open");
    sqlite3_busy_timeout(db->db_, options.busy_timeout_ms);
    // What lies in the repository may have been made by somebody else: no functions, views or schema tricks from there.
    sqlite3_db_config(db->db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(db->db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    if (options.exclusive) CORAL_CHECK(db->execute("PRAGMA locking_mode=EXCLUSIVE"));
    if (!options.read_only) CORAL_CHECK(db->execute("PRAGMA journal_mode=WAL"));
    static constexpr const char* kSync[] = {"OFF", "NORMAL", "FULL"};
    CORAL_CHECK(
        db->execute(fmt::format("PRAGMA synchronous={}; PRAGMA foreign_keys=ON; PRAGMA cell_size_check=ON; "
                                "PRAGMA temp_store=MEMORY",
                                kSync[static_cast<int>(options.sync)])));
    return db;
}

Database::~Database() {
    for (auto& [sql, stmt] : idle_) sqlite3_finalize(stmt);
    sqlite3_close(db_);
}

Statement Database::prepare(std::string_view sql) {
    auto found = idle_.find(std::string(sql));
    if (found != idle_.end()) {
        sqlite3_stmt* stmt = found->second;
        idle_.erase(found);
        return Statement(this, stmt, SQLITE_OK);
    }
    sqlite3_stmt* stmt = nullptr;
    int code =
        sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &stmt, nullptr);
    return Statement(this, stmt, code == SQLITE_OK && !stmt ? SQLITE_MISUSE : code);
}

void Database::give_back(sqlite3_stmt* stmt) {
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    idle_.emplace(sqlite3_sql(stmt), stmt);
}

Status Database::execute(const std::string& sql) {
    int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return error(code, sql);
    return {};
}

std::int64_t Database::last_insert_rowid() const {
    return sqlite3_last_insert_rowid(db_);
}
std::int64_t Database::changes() const {
    return sqlite3_changes64(db_);
}
bool Database::in_transaction() const {
    return sqlite3_get_autocommit(db_) == 0;
}

Result<std::int64_t> Database::user_version() {
    Statement st = prepare("PRAGMA user_version");
    CORAL_TRY(bool row, st.step());
    return row ? st.integer(0) : 0;
}

Status Database::set_user_version(std::int64_t version) {
    return execute(fmt::format("PRAGMA user_version={}", version));
}

Error Database::error(int code, std::string_view what) const {
    const char* detail =
        db_ && (sqlite3_errcode(db_) & 0xff) == (code & 0xff) ? sqlite3_errmsg(db_) : sqlite3_errstr(code);
    return {category(code), fmt::format("{}: {} ({})", path_, detail, what.substr(0, 60))};
}

Result<Transaction> Transaction::begin(Database& db) {
    CORAL_CHECK(db.prepare("BEGIN IMMEDIATE").run());
    return Transaction(&db);
}

Transaction::~Transaction() {
    // SQLite may already have rolled back by itself (disk full): a second ROLLBACK is a harmless error.
    if (db_ && db_->in_transaction()) (void)db_->prepare("ROLLBACK").run();
}

Status Transaction::commit() {
    CORAL_CHECK(db_->prepare("COMMIT").run());
    db_ = nullptr;
    return {};
}

}  // namespace coral
