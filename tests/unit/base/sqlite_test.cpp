// SPDX-License-Identifier: Apache-2.0
#include "coral/base/sqlite.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "coral/base/os.hpp"
#include "support/scratch_dir.hpp"

namespace coral {
namespace {

class Sqlite : public ::testing::Test {
  protected:
    std::unique_ptr<Database> open(DatabaseOptions options = {}) {
        auto db = Database::open(real_os(), dir_ / "t.db", options);
        EXPECT_TRUE(db) << db.error().message;
        return db ? *std::move(db) : nullptr;
    }
    static std::int64_t one(Database& db, const std::string& sql) {
        Statement st = db.prepare(sql);
        auto row = st.step();
        EXPECT_TRUE(row && *row) << sql;
        return st.integer(0);
    }
    test::ScratchDir dir_;
};

TEST_F(Sqlite, BindsAndReadsEveryType) {
    auto db = open();
    ASSERT_TRUE(db->execute("CREATE TABLE t(a, b, c, d, e, f, g, h)").ok());
    FileId id;
    id.bytes[3] = std::byte{9};
    Uuid uuid = Uuid::random();
    std::uint64_t big = ~std::uint64_t{0} - 5;
    std::string text("with \0 in it", 12);
    ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(?,?,?,?,?,?,?,?)")
                    .bind(big)
                    .bind(text)
                    .bind(id)
                    .bind(uuid)
                    .bind_null()
                    .bind(true)
                    .bind(std::string_view())
                    .bind(Bytes())
                    .run()
                    .ok());
    Statement st = db->prepare("SELECT *, typeof(g), typeof(h) FROM t");
    ASSERT_TRUE(*st.step());
    EXPECT_EQ(st.unsigned_integer(0), big);
    EXPECT_EQ(st.text(1), text);
    EXPECT_EQ(st.id<FileId>(2), id);
    EXPECT_EQ(st.uuid(3), uuid);
    EXPECT_TRUE(st.is_null(4));
    EXPECT_TRUE(st.text(4).empty());
    EXPECT_TRUE(st.blob(4).empty());
    EXPECT_EQ(st.integer(5), 1);
    EXPECT_EQ(st.text(8), "text");  // empty, not NULL
    EXPECT_EQ(st.text(9), "blob");
    EXPECT_TRUE(st.id<TreeId>(3).is_zero()) << "a blob of another length is no id";
    EXPECT_FALSE(*st.step());
}

TEST_F(Sqlite, StatementsAreUsedAgainWithoutOldBindings) {
    auto db = open();
    ASSERT_TRUE(db->execute("CREATE TABLE t(a)").ok());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(?)").bind(i).run().ok());
    ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(?)").run().ok());  // not bound: NULL, not the 2 of before
    EXPECT_EQ(one(*db, "SELECT count(*) FROM t WHERE a IS NULL"), 1);
    EXPECT_EQ(db->changes(), 1);
    EXPECT_EQ(db->last_insert_rowid(), 4);
}

TEST_F(Sqlite, TheSameSqlMayNest) {
    auto db = open();
    ASSERT_TRUE(db->execute("CREATE TABLE t(a, b); INSERT INTO t VALUES(1,2),(2,3),(3,4)").ok());
    const char* sql = "SELECT b FROM t WHERE a=?";
    Statement outer = db->prepare(sql);
    outer.bind(1);
    ASSERT_TRUE(*outer.step());
    for (int round = 0; round < 3; ++round) {
        Statement inner = db->prepare(sql);
        inner.bind(outer.integer(0));
        ASSERT_TRUE(*inner.step());
        EXPECT_EQ(inner.integer(0), 3);
    }
    EXPECT_EQ(outer.integer(0), 2);
    EXPECT_FALSE(*outer.step());
}

TEST_F(Sqlite, ErrorsAreToldNotThrown) {
    auto db = open();
    ASSERT_TRUE(db->execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT NOT NULL)").ok());
    auto nonsense = db->prepare("SELEC 1").run();
    ASSERT_FALSE(nonsense);
    EXPECT_NE(nonsense.error().message.find("syntax error"), std::string::npos) << nonsense.error().message;
    EXPECT_NE(nonsense.error().message.find("t.db"), std::string::npos);
    EXPECT_FALSE(db->prepare("").step());
    EXPECT_FALSE(db->execute("DROP TABLE nothing").ok());
    EXPECT_FALSE(db->prepare("INSERT INTO t VALUES(?,?)").bind(1).bind("x").bind("one too many").run().ok());
    ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(?,?)").bind(1).bind("x").run().ok());
    auto twice = db->prepare("INSERT INTO t VALUES(?,?)").bind(1).bind("y").run();
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().code, Errc::kExists);
    // A failed statement is as good as new the next time.
    ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(?,?)").bind(2).bind("y").run().ok());
    EXPECT_EQ(one(*db, "SELECT count(*) FROM t"), 2);
}

TEST_F(Sqlite, TransactionsRollBackUnlessCommitted) {
    auto db = open();
    ASSERT_TRUE(db->execute("CREATE TABLE t(a)").ok());
    {
        auto tx = Transaction::begin(*db);
        ASSERT_TRUE(tx);
        ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(1)").run().ok());
        EXPECT_TRUE(db->in_transaction());
        EXPECT_FALSE(Transaction::begin(*db)) << "they do not nest";
    }
    EXPECT_FALSE(db->in_transaction());
    EXPECT_EQ(one(*db, "SELECT count(*) FROM t"), 0);
    {
        auto tx = *Transaction::begin(*db);
        Transaction moved = std::move(tx);
        ASSERT_TRUE(db->prepare("INSERT INTO t VALUES(2)").run().ok());
        ASSERT_TRUE(moved.commit().ok());
    }
    EXPECT_EQ(one(*db, "SELECT a FROM t"), 2);
}

TEST_F(Sqlite, ASecondWriterWaitsAndThenSaysBusy) {
    DatabaseOptions options;
    options.busy_timeout_ms = 20;
    auto a = open(), b = open(options);
    ASSERT_TRUE(a->execute("CREATE TABLE t(x)").ok());
    auto tx = *Transaction::begin(*a);
    ASSERT_TRUE(a->execute("INSERT INTO t VALUES(1)").ok());
    auto second = Transaction::begin(*b);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::kBusy);
    EXPECT_EQ(one(*b, "SELECT count(*) FROM t"), 0);  // readers see the last commit
    ASSERT_TRUE(tx.commit().ok());
    EXPECT_EQ(one(*b, "SELECT count(*) FROM t"), 1);
    EXPECT_TRUE(Transaction::begin(*b));
}

TEST_F(Sqlite, SettingsAreWhatWePromise) {
    for (auto [sync, number] : {std::pair{DatabaseOptions::Sync::kNormal, 1}, {DatabaseOptions::Sync::kFull, 2}}) {
        DatabaseOptions options;
        options.sync = sync;
        auto db = open(options);
        EXPECT_EQ(one(*db, "PRAGMA synchronous"), number);
        EXPECT_EQ(one(*db, "PRAGMA foreign_keys"), 1);
        EXPECT_EQ(one(*db, "PRAGMA trusted_schema"), 0);
        EXPECT_EQ(one(*db, "PRAGMA cell_size_check"), 1);
        Statement st = db->prepare("PRAGMA journal_mode");
        ASSERT_TRUE(*st.step());
        EXPECT_EQ(st.text(0), "wal");
    }
}

TEST_F(Sqlite, Hardened) {
    auto db = open();
    ASSERT_TRUE(db->execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)").ok());
    // Defensive: what could make the file corrupt by plain SQL is off.
    EXPECT_FALSE(db->execute("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='x'").ok());
    EXPECT_FALSE(db->prepare("SELECT load_extension('x')").step());
    // A view in a foreign file must not reach functions with side effects.
    ASSERT_TRUE(db->execute("CREATE VIEW v AS SELECT fts3_tokenizer('simple') FROM t").ok());
    EXPECT_FALSE(db->prepare("SELECT * FROM v").step());
}

TEST_F(Sqlite, ReadOnlyAndMissing) {
    DatabaseOptions read_only;
    read_only.read_only = true;
    auto none = Database::open(real_os(), dir_ / "none.db", read_only);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::kNotFound);
    EXPECT_FALSE(real_os().exists(dir_ / "none.db"));
    DatabaseOptions must_exist;
    must_exist.create = false;
    EXPECT_FALSE(Database::open(real_os(), dir_ / "none.db", must_exist));
    auto writer = open();
    ASSERT_TRUE(writer->execute("CREATE TABLE t(a)").ok());
    auto reader = open(read_only);
    EXPECT_EQ(one(*reader, "SELECT count(*) FROM t"), 0);
    auto denied = reader->prepare("INSERT INTO t VALUES(1)").run();
    ASSERT_FALSE(denied);
    EXPECT_EQ(denied.error().code, Errc::kReadOnly);
}

TEST_F(Sqlite, NotADatabase) {
    ASSERT_TRUE(write_file_atomic(real_os(), dir_ / "t.db", as_bytes(std::string(8192, 'z'))).ok());
    auto db = Database::open(real_os(), dir_ / "t.db", {});
    ASSERT_FALSE(db);
    EXPECT_EQ(db.error().code, Errc::kCorrupt) << db.error().message;
}

TEST_F(Sqlite, UserVersion) {
    auto db = open();
    EXPECT_EQ(*db->user_version(), 0);
    ASSERT_TRUE(db->set_user_version(7).ok());
    EXPECT_EQ(*open()->user_version(), 7);
}

}  // namespace
}  // namespace coral
