// SPDX-License-Identifier: Apache-2.0
// Files that are mostly holes, and may be far larger than the disk.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "coral/base/thread_pool.hpp"
#include "repo/base_index.hpp"
#include "repo/probe.hpp"
#include "repo_fixture.hpp"
#include "worktree_fixture.hpp"

namespace coral::repo::testing {
namespace {

constexpr codec::Hint kF32{4, codec::Hint::Class::kFloat, false, 12};

Buffer noise(std::size_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    Buffer out(size);
    for (std::byte& b : out) b = static_cast<std::byte>(random());
    return out;
}

// `data` from `edge` on; what lies before it and behind it is one hole each. Counts what is read.
class SparseSource final : public formats::ByteSource {
  public:
    SparseSource(std::uint64_t size, std::uint64_t edge, Buffer data)
        : size_(size), edge_(edge), data_(std::move(data)) {}
    std::uint64_t size() const override { return size_; }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        ++reads;
        if (on_read) on_read();
        if (reads > most) return make_error(Errc::kIo, "read too often");
        std::fill(out.begin(), out.end(), std::byte{0});
        const std::uint64_t begin = std::max(offset, edge_), end = std::min(offset + out.size(), edge_ + data_.size());
        if (begin < end) std::memcpy(out.data() + (begin - offset), data_.data() + (begin - edge_), end - begin);
        return {};
    }
    std::uint64_t next_data(std::uint64_t offset) const override {
        if (offset >= edge_ + data_.size()) return size_;
        return std::max(offset, edge_);
    }
    mutable int reads = 0;
    int most = 1'000'000;
    std::function<void()> on_read;

  private:
    std::uint64_t size_, edge_;
    Buffer data_;
};

// As what cannot tell its holes.
class DenseSource final : public formats::ByteSource {
  public:
    explicit DenseSource(const SparseSource& source) : source_(source) {}
    std::uint64_t size() const override { return source_.size(); }
    Status read_at(std::uint64_t offset, MutableBytes out) const override { return source_.read_at(offset, out); }

  private:
    const SparseSource& source_;
};

class SparseTest : public RepositoryTest {
  protected:
    SegmentId stored(const Buffer& raw) {
        auto id = SegmentId::from(Sha256::of(raw));
        repo_->base_index().add(id, sketch_of(raw, kF32), anchors_of(raw), 0);
        repo_->base_index().flush();
        repo_->base_index().refresh();
        return id;
    }
    Result<Ingested> ingest(const formats::ByteSource& source) {
        BaseMap bases;
        return Ingestor(repo_->store(), repo_->base_index(), pool_, 2).ingest(source, bases, &progress_);
    }
    ThreadPool pool_{"test", 2};
    IngestProgress progress_;
};

TEST_F(SparseTest, CancelledWhileItIsSearchedForWhatIsStored) {
    stored(noise(200'000, 1));
    SparseSource source(200ull << 30, 0, {});
    source.most = 1000;
    source.on_read = [&] {
        if (source.reads == 500) progress_.cancel = true;
    };
    EXPECT_ERROR(ingest(DenseSource(source)), Errc::kConflict, "written again");
    EXPECT_EQ(source.reads, 500);
}

TEST_F(SparseTest, CancelledWhileItIsStored) {
    SparseSource source(200ull << 30, 0, {});
    source.most = 1000;
    source.on_read = [&] {
        if (source.reads == 50) progress_.cancel = true;
    };
    EXPECT_ERROR(ingest(source), Errc::kConflict, "written again");
    EXPECT_EQ(source.reads, 50);
}

TEST_F(SparseTest, HolesAreNotSearched) {
    // The first bytes of what is stored lie in the hole, as zeros.
    for (std::size_t zeros : {0u, 4u, 12u, 16u}) {
        Buffer raw = noise(200'000, static_cast<unsigned>(zeros));
        std::fill_n(raw.begin(), zeros, std::byte{0});
        SegmentId id = stored(raw);
        for (std::size_t step : {1u, 4u}) {
            const std::uint64_t begin = (std::uint64_t{40} << 30) + 4096 - zeros;
            SparseSource source(std::uint64_t{100} << 30, begin + zeros,
                                Buffer(raw.begin() + static_cast<std::ptrdiff_t>(zeros), raw.end()));
            source.most = 1000;
            auto found = find_stored(source, 0, source.size(), step, repo_->base_index());
            ASSERT_OK(found);
            ASSERT_EQ(found->size(), 1u) << zeros;
            EXPECT_EQ(found->front().id, id);
            EXPECT_EQ(found->front().begin, begin);
            EXPECT_EQ(found->front().offset, 0u);
            EXPECT_EQ(found->front().length, raw.size());
            EXPECT_LE(source.reads, 3);
        }
    }
}

TEST_F(SparseTest, MoreThanTheMostIsRefused) {
    SparseSource source((std::uint64_t{16} << 40) + 1, 0, {});
    source.most = 0;
    EXPECT_ERROR(ingest(source), Errc::kTooLarge, "16 TiB");
    EXPECT_EQ(source.reads, 0);
    SparseSource most(std::uint64_t{16} << 40, 0, {});
    most.on_read = [&] { progress_.cancel = true; };
    EXPECT_ERROR(ingest(most), Errc::kConflict, "");
}

class SparseFileTest : public WorktreeFileTest {
  protected:
    void grow(std::uint64_t size) {
        SetAttributes set;
        set.size = size;
        ASSERT_TRUE(tree_->set_attributes(inode_, set));
    }
    std::uint64_t bytes_on_disk() {
        std::uint64_t blocks = 0;
        std::error_code ignored;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(path() + "/staging", ignored)) {
            if (auto stat = os_.stat(entry.path().string()); stat && entry.is_regular_file()) blocks += stat->blocks;
        }
        return 512 * blocks;
    }
};

TEST_F(SparseFileTest, RemovedOrLeftItHoldsNobodyUp) {
    using Clock = std::chrono::steady_clock;
    // Something that could be found again.
    const Buffer raw = noise(200'000, 1);
    repo_->base_index().add(SegmentId::from(Sha256::of(raw)), sketch_of(raw, kF32), anchors_of(raw), 0);
    repo_->base_index().flush();
    for (bool removed : {true, false}) {
        create("huge");
        grow(200ull << 30);
        tree_->close_file(inode_, true);
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        EXPECT_EQ(tree_->pending(), 1u);
        const auto before = Clock::now();
        if (removed) {
            ASSERT_TRUE(tree_->unlink(*tree_->lookup_path(""), "huge"));
            EXPECT_TRUE(tree_->wait_ingested());
        } else {
            close();
        }
        EXPECT_LT(Clock::now() - before, std::chrono::seconds(10));
    }
}

TEST_F(SparseFileTest, AHoleIsNotFilledWithZeros) {
    constexpr std::uint64_t kSize = 64u << 20, kFar = 50u << 20;
    create("f");
    grow(kSize);
    write(kFar, data_);
    write(kSize - 5, as_bytes("tail!"));
    const std::uint64_t before = bytes_on_disk();
    ASSERT_GE(before, data_.size());
    ASSERT_TRUE(tree_->zero(inode_, 0, kSize - 3));
    EXPECT_LE(bytes_on_disk(), before + (4u << 20));
    EXPECT_EQ(tree_->attributes(inode_).size, kSize);
    Buffer expected(static_cast<std::size_t>(kSize));
    std::memcpy(expected.data() + kSize - 3, "il!", 3);
    EXPECT_TRUE(read_all() == expected);
    // Over a stored file a hole of the staging file is none.
    create_overlaid("g");
    write(0, as_bytes("x"));
    ASSERT_TRUE(tree_->zero(inode_, 0, data_.size()));
    EXPECT_TRUE(read_all() == Buffer(data_.size()));
}

}  // namespace
}  // namespace coral::repo::testing
