// SPDX-License-Identifier: Apache-2.0
// state.db alone: a FULL commit carries every earlier one, also after a sync that failed (the kernel then forgets the
// bytes, and a later sync of the same file succeeds without them).
#include <gtest/gtest.h>

#include "repo/state.hpp"
#include "support/power_cut.hpp"
#include "support/recording_os.hpp"
#include "support/scratch_dir.hpp"

namespace coral::test {
namespace {

Status put(Database& db, const char* key) {
    return db.prepare("INSERT INTO meta(key, value) VALUES(?, 1)").bind(key).run();
}

// Keys that a power cut at the end leaves.
std::string survivors(const RecordingOs& os) {
    MemoryDir there;
    Disk disk(os.log());
    disk.advance(os.position());
    disk.materialise(there.path(), Cut::kSynced);
    ForwardingOs after("boot-2");
    auto state = repo::State::open(after, there / "state.db", false, false);
    if (!state) return state.error().message;
    std::string keys;
    Status read = (*state)->read([&](Database& db) -> Status {
        Statement st = db.prepare("SELECT key FROM meta WHERE length(key)=1 ORDER BY key");
        while (true) {
            CORAL_TRY(bool more, st.step());
            if (!more) return {};
            keys += st.text(0);
        }
    });
    return read ? keys : read.error().message;
}

class StateCrash : public ::testing::Test {
  protected:
    void SetUp() override {
        auto opened = repo::State::open(os_, dir_ / "state.db", false, true);
        ASSERT_TRUE(opened) << opened.error().message;
        state_ = *std::move(opened);
        ASSERT_TRUE(os_.sync_dir(dir_.path()).ok());
    }
    Status normal(const char* key) {
        return state_->write([&](Database& db) { return put(db, key); });
    }
    Status full(const char* key) {
        return state_->write_durably([&](Database& db) { return put(db, key); });
    }
    MemoryDir dir_;
    RecordingOs os_{dir_.path()};
    std::unique_ptr<repo::State> state_;
};

TEST_F(StateCrash, FullCarriesTheEarlierOnes) {
    ASSERT_TRUE(full("a"));
    ASSERT_TRUE(normal("b"));
    EXPECT_EQ(survivors(os_), "a");
    ASSERT_TRUE(full("c"));
    ASSERT_TRUE(normal("d"));
    EXPECT_EQ(survivors(os_), "abc");
    ASSERT_TRUE(state_->write_durably([](Database&) { return Status(); })) << "it must change a row by itself";
    EXPECT_EQ(survivors(os_), "abcd");
}

TEST_F(StateCrash, AFailedSyncIsMadeGoodOrToldAgain) {
    ASSERT_TRUE(full("a"));
    int failed = 0;
    for (std::uint64_t n = 0; n < 13; ++n) {  // every mutation of a commit, in turn
        std::string b(1, static_cast<char>('A' + 2 * n)), c(1, static_cast<char>('B' + 2 * n));
        ASSERT_TRUE(normal(b.c_str())) << n;
        os_.set_fault(Fault{n});
        Status first = full(c.c_str());
        bool hit = os_.faults() > 0;
        os_.set_fault(std::nullopt);
        EXPECT_EQ(first.ok(), !hit) << n;
        failed += hit ? 1 : 0;
        ASSERT_TRUE(first.ok() || full(c.c_str()).ok()) << n;
        std::string left = survivors(os_);
        EXPECT_NE(left.find(b), std::string::npos) << n << ": acknowledged and carried by a FULL commit: " << left;
        EXPECT_NE(left.find(c), std::string::npos) << n << ": " << left;
    }
    EXPECT_GT(failed, 2);
}

}  // namespace
}  // namespace coral::test
