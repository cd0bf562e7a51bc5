// SPDX-License-Identifier: Apache-2.0
// A thin, typed wrapper around SQLite. The only code that sees sqlite3.h is in src/base.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/result.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace coral {

class Os;
class Database;

// A prepared statement that is being used: bind in order, then step until false. Reset and given back by the
// destructor. Binding and reading never fail; the first error is told by step().
class Statement {
  public:
    Statement(Statement&& other) noexcept;
    Statement& operator=(Statement&&) = delete;
    ~Statement();

    Statement& bind(std::int64_t v);
    Statement& bind(std::uint64_t v) { return bind(static_cast<std::int64_t>(v)); }
    Statement& bind(std::int32_t v) { return bind(static_cast<std::int64_t>(v)); }
    Statement& bind(std::uint32_t v) { return bind(static_cast<std::int64_t>(v)); }
    Statement& bind(bool v) { return bind(static_cast<std::int64_t>(v)); }
    Statement& bind(std::string_view text);
    Statement& bind(const char* text) { return bind(std::string_view(text)); }
    Statement& bind(const std::string& text) { return bind(std::string_view(text)); }
    Statement& bind(Bytes blob);
    template <class Tag>
    Statement& bind(const Id<Tag>& id) {
        return bind(id.span());
    }
    Statement& bind(const Uuid& id) { return bind(Bytes(id.bytes)); }
    Statement& bind_null();

    Result<bool> step();  // true: a row is there
    Status run();         // step to the end, no rows wanted

    std::int64_t integer(int column) const;
    std::uint64_t unsigned_integer(int column) const { return static_cast<std::uint64_t>(integer(column)); }
    std::string text(int column) const;
    Bytes blob(int column) const;  // valid until the next step
    bool is_null(int column) const;
    template <class T>
    T id(int column) const {
        return T::from_bytes(blob(column)).value_or(T{});
    }
    Uuid uuid(int column) const { return Uuid::from_bytes(blob(column)).value_or(Uuid{}); }

  private:
    friend class Database;
    Statement(Database* db, sqlite3_stmt* stmt, int error) : db_(db), stmt_(stmt), error_(error) {}
    Database* db_;
    sqlite3_stmt* stmt_;
    int error_;
    int next_ = 1;
};

struct DatabaseOptions {
    bool read_only = false;
    bool create = true;
    enum class Sync { kOff, kNormal, kFull } sync = Sync::kNormal;
    bool exclusive = false;  // locking_mode=EXCLUSIVE: no shared memory needed (network filesystems)
    int busy_timeout_ms = 30000;
};

// One connection: WAL, foreign keys on, hardened (trusted_schema off, defensive, cell_size_check). Not thread-safe: the
// owner serialises. Statements are prepared once and kept.
class Database {
  public:
    static Result<std::unique_ptr<Database>> open(Os& os, const std::string& path, const DatabaseOptions& options);
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    // A cached statement. The same SQL may be in use more than once (nested): a second one is then prepared.
    Statement prepare(std::string_view sql);
    Status execute(const std::string& sql);  // any number of statements, no rows
    std::int64_t last_insert_rowid() const;
    std::int64_t changes() const;
    bool in_transaction() const;
    const std::string& path() const { return path_; }

    Result<std::int64_t> user_version();
    Status set_user_version(std::int64_t version);

    Error error(int code, std::string_view what) const;

  private:
    friend class Statement;
    Database() = default;
    void give_back(sqlite3_stmt* stmt);

    sqlite3* db_ = nullptr;
    std::string path_;
    std::unordered_multimap<std::string, sqlite3_stmt*> idle_;
};

// BEGIN IMMEDIATE … COMMIT; rolled back by the destructor unless committed.
class Transaction {
  public:
    static Result<Transaction> begin(Database& db);
    Transaction(Transaction&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}
    Transaction& operator=(Transaction&&) = delete;
    ~Transaction();
    Status commit();

  private:
    explicit Transaction(Database* db) : db_(db) {}
    Database* db_;
};

}  // namespace coral
