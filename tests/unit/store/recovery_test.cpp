// SPDX-License-Identifier: Apache-2.0
// What is left after cuts, rot, lost and foreign indexes and full disks.
#include <set>

#include "store/pack_format.hpp"
#include "store_fixture.hpp"

namespace coral::store::test {
namespace {

namespace fs = boost::filesystem;

class RecoveryTest : public StoreTest {
  protected:
    // Three large segments, small ones, a file, a tree, a commit, hints.
    void fill(Store& store, std::uint64_t seed) {
        for (std::size_t size : {70'000u, 300'000u, 65'537u}) large_.push_back(noise(size, seed++));
        for (const Buffer& raw : large_) put(store, raw);
        content_ = noise(200'123, seed++);
        put_file(store, content_, 40'000);
        tree_ = noise(777, seed++);
        ASSERT_OK(store.put_object(Kind::kTree, object_id(Kind::kTree, tree_), tree_));
        ASSERT_OK(store.put_ref_hint({7, "main", "me", "test", {}, object_id(Kind::kTree, tree_), 1}));
        WorkHint work;
        work.path = "a/b";
        work.file = FileId::from(Sha256::of(content_));
        ASSERT_OK(store.put_work_hint(work));
    }
    void expect_all(Store& store) {
        for (const Buffer& raw : large_) expect_segment(store, raw);
        expect_file(store, content_);
        auto tree = store.object(Kind::kTree, object_id(Kind::kTree, tree_));
        ASSERT_OK(tree);
        EXPECT_EQ(*tree, tree_);
        EXPECT_TRUE(*store.contains(Kind::kFile, Sha256::of(content_)));
    }
    void expect_clean(Store& store, bool full = true) {
        auto problems = store.verify(full, nullptr);
        ASSERT_OK(problems);
        for (const Problem& p : *problems) ADD_FAILURE() << p.what;
    }
    void drop_index() {
        for (const char* name : {"index.db", "index.db-wal", "index.db-shm"}) fs::remove(dir_.file(name));
    }
    std::vector<std::uint64_t> record_ends(Store& store) {
        std::vector<std::uint64_t> ends{kFileHeaderSize};
        EXPECT_OK(store.scan([&](const Uuid&, const RecordView& r) -> Status {
            ends.push_back(r.offset + r.stored_bytes);
            return {};
        }));
        return ends;
    }

    void flip(const std::string& pack, const std::string& whole, const std::string& index, std::size_t at) {
        SCOPED_TRACE(::testing::Message() << "byte " << at);
        store_.reset();
        drop_index();
        spill(dir_.file("index.db"), index);
        std::string bad = whole;
        bad[at] = static_cast<char>(bad[at] ^ 0x5a);
        spill(pack, bad);
        os_.skip_sync = true;
        reopen(os_);
        ASSERT_TRUE(store_);
        for (const Buffer& raw : large_) {
            auto got = store_->read_segment(segment_id(raw));
            EXPECT_TRUE(!got.ok() || *got == raw);
        }
        auto record = store_->file(FileId::from(Sha256::of(content_)));
        Buffer out(content_.size());
        if (record.ok() && store_->read_file(**record, 0, out).ok()) {
            EXPECT_EQ(out, content_);
        }
        auto problems = store_->verify(true, nullptr);
        ASSERT_OK(problems);
        EXPECT_TRUE(std::any_of(problems->begin(), problems->end(),
                                [](const Problem& p) { return p.severity != Problem::Severity::kWarning; }));
    }

    std::vector<Buffer> large_;
    Buffer content_, tree_;
};

TEST_F(RecoveryTest, TheIndexMayVanishAtAnyMoment) {
    fill(*store_, 1);
    ASSERT_OK(store_->sync());
    drop_index();  // while open
    expect_all(*store_);
    Buffer more = noise(100'000, 50);
    put(more);
    ASSERT_OK(store_->sync());
    expect_segment(*store_, more);
    expect_all(*store_);
    reopen();
    expect_all(*store_);
    expect_segment(*store_, more);
    expect_clean(*store_);
    store_.reset();
    drop_index();
    reopen();
    expect_all(*store_);
    expect_segment(*store_, more);
    EXPECT_EQ(packs().size(), 1u);
}

TEST_F(RecoveryTest, ReadOnlyMediaNeedNoIndexFile) {
    fill(*store_, 1);
    ASSERT_OK(store_->seal());
    put(noise(90'000, 40));
    store_.reset();
    options_.read_only = true;
    options_.index_path = dir_.file("no/such/folder/index.db");
    reopen();
    expect_all(*store_);
    expect_segment(*store_, noise(90'000, 40));
    EXPECT_EQ(store_->find_prefix(Kind::kTree, "", 10)->size(), 1u);
    EXPECT_EQ(store_->stats()->objects.at(Kind::kTree), 1u);
    expect_clean(*store_);
}

TEST_F(RecoveryTest, AStaleIndexCatchesUp) {
    Buffer first = noise(90'000, 1);
    put(first);
    store_.reset();
    std::string stale = slurp(dir_.file("index.db"));
    reopen();
    fill(*store_, 2);
    store_.reset();
    drop_index();
    spill(dir_.file("index.db"), stale);
    reopen();
    expect_segment(*store_, first);
    expect_all(*store_);
    expect_clean(*store_);
}

TEST_F(RecoveryTest, AForeignOrDamagedIndexIsBuiltAgain) {
    fill(*store_, 1);
    store_.reset();
    std::string good = slurp(dir_.file("index.db"));
    // Of another repository.
    coral::test::TempDir other_dir;
    {
        auto other = Store::create(real_os(), other_dir.path(), Uuid::random(), options_);
        ASSERT_OK(other);
        put(**other, noise(100'000, 3));
    }
    drop_index();
    spill(dir_.file("index.db"), slurp(other_dir.file("index.db")));
    reopen();
    expect_all(*store_);
    store_.reset();
    // No database at all, an empty one, a cut one, one with pages overwritten.
    std::string torn_page = good;
    for (std::size_t i = 4096; i < torn_page.size(); ++i) torn_page[i] = static_cast<char>(i * 31);
    for (const std::string& text :
         {std::string("not a database at all, but long enough to be read as a header ......."), std::string(),
          good.substr(0, good.size() / 2), torn_page}) {
        drop_index();
        spill(dir_.file("index.db"), text);
        reopen();
        ASSERT_TRUE(store_);
        expect_all(*store_);
        expect_clean(*store_, false);
        store_.reset();
    }
    // A WAL without its database.
    drop_index();
    spill(dir_.file("index.db-wal"), std::string(5000, 'w'));
    reopen();
    expect_all(*store_);
}

TEST_F(RecoveryTest, TheIndexOfAClonedRepositoryIsNotBelieved) {
    Buffer common = noise(80'000, 1);
    put(common);
    store_.reset();
    coral::test::TempDir clone;
    fs::create_directories(clone.file("packs"));
    fs::copy_file(packs()[0], clone.file("packs/" + fs::path(packs()[0]).filename().string()));
    // Both go on in their copy of the same pack, differently and by equal lengths.
    Buffer here = noise(90'000, 2), there = noise(90'000, 3);
    reopen();
    put(here);
    store_.reset();
    {
        auto other = Store::open(real_os(), clone.path(), repo_, options_);
        ASSERT_OK(other);
        put(**other, there);
    }
    drop_index();
    spill(dir_.file("index.db"), slurp(clone.file("index.db")));
    reopen();
    expect_segment(*store_, here);
    expect_segment(*store_, common);
    EXPECT_FALSE(*store_->contains(Kind::kSegment, Sha256::of(there)));
    expect_clean(*store_);
}

TEST_F(RecoveryTest, ATornTailLosesNothingBeforeIt) {
    for (std::size_t size : {66'000u, 67'000u}) large_.push_back(noise(size, size));
    for (const Buffer& raw : large_) put(raw);
    Buffer tree = noise(200, 5);
    ASSERT_OK(store_->put_object(Kind::kTree, object_id(Kind::kTree, tree), tree));
    ASSERT_OK(store_->sync());
    std::vector<std::uint64_t> ends = record_ends(*store_);
    ASSERT_EQ(ends.size(), 4u);
    store_.reset();
    const std::string pack = packs()[0], whole = slurp(pack);
    ASSERT_EQ(whole.size(), ends.back());
    std::vector<std::uint64_t> cuts;
    for (std::uint64_t cut = ends[2]; cut < ends[3]; ++cut) cuts.push_back(cut);         // every byte of the last
    for (std::uint64_t cut = ends[1]; cut < ends[2]; cut += 1777) cuts.push_back(cut);   // some of the one before
    for (std::uint64_t cut = 0; cut <= kFileHeaderSize; cut += 16) cuts.push_back(cut);  // and of the file header
    os_.skip_sync = true;
    bool stale_index = false;
    for (std::uint64_t cut : cuts) {
        stale_index = !stale_index;
        if (!stale_index) drop_index();
        for (const std::string& p : packs()) fs::remove(p);
        spill(pack, whole.substr(0, cut));
        reopen(os_);
        ASSERT_TRUE(store_) << cut;
        if (cut >= ends[1]) expect_segment(*store_, large_[0]);
        if (cut >= ends[2]) expect_segment(*store_, large_[1]);
        EXPECT_FALSE(*store_->contains(Kind::kTree, object_id(Kind::kTree, tree))) << cut;
        put(*store_, noise(70'000, cut));
        bool clean = std::find(ends.begin(), ends.end(), cut) != ends.end();
        EXPECT_EQ(packs().size(), clean ? 1u : 2u) << cut;
        if (!clean) {
            EXPECT_EQ(slurp(pack), whole.substr(0, cut)) << "a torn file is never touched";
        }
        store_.reset();
        if (HasFailure()) FAIL() << "cut at " << cut;
    }
}

// What verify takes for a torn tail may be a record that another process is just writing; its row comes right after it.
TEST_F(RecoveryTest, ARecordThatComesWhileVerifyLooksIsNoDamage) {
    Buffer first = noise(90'000, 1), second = noise(90'000, 2);
    put(first);
    put(second);
    store_.reset();
    const std::string pack = packs()[0], whole = slurp(pack);
    spill(pack, whole.substr(0, whole.size() - 40'000));
    drop_index();
    reopen();
    std::unique_ptr<Store> writer;
    auto problems = store_->verify(false, [&](std::uint64_t done, std::uint64_t) {
        if (writer || done < whole.size() - 100'000) return;
        spill(pack, whole);
        writer = open_another();
    });
    ASSERT_OK(problems);
    ASSERT_TRUE(writer);
    expect_segment(*writer, second);
    for (const Problem& problem : *problems) EXPECT_EQ(problem.severity, Problem::Severity::kWarning) << problem.what;
}

TEST_F(RecoveryTest, SealedPacksAreReadFromTheirIndex) {
    fill(*store_, 1);
    ASSERT_OK(store_->seal());
    expect_all(*store_);
    EXPECT_EQ(store_->stats()->sealed_packs, 1u);
    EXPECT_EQ(fs::status(packs()[0]).permissions() & fs::perms_mask, fs::owner_read);
    Buffer more = noise(100'000, 9);
    put(more);
    EXPECT_EQ(packs().size(), 2u);
    store_.reset();
    drop_index();
    reopen();
    expect_all(*store_);
    expect_segment(*store_, more);
    expect_clean(*store_);
    ASSERT_OK(store_->reindex(nullptr));
    expect_all(*store_);
    expect_clean(*store_);
}

TEST_F(RecoveryTest, PacksAreSealedBySize) {
    options_.pack_bytes = 300'000;
    reopen();
    std::vector<Buffer> all;
    for (std::uint64_t i = 0; i < 12; ++i) all.push_back(noise(100'000, i));
    for (const Buffer& raw : all) put(raw);
    ASSERT_OK(store_->sync());
    EXPECT_EQ(store_->stats()->packs, 4u);
    EXPECT_GE(store_->stats()->sealed_packs, 3u);
    reopen();
    for (const Buffer& raw : all) expect_segment(*store_, raw);
    expect_clean(*store_);
}

TEST_F(RecoveryTest, AnIndexRecordWithoutFooterClosesThePack) {
    fill(*store_, 1);
    ASSERT_OK(store_->seal());
    store_.reset();
    std::string pack = packs()[0], whole = slurp(pack);
    for (std::size_t cut : {std::size_t{64}, std::size_t{1}, std::size_t{100}}) {
        drop_index();
        for (const std::string& p : packs()) fs::remove(p);
        spill(pack, whole.substr(0, whole.size() - cut));
        reopen();
        expect_all(*store_);
        put(noise(70'000, 99));
        EXPECT_EQ(packs().size(), 2u) << cut;
        expect_all(*store_);
        store_.reset();
    }
}

// Every single flipped byte is found by a full check, and until then a read gives right bytes or an error.
class FlipTest : public RecoveryTest, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(OpenAndSealed, FlipTest, ::testing::Bool());

TEST_P(FlipTest, FlippedBytesNeverPass) {
    fill(*store_, 1);
    put(Buffer(70'000, std::byte{7}));  // a zstd chunk
    if (GetParam()) {
        ASSERT_OK(store_->seal());
    }
    ASSERT_OK(store_->sync());
    store_.reset();
    std::string pack = packs()[0], whole = slurp(pack), index = slurp(dir_.file("index.db"));
    std::size_t step = 1 + whole.size() / 120;
    for (std::size_t at = 0; at < whole.size(); at += step) flip(pack, whole, index, at);
    for (std::size_t at = whole.size() - 64; at < whole.size(); at += 7) flip(pack, whole, index, at);
    for (std::size_t at = 0; at < 200; at += 3) flip(pack, whole, index, at);
}

TEST_F(RecoveryTest, AFullDiskIsAnErrorAndLosesNothing) {
    coral::test::FailingOs& os = os_;
    store_.reset();
    create(os);
    fill(*store_, 1);
    ASSERT_OK(store_->sync());
    for (std::int64_t left : {0, 1, 40, 72, 1000, 50'000}) {
        os.bytes_left = left;
        Buffer raw = noise(90'000, static_cast<std::uint64_t>(left) + 100);
        auto failed = store_->put_segment(segment_id(raw), raw, {}, {});
        ASSERT_FALSE(failed.ok());
        EXPECT_EQ(failed.error().code, Errc::kNoSpace);
        EXPECT_FALSE(*store_->contains(Kind::kSegment, Sha256::of(raw)));
        os.bytes_left = -1;
        ASSERT_OK(store_->put_segment(segment_id(raw), raw, {}, {}));
        expect_segment(*store_, raw);
        expect_all(*store_);
    }
    // Small ones wait in memory; the flush fails, they still can be read, and a later flush stores them.
    Buffer small = noise(5000, 1234);
    put(small);
    Buffer content = noise(5000, 1234);
    put_file(*store_, content);
    os.bytes_left = 0;
    EXPECT_FALSE(store_->sync().ok());
    expect_segment(*store_, small);
    expect_file(*store_, content);
    os.bytes_left = -1;
    ASSERT_OK(store_->sync());
    reopen(os);
    expect_segment(*store_, small);
    expect_file(*store_, content);
    expect_all(*store_);
    auto problems = store_->verify(true, nullptr);
    ASSERT_OK(problems);
    for (const Problem& p : *problems) EXPECT_EQ(p.severity, Problem::Severity::kWarning) << p.what;
}

TEST_F(RecoveryTest, AFailedSyncIsFinal) {
    coral::test::FailingOs& os = os_;
    store_.reset();
    create(os);
    put(noise(90'000, 1));
    os.fail_sync = true;
    EXPECT_FALSE(store_->sync().ok());
    os.fail_sync = false;
    EXPECT_FALSE(store_->sync().ok()) << "a later success proves nothing about the bytes that failed";
    Buffer raw = noise(90'000, 2);
    EXPECT_FALSE(store_->put_segment(segment_id(raw), raw, {}, {}).ok());
    expect_segment(*store_, noise(90'000, 1));
    reopen(os);
    put(raw);
    ASSERT_OK(store_->sync());
}

TEST_F(RecoveryTest, FilesNeverComeBeforeTheirSegments) {
    for (std::uint64_t i = 0; i < 60; ++i) put_file(*store_, noise(1000 + i * 1500, i), 30'000);
    ASSERT_OK(store_->sync());
    std::set<AnyId> seen;
    int files = 0;
    ASSERT_OK(store_->scan([&](const Uuid&, const RecordView& r) -> Status {
        if (r.kind == Kind::kSegment) seen.insert(r.id);
        if (r.kind == Kind::kGroup) {
            std::uint32_t n = load_le<std::uint32_t>(r.specific.data());
            for (std::uint32_t i = 0; i < n; ++i) seen.insert(*AnyId::from_bytes(r.specific.subspan(4 + i * 42, 32)));
        }
        if (r.kind == Kind::kFile) {
            ++files;
            auto record = store_->file(FileId::from(r.id));
            EXPECT_OK(record);
            for (const SegmentId& id : (*record)->segments) EXPECT_TRUE(seen.contains(AnyId::from(id)));
        }
        return {};
    }));
    EXPECT_EQ(files, 60);
}

}  // namespace
}  // namespace coral::store::test
