// SPDX-License-Identifier: Apache-2.0
#include "repo/state.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::TempDir;

class StateTest : public ::testing::Test {
  protected:
    std::string path() const { return temp_ / "state.db"; }
    Result<std::unique_ptr<State>> open(bool create = false, bool read_only = false) {
        return State::open(real_os(), path(), read_only, create);
    }
    static std::int64_t meta(State& state, const std::string& key) {
        std::int64_t value = -1;
        EXPECT_OK(state.read([&](Database& db) -> Status {
            Statement st = db.prepare("SELECT value FROM meta WHERE key = ?");
            CORAL_TRY(bool row, st.bind(key).step());
            if (row) value = st.integer(0);
            return {};
        }));
        return value;
    }
    static Status set(Database& db, const std::string& key, std::int64_t value) {
        return db
            .prepare("INSERT INTO meta(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value")
            .bind(key)
            .bind(value)
            .run();
    }
    TempDir temp_;
};

TEST_F(StateTest, IsMadeOnlyWhenAsked) {
    EXPECT_ERROR(open(), Errc::kNotFound, "state.db");
    ASSERT_OK(open(true));
    ASSERT_OK(open());
    ASSERT_OK(open(false, true));
}

TEST_F(StateTest, ANewerVersionIsRefusedWithTheFix) {
    {
        auto state = open(true);
        ASSERT_OK(state);
        ASSERT_OK((*state)->write([](Database& db) { return db.set_user_version(State::kVersion + 1); }));
    }
    EXPECT_ERROR(open(), Errc::kUnsupported, "install the newer version");
    EXPECT_ERROR(open(false, true), Errc::kUnsupported, "install the newer version");
    EXPECT_ERROR(open(true), Errc::kUnsupported, "install the newer version");
}

TEST_F(StateTest, AnOlderVersionIsBroughtUpToDate) {
    {
        auto db = Database::open(real_os(), path(), {.create = true});
        ASSERT_OK(db);
        ASSERT_OK((*db)->execute(kMigrations[0]));
        ASSERT_OK((*db)->set_user_version(1));
        ASSERT_OK(set(**db, "kept", 7));
    }
    EXPECT_ERROR(open(false, true), Errc::kReadOnly, "open the repository once for writing");
    auto state = open();
    ASSERT_OK(state);
    EXPECT_EQ(meta(**state, "kept"), 7);
    ASSERT_OK((*state)->write([](Database& db) { return db.execute("DELETE FROM overlay_link"); }));
    ASSERT_OK(open(false, true));
}

TEST_F(StateTest, AnEmptyFileIsNoState) {
    ASSERT_OK(real_os().open(path(), OpenMode::kCreateNew));
    EXPECT_ERROR(open(), Errc::kCorrupt, "backup");
    ASSERT_OK(open(true));  // an interrupted init
}

TEST_F(StateTest, GarbageIsToldAsSuch) {
    std::string text(8192, 'x');
    ASSERT_OK(write_file_atomic(real_os(), path(), as_bytes(text)));
    EXPECT_ERROR(open(), Errc::kCorrupt, "state.db");
}

TEST_F(StateTest, AnErrorRollsBack) {
    auto state = open(true);
    ASSERT_OK(state);
    auto failing = [](Database& db) -> Status {
        CORAL_CHECK(set(db, "x", 1));
        return make_error(Errc::kConflict, "no");
    };
    EXPECT_ERROR((*state)->write(failing), Errc::kConflict, "no");
    EXPECT_ERROR((*state)->write_durably(failing), Errc::kConflict, "no");
    EXPECT_EQ(meta(**state, "x"), -1);
    ASSERT_OK((*state)->write([](Database& db) { return set(db, "x", 2); }));
    EXPECT_EQ(meta(**state, "x"), 2);
}

TEST_F(StateTest, ADurableWriteAlwaysChangesARow) {
    auto state = open(true);
    ASSERT_OK(state);
    ASSERT_OK((*state)->write_durably([](Database&) { return Status(); }));
    EXPECT_EQ(meta(**state, "full_commits"), 1);
    ASSERT_OK((*state)->write([](Database& db) { return set(db, "x", 7); }));
    ASSERT_OK((*state)->write_durably([](Database&) { return Status(); }));
    EXPECT_EQ(meta(**state, "full_commits"), 2);
    EXPECT_EQ(meta(**state, "x"), 7);
}

TEST_F(StateTest, ReadOnlyWritesNothing) {
    ASSERT_OK(open(true));
    auto state = open(false, true);
    ASSERT_OK(state);
    EXPECT_ERROR((*state)->write([](Database&) { return Status(); }), Errc::kReadOnly, "read-only");
    EXPECT_ERROR((*state)->write_durably([](Database&) { return Status(); }), Errc::kReadOnly, "read-only");
    EXPECT_EQ(meta(**state, "x"), -1);
}

TEST_F(StateTest, AReadIsOneSnapshot) {
    auto state = open(true);
    ASSERT_OK(state);
    ASSERT_OK((*state)->write([](Database& db) { return set(db, "x", 1); }));
    ASSERT_OK((*state)->read([&](Database& db) -> Status {
        auto value = [&]() -> std::int64_t {
            Statement st = db.prepare("SELECT value FROM meta WHERE key = 'x'");
            return st.step().value_or(false) ? st.integer(0) : -1;
        };
        EXPECT_EQ(value(), 1);
        std::thread([&] { EXPECT_OK((*state)->write([](Database& w) { return set(w, "x", 2); })); }).join();
        EXPECT_EQ(value(), 1);
        return {};
    }));
    EXPECT_EQ(meta(**state, "x"), 2);
}

TEST_F(StateTest, ManyWritersOfTwoConnectionsLoseNothing) {
    auto a = open(true), b = open();
    ASSERT_OK(a);
    ASSERT_OK(b);
    constexpr int kThreads = 4, kRounds = 25;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            State& state = t % 2 ? **a : **b;
            for (int i = 0; i < kRounds; ++i) {
                auto add = [](Database& db) {
                    return db.execute(
                        "INSERT INTO meta(key, value) VALUES('n', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1");
                };
                EXPECT_OK(i % 5 == 0 ? state.write_durably(add) : state.write(add));
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(meta(**a, "n"), kThreads * kRounds);
}

}  // namespace
}  // namespace coral::repo
