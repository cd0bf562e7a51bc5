// SPDX-License-Identifier: Apache-2.0
// The recorder and the power cut themselves: what they keep and drop is what every crash test rests on.
#include <gtest/gtest.h>

#include "coral/base/sqlite.hpp"
#include "support/power_cut.hpp"
#include "support/scratch_dir.hpp"

namespace coral::test {
namespace {

using Tree = std::map<std::string, std::string>;

void read_tree(const std::string& path, const std::string& prefix, Tree& out) {
    auto names = real_os().list_dir(path);
    for (const std::string& name : *names) {
        std::string child = path_join(path, name);
        if (real_os().lstat(child)->type == FileType::kDirectory) {
            out[prefix + name + "/"] = "";
            read_tree(child, prefix + name + "/", out);
        } else {
            out[prefix + name] = *read_file(real_os(), child);
        }
    }
}

Tree after(const RecordingOs& os, std::size_t position, Cut cut, std::uint64_t seed = 0) {
    MemoryDir dir;
    Disk disk(os.log());
    disk.advance(position);
    disk.materialise(dir.path(), cut, seed);
    Tree tree;
    read_tree(dir.path(), "", tree);
    return tree;
}

class Replay : public ::testing::Test {
  protected:
    std::unique_ptr<File> create(const std::string& name, std::string_view text) {
        auto file = *os_.open(dir_ / name, OpenMode::kOpenOrCreate);
        EXPECT_TRUE(file->write_at(0, as_bytes(text)).ok());
        return file;
    }
    Tree now(Cut cut, std::uint64_t seed = 0) { return after(os_, os_.position(), cut, seed); }

    ScratchDir dir_;
    RecordingOs os_{dir_.path()};
};

TEST_F(Replay, DataNeedsItsSyncAndTheNameItsDirectorys) {
    auto file = create("f", "abc");
    EXPECT_EQ(now(Cut::kAll), (Tree{{"f", "abc"}}));
    EXPECT_EQ(now(Cut::kKill), (Tree{{"f", "abc"}}));
    EXPECT_EQ(now(Cut::kSynced), (Tree{}));
    EXPECT_EQ(now(Cut::kNames), (Tree{{"f", ""}}));
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", ""}}));
    ASSERT_TRUE(file->sync_data().ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", "abc"}}));
    ASSERT_TRUE(file->write_at(1, as_bytes("XY")).ok());
    ASSERT_TRUE(file->truncate(2).ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", "abc"}}));
    EXPECT_EQ(now(Cut::kAll), (Tree{{"f", "aX"}}));
    EXPECT_EQ(after(os_, 2, Cut::kAll), (Tree{{"f", "abc"}})) << "the past can be asked for";
    EXPECT_EQ(after(os_, 0, Cut::kAll), (Tree{}));
}

TEST_F(Replay, AnOpenFileIsFollowedThroughRenameAndRemove) {
    auto file = create("a", "1");
    ASSERT_TRUE(file->sync_data().ok());
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    create("b", "old b")->sync_data().value();
    ASSERT_TRUE(os_.rename(dir_ / "a", dir_ / "b").ok());
    ASSERT_TRUE(file->write_at(1, as_bytes("2")).ok());
    EXPECT_EQ(now(Cut::kAll), (Tree{{"b", "12"}}));
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"a", "1"}}));
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Tree tree = now(Cut::kRandom, seed);
        EXPECT_EQ(tree.count("a") + (tree.count("b") && tree["b"] != "old b"), 1u) << "a rename never shows half";
    }
    ASSERT_TRUE(os_.remove(dir_ / "b").ok());
    ASSERT_TRUE(file->write_at(2, as_bytes("3")).ok());
    EXPECT_EQ(now(Cut::kAll), (Tree{}));
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{}));
}

TEST_F(Replay, DirectoriesNest) {
    ASSERT_TRUE(os_.make_dir(dir_ / "d", 0700).ok());
    create("d/f", "x")->sync_data().value();
    ASSERT_TRUE(os_.sync_dir(dir_ / "d").ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{})) << "the directory's own name is not synced";
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"d/", ""}, {"d/f", "x"}}));
    ASSERT_TRUE(os_.remove(dir_ / "d/f").ok());
    ASSERT_TRUE(os_.remove_dir(dir_ / "d").ok());
    EXPECT_EQ(now(Cut::kAll), (Tree{}));
}

TEST_F(Replay, TornAtSectorsOnly) {
    std::string old_text(4096, 'o'), new_text(4096, 'n');
    auto file = create("f", old_text);
    ASSERT_TRUE(file->sync_data().ok());
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    ASSERT_TRUE(file->write_at(0, as_bytes(new_text)).ok());
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        std::string text = now(Cut::kRandom, seed)["f"];
        ASSERT_EQ(text.size(), 4096u);
        for (std::size_t at = 0; at < text.size(); at += 512) {
            EXPECT_EQ(text.substr(at, 512), std::string(512, text[at]));
        }
        EXPECT_EQ(now(Cut::kRandom, seed)["f"], text) << "the seed says all";
        seen.insert(text);
    }
    EXPECT_GT(seen.size(), 5u);
    EXPECT_TRUE(seen.count(old_text) && seen.count(new_text));
}

TEST_F(Replay, AFailedSyncLosesForGood) {
    auto file = create("f", "lost");
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    os_.set_fault(Fault{0});
    EXPECT_EQ(file->sync_data().error().code, Errc::kIo);
    EXPECT_EQ(os_.faults(), 1u);
    ASSERT_TRUE(file->sync_data().ok()) << "the kernel has forgotten the error";
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", ""}})) << "and the bytes";
    ASSERT_TRUE(file->write_at(0, as_bytes("kept")).ok());
    ASSERT_TRUE(file->sync_data().ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", "kept"}}));
}

TEST_F(Replay, FaultsHitWhatTheyShould) {
    auto file = create("f", "");
    os_.set_fault(Fault{1, false, Errc::kNoSpace, true});
    ASSERT_TRUE(file->write_at(0, as_bytes("1234")).ok());
    EXPECT_EQ(file->write_at(4, as_bytes("5678")).error().code, Errc::kNoSpace);
    EXPECT_EQ(now(Cut::kAll), (Tree{{"f", "123456"}})) << "a short write, and recorded as one";
    ASSERT_TRUE(file->write_at(6, as_bytes("78")).ok()) << "once only";
    os_.set_fault(Fault{0, true, Errc::kIo, false});
    EXPECT_FALSE(file->write_at(8, as_bytes("90")).ok());
    EXPECT_FALSE(file->truncate(0).ok());
    EXPECT_FALSE(os_.sync_dir(dir_.path()).ok());
    EXPECT_FALSE(os_.remove(dir_ / "f").ok());
    EXPECT_FALSE(os_.make_dir(dir_ / "d", 0700).ok());
    EXPECT_FALSE(os_.open(dir_ / "g", OpenMode::kCreateNew));
    EXPECT_TRUE(os_.open(dir_ / "f", OpenMode::kRead)) << "reading is no mutation";
    EXPECT_EQ(os_.faults(), 6u);
    os_.set_fault(std::nullopt);
    EXPECT_EQ(now(Cut::kAll), (Tree{{"f", "12345678"}}));
    EXPECT_EQ(*read_file(os_, dir_ / "f"), "12345678");
}

TEST_F(Replay, ALyingDiskLoses) {
    os_.set_lies({true, false, false});
    create("f", "abc")->sync_data().value();
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", ""}}));
    os_.set_lies({false, true, false});
    create("g", "abc")->sync_data().value();
    ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    EXPECT_EQ(now(Cut::kSynced), (Tree{{"f", ""}}));
}

// ---- SQLite on the recorder

constexpr int kRows = 12;

Status insert(Database& db, int value) {
    CORAL_TRY(Transaction tx, Transaction::begin(db));
    for (int column = 0; column < 2; ++column) {
        std::string filler(3000, static_cast<char>('a' + value));
        CORAL_CHECK(db.prepare("INSERT INTO t VALUES(?,?)").bind(value).bind(filler).run());
    }
    return tx.commit();
}

struct Acknowledged {
    std::size_t begun, done;  // positions in the log
};

// Transactions 0.. in order, each whole or not at all; nothing acknowledged is missing. Returns what is wrong.
std::string check_database(const std::string& dir, const std::vector<Acknowledged>& acks, std::size_t position,
                           bool durable) {
    auto db = Database::open(real_os(), dir + "/t.db", {});
    if (!db) return "open: " + db.error().message;
    Statement integrity = (*db)->prepare("PRAGMA integrity_check");
    auto row = integrity.step();
    if (!row || !*row || integrity.text(0) != "ok") return "integrity";
    Statement st = (*db)->prepare("SELECT v, count(*), min(length(filler)) FROM t GROUP BY v ORDER BY v");
    int next = 0;
    while (true) {
        row = st.step();
        if (!row) {
            // The first commit made the table: before it was acknowledged there may be none.
            return position < acks[0].done || !durable ? "" : "read: " + row.error().message;
        }
        if (!*row) break;
        if (st.integer(0) != next || st.integer(1) != 2 || st.integer(2) != 3000) return "a torn transaction";
        ++next;
    }
    int wanted = 0;
    while (durable && wanted < kRows && acks[static_cast<std::size_t>(wanted) + 1].done <= position) ++wanted;
    if (next < wanted) return "lost " + std::to_string(wanted - next);
    if (next > 0 && acks[static_cast<std::size_t>(next)].begun > position) return "a transaction from the future";
    return "";
}

struct SqliteRun {
    MemoryDir dir;
    RecordingOs os{dir.path()};
    std::vector<Acknowledged> acks;  // 0: the schema

    Status run(DatabaseOptions::Sync sync) {
        DatabaseOptions options;
        options.sync = sync;
        std::size_t begun = os.position();
        CORAL_TRY(auto db, Database::open(os, dir / "t.db", options));
        CORAL_CHECK(db->execute("PRAGMA wal_autocheckpoint=8; CREATE TABLE t(v, filler)"));
        // SQLite does not sync the name of a new database file (only those of journals): whoever makes one must.
        CORAL_CHECK(os.sync_dir(dir.path()));
        acks.push_back({begun, os.position()});
        for (int i = 0; i < kRows; ++i) {
            begun = os.position();
            CORAL_CHECK(insert(*db, i));
            acks.push_back({begun, os.position()});
        }
        return {};
    }
    int violations(Cut cut, bool durable) {
        int bad = 0;
        Disk disk(os.log());
        for (std::size_t position = 0; position <= os.log().size(); ++position) {
            disk.advance(position);
            MemoryDir there;
            disk.materialise(there.path(), cut, 7);
            std::string wrong = check_database(there.path(), acks, position, durable);
            if (!wrong.empty() && ++bad <= 3)
                last_ += "\n" + std::string(cut_name(cut)) + " " + std::to_string(position) + ": " + wrong;
        }
        return bad;
    }
    std::string last_;
};

TEST(ReplaySqlite, FullCommitsSurviveEveryCut) {
    SqliteRun run;
    ASSERT_TRUE(run.run(DatabaseOptions::Sync::kFull).ok());
    for (Cut cut : {Cut::kKill, Cut::kAll, Cut::kSynced, Cut::kNames, Cut::kRandom}) {
        EXPECT_EQ(run.violations(cut, true), 0) << run.last_;
    }
    std::printf("%zu cut points in each of 5 modes\n", run.os.log().size() + 1);
}

TEST(ReplaySqlite, NormalCommitsSurviveAKillAndAreWholeAfterAPowerCut) {
    SqliteRun run;
    ASSERT_TRUE(run.run(DatabaseOptions::Sync::kNormal).ok());
    EXPECT_EQ(run.violations(Cut::kKill, true), 0) << run.last_;
    EXPECT_EQ(run.violations(Cut::kSynced, false), 0) << run.last_;
    EXPECT_EQ(run.violations(Cut::kRandom, false), 0) << run.last_;
    EXPECT_GT(run.violations(Cut::kSynced, true), 0) << "NORMAL is not durable: the checker must see it";
}

TEST(ReplaySqlite, ALyingDiskIsNoticed) {
    SqliteRun run;
    run.os.set_lies({false, false, true});
    ASSERT_TRUE(run.run(DatabaseOptions::Sync::kFull).ok());
    EXPECT_EQ(run.violations(Cut::kKill, true), 0) << run.last_;
    EXPECT_GT(run.violations(Cut::kSynced, true), 0);
}

TEST(ReplaySqlite, EveryFailingCallIsToldAndNothingTearsTheDatabase) {
    for (bool for_ever : {false, true}) {
        std::uint64_t n = 0;
        for (; n < 500; ++n) {
            SqliteRun run;
            run.os.set_fault(Fault{n, for_ever, n % 2 ? Errc::kIo : Errc::kNoSpace});
            Status done = run.run(DatabaseOptions::Sync::kFull);
            if (run.os.faults() == 0) break;
            // A checkpoint may fail unheard: its commit is in the WAL already. Nothing else may.
            std::size_t acked = run.acks.size();
            run.os.set_fault(std::nullopt);
            if (acked == 0) continue;
            run.acks.resize(kRows + 1, {0, ~std::size_t{0}});
            EXPECT_EQ(check_database(run.dir.path(), run.acks, run.os.position(), true), "")
                << n << (done ? "" : " told");
        }
        EXPECT_GT(n, 50u);
        EXPECT_LT(n, 500u);
    }
}

}  // namespace
}  // namespace coral::test
