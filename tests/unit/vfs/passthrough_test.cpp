// SPDX-License-Identifier: Apache-2.0
// Files that the kernel reads and writes itself. The kernel is played by a table of descriptors: what it would write
// goes into the backing file, and nobody tells the filesystem.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <set>
#include <thread>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

constexpr const char* kFile = "branches/main/f";
using vfs::IoMode;

class FakeKernel final : public vfs::BackingFiles {
  public:
    ~FakeKernel() override {
        for (auto [id, fd] : files_) ::close(fd);
    }
    Result<std::uint32_t> open_backing(int descriptor) override {
        std::lock_guard lock(mutex_);
        if (refuse) return make_error(Errc::kUnsupported, "refused for the test");
        files_[++last_] = ::dup(descriptor);
        return last_;
    }
    void close_backing(std::uint32_t id) override {
        std::lock_guard lock(mutex_);
        ASSERT_EQ(files_.count(id), 1u) << "closed twice, or never opened";
        ::close(files_[id]);
        files_.erase(id);
    }
    // Opens the file below as the kernel does: anew, by its path.
    int open(std::uint32_t id, int flags) {
        std::lock_guard lock(mutex_);
        return ::open(("/proc/self/fd/" + std::to_string(files_.at(id))).c_str(), flags | O_CLOEXEC);
    }
    std::size_t registered() {
        std::lock_guard lock(mutex_);
        return files_.size();
    }
    std::atomic<bool> refuse{false};

  private:
    std::mutex mutex_;
    std::map<std::uint32_t, int> files_;
    std::uint32_t last_ = 0;
};

class PassthroughTest : public VfsTest {
  protected:
    void SetUp() override {
        VfsTest::SetUp();
        fs().set_backing_files(&kernel_);
    }
    void again(const vfs::Options& options) {
        remount(options);
        fs().set_backing_files(&kernel_);
    }
    void kernel_writes(std::uint32_t backing, std::string_view data, off_t offset) {
        int fd = kernel_.open(backing, O_WRONLY);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(::pwrite(fd, data.data(), data.size(), offset), static_cast<ssize_t>(data.size()));
        ::close(fd);
    }
    std::string io() { return *c().xattr(kFile, "user.coral.io"); }
    bool incomplete() { return c().xattr(kFile, "user.coral.incomplete").ok(); }
    vfs::Filesystem& fs() { return *fs_; }
    FakeKernel kernel_;
};

TEST_F(PassthroughTest, WhatTheKernelWroteIsTheFile) {
    std::string data = noise(3'000'000, 1);
    auto opened = c().create(kFile, O_WRONLY);
    ASSERT_OK(opened);
    ASSERT_EQ(opened->mode, IoMode::kPassthrough);
    EXPECT_FALSE(opened->keep_cache) << "the kernel refuses both together";
    kernel_writes(opened->backing, data, 0);
    EXPECT_EQ(c().stat(kFile)->size, data.size()) << "asked of the file below";
    EXPECT_EQ(io(), "passthrough");
    ASSERT_OK(fs().flush(opened->handle));
    EXPECT_TRUE(incomplete()) << "a flush is not the end: more may be written through a copy of the descriptor";
    fs().release(opened->handle);
    EXPECT_EQ(kernel_.registered(), 0u);
    settle();
    EXPECT_FALSE(incomplete());
    EXPECT_TRUE(*c().cat(kFile) == data);
    std::string root = "commits/" + commit().hex();
    EXPECT_TRUE(*c().cat(root + "/f") == data);
    remount();
    EXPECT_TRUE(*c().cat(kFile) == data);
}

TEST_F(PassthroughTest, AllOpensOfOneInodeUseOneBackingFile) {
    auto writer = c().create(kFile, O_WRONLY);
    ASSERT_OK(writer);
    auto reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    auto both = c().open(kFile, O_RDWR);
    ASSERT_OK(both);
    EXPECT_EQ(reader->mode, IoMode::kPassthrough) << "small, but somebody writes it: only the file below is right";
    EXPECT_EQ(reader->backing, writer->backing);
    EXPECT_EQ(both->backing, writer->backing);
    EXPECT_EQ(kernel_.registered(), 1u);
    fs().release(writer->handle);
    fs().release(both->handle);
    auto late = c().open(kFile, O_RDONLY);
    EXPECT_EQ(late->backing, reader->backing) << "the mode stays while there is a handle";
    fs().release(late->handle);
    fs().release(reader->handle);
    EXPECT_EQ(kernel_.registered(), 0u);
}

TEST_F(PassthroughTest, ACachedOpenBarsPassthroughUntilItIsClosed) {
    ASSERT_OK(c().put(kFile, noise(2'000'000, 2)));
    settle();
    again({});                    // not hot: the file is in packs now
    auto held = c().walk(kFile);  // the kernel does not forget it meanwhile
    auto cached = c().open(kFile, O_RDONLY);
    ASSERT_OK(cached);
    ASSERT_EQ(cached->mode, IoMode::kCached);
    auto second = c().open(kFile, O_RDWR | O_TRUNC);
    ASSERT_OK(second);
    EXPECT_EQ(second->mode, IoMode::kCached) << "the kernel would answer EIO";
    fs().release(cached->handle);
    fs().release(second->handle);
    auto third = c().open(kFile, O_WRONLY | O_TRUNC);
    ASSERT_OK(third);
    EXPECT_EQ(third->mode, IoMode::kPassthrough);
    fs().release(third->handle);
    kernel_.refuse = true;
    auto fourth = c().open(kFile, O_RDONLY);
    EXPECT_EQ(fourth->mode, IoMode::kCached);
    EXPECT_FALSE(fourth->keep_cache) << "the kernel's pages are from before";
    fs().release(fourth->handle);
}

TEST_F(PassthroughTest, WithoutTheKernelsConsentFilesAreWrittenThroughUs) {
    kernel_.refuse = true;
    std::string data = noise(500'000, 3);
    auto opened = c().create(kFile, O_WRONLY);
    ASSERT_OK(opened);
    ASSERT_EQ(opened->mode, IoMode::kDirect);
    ASSERT_OK(c().write(opened->handle, 0, data));
    ASSERT_OK(c().close(opened->handle));
    settle();
    EXPECT_FALSE(incomplete());
    EXPECT_TRUE(*c().cat(kFile) == data);
}

TEST_F(PassthroughTest, AnOverlayIsNeverLent) {
    std::string data = noise(2'000'000, 4);
    ASSERT_OK(c().put(kFile, data));
    settle();
    again({});
    auto patch = c().open(kFile, O_WRONLY);
    ASSERT_OK(patch);
    EXPECT_EQ(patch->mode, IoMode::kDirect) << "most of its bytes are in packs";
    ASSERT_OK(c().write(patch->handle, 1'000'000, "patched"));
    ASSERT_OK(c().close(patch->handle));
    data.replace(1'000'000, 7, "patched");
    EXPECT_TRUE(*c().cat(kFile) == data);
}

TEST_F(PassthroughTest, TruncateAndTimesWorkWhileTheKernelWrites) {
    auto opened = c().create(kFile, O_WRONLY);
    ASSERT_OK(opened);
    kernel_writes(opened->backing, std::string(100'000, 'x'), 0);
    repo::SetAttributes cut;
    cut.size = 1000;
    ASSERT_OK(c().set(kFile, cut));
    EXPECT_EQ(c().stat(kFile)->size, 1000u);
    kernel_writes(opened->backing, "tail", 1000);
    EXPECT_EQ(c().stat(kFile)->size, 1004u);
    repo::SetAttributes times;  // cp -p: before the close
    times.mtime_ns = 1'000'000'000;
    ASSERT_OK(c().set(kFile, times));
    EXPECT_EQ(c().stat(kFile)->mtime_ns, 1'000'000'000);
    ASSERT_OK(c().close(opened->handle));
    EXPECT_EQ(c().stat(kFile)->mtime_ns, 1'000'000'000) << "set after the last write";
    settle();
    EXPECT_EQ(*c().cat(kFile), std::string(1000, 'x') + "tail");
}

// close(2) ends the handle; a shared mapping of the file below does not, and writes on.
// An unmount right behind a close may drop the writer's RELEASE: then the next mount asks the file below.
TEST_F(PassthroughTest, TimesThatWereSetOutliveAnUnmountThatComesBeforeTheRelease) {
    auto opened = c().create(kFile, O_WRONLY);
    ASSERT_OK(opened);
    ASSERT_EQ(opened->mode, IoMode::kPassthrough);
    kernel_writes(opened->backing, "touched", 0);
    repo::SetAttributes times;
    times.mtime_ns = -315'619'200'000'000'001;  // 1960, nearly
    ASSERT_OK(fs().set_attributes(c().stat(kFile)->node, times, opened->handle));
    EXPECT_EQ(c().stat(kFile)->mtime_ns, *times.mtime_ns);
    client_.reset();
    fs_.reset();
    again({});
    EXPECT_EQ(c().stat(kFile)->mtime_ns, *times.mtime_ns);
    EXPECT_EQ(*c().cat(kFile), "touched");
}

TEST_F(PassthroughTest, AMappingThatOutlivesItsDescriptorIsWaitedFor) {
    auto opened = c().create(kFile, O_RDWR);
    ASSERT_OK(opened);
    int fd = kernel_.open(opened->backing, O_RDWR);
    ASSERT_EQ(::ftruncate(fd, 8192), 0);
    auto* bytes = static_cast<char*>(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ASSERT_NE(bytes, MAP_FAILED);
    ::close(fd);
    ASSERT_OK(c().close(opened->handle));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_TRUE(incomplete());
    repo::CommitOptions options;
    options.message = "too early";
    EXPECT_ERRC((*fs().worktree("main"))->commit(options), Errc::kBusy);
    std::copy_n("late", 4, bytes + 5000);
    ::munmap(bytes, 8192);
    for (int i = 0; i < 100 && incomplete(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(incomplete());
    settle();
    EXPECT_EQ(c().cat(kFile)->substr(5000, 4), "late");
}

TEST_F(PassthroughTest, OpenedForWritingButNotWrittenIsNoChange) {
    vfs::Options options;
    options.hot_size = 64u << 20;
    again(options);
    ASSERT_OK(c().put(kFile, noise(2'000'000, 5)));
    settle();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // before 6.13 times are ticks
    auto content = c().xattr(kFile, "user.coral.sha256");
    ASSERT_OK(content);
    auto mtime = c().stat(kFile)->mtime_ns;
    auto opened = c().open(kFile, O_WRONLY);  // what touch(1) does
    ASSERT_OK(opened);
    ASSERT_EQ(opened->mode, IoMode::kPassthrough);
    ASSERT_OK(c().close(opened->handle));
    EXPECT_VALUE(c().xattr(kFile, "user.coral.sha256"), *content);
    EXPECT_EQ(c().stat(kFile)->mtime_ns, mtime);
}

TEST_F(PassthroughTest, WhatWasJustSavedIsReadFromItsStagingFile) {
    vfs::Options options;
    options.hot_size = 5'000'000;
    again(options);
    std::string old = noise(3'000'000, 6), young = noise(3'000'000, 7);
    ASSERT_OK(c().put("branches/main/old", old));
    ASSERT_OK(c().put("branches/main/young", young));
    settle();
    commit();  // wakes the reaper
    for (int i = 0; i < 100 && fs().usage().hot_bytes != 3'000'000; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(fs().usage().hot_bytes, 3'000'000u) << "both do not fit";
    auto hot = c().open("branches/main/young", O_RDONLY);
    ASSERT_OK(hot);
    EXPECT_EQ(hot->mode, IoMode::kPassthrough);
    auto cold = c().open("branches/main/old", O_RDONLY);
    ASSERT_OK(cold);
    EXPECT_EQ(cold->mode, IoMode::kCached);
    EXPECT_TRUE(*c().cat("branches/main/old") == old);
    EXPECT_TRUE(*c().cat("branches/main/young") == young);
    // Handles keep it, whatever comes.
    ASSERT_OK(c().put("branches/main/third", noise(4'000'000, 8)));
    settle();
    commit();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    auto more = c().open("branches/main/young", O_RDONLY);
    EXPECT_EQ(more->backing, hot->backing);
    for (const auto& one : {hot, cold, more}) fs().release(one->handle);
}

TEST_F(PassthroughTest, WhoeverCopiesWithinTheMountGetsAFileThatCanBecomeACopy) {
    ASSERT_OK(c().put(kFile, noise(6'000'000, 9)));
    settle();
    vfs::Caller cp{0, 0, 77, 022};
    auto file = c().walk(kFile);
    auto folder = c().walk("branches/main");
    auto from = fs().open_file(file->id(), O_RDONLY, cp);
    ASSERT_OK(from);
    auto created = fs().create(folder->id(), "copy", 0644, O_WRONLY | O_EXCL, cp);
    ASSERT_OK(created);
    auto to = created->second;
    EXPECT_EQ(to.mode, IoMode::kDirect);
    EXPECT_VALUE(fs().copy_range(from->handle, 0, to.handle, 0, 6'000'000), std::size_t{6'000'000});
    ASSERT_OK(c().close(to.handle));
    fs().release(from->handle);
    fs().forget(created->first.attr.node, 1);
    EXPECT_TRUE(*c().cat("branches/main/copy") == noise(6'000'000, 9));
}

TEST_F(PassthroughTest, OpensAtTheSameTimeAgreeOnOneMode) {
    for (int round = 0; round < 50; ++round) {
        std::string name = "branches/main/r" + std::to_string(round);
        auto first = c().create(name, O_WRONLY);
        ASSERT_OK(first);
        fs().release(first->handle);
        auto held = c().walk(name);
        auto node = held->id();
        std::vector<Result<vfs::Opened>> opened(8, make_error(Errc::kIo, "not yet"));
        std::vector<std::thread> threads;
        for (int i = 0; i < 8; ++i) {
            threads.emplace_back([&, i] { opened[i] = fs().open_file(node, i % 2 ? O_WRONLY : O_RDWR, {}); });
        }
        for (auto& thread : threads) thread.join();
        std::set<std::uint32_t> backings;
        for (auto& one : opened) {
            ASSERT_OK(one);
            backings.insert(one->mode == IoMode::kPassthrough ? one->backing : 0);
        }
        EXPECT_EQ(backings.size(), 1u);
        for (auto& one : opened) fs().release(one->handle);
        EXPECT_EQ(kernel_.registered(), 0u);
    }
}

// The kernel's writes cannot be slowed down: so while ingest is behind, new files are written through us.
TEST_F(PassthroughTest, WritersAreSlowedDownWhileIngestIsBehind) {
    vfs::Options options;
    options.backlog = 0;
    again(options);
    const std::string data = noise(60u << 20, 8);
    // How long storing takes is the machine's affair: it may be done before the next file is made.
    for (int attempt = 0; attempt < 10; ++attempt) {
        const std::string saved = "branches/main/saved" + std::to_string(attempt);
        const std::string next = "branches/main/next" + std::to_string(attempt);
        ASSERT_OK(c().put(saved, data.substr(static_cast<std::size_t>(attempt))));
        auto opened = c().create(next, O_WRONLY);
        ASSERT_OK(opened);
        if (opened->mode == IoMode::kPassthrough) {
            ASSERT_OK(c().close(opened->handle));
            continue;
        }
        EXPECT_EQ(opened->mode, IoMode::kDirect);
        ASSERT_OK(c().write(opened->handle, 0, "next"));
        const bool waits = fs().turn(opened->handle) > std::chrono::steady_clock::time_point{};
        const bool stored = c().xattr(saved, "user.coral.sha256").ok();
        EXPECT_TRUE(stored || waits) << "the write does not wait for ingest";
        settle();
        ASSERT_OK(c().close(opened->handle));
        settle();
        EXPECT_VALUE(c().cat(next), "next");
        EXPECT_FALSE(fs().behind());
        auto after = c().create("branches/main/after", O_WRONLY);
        ASSERT_OK(after);
        EXPECT_EQ(after->mode, IoMode::kPassthrough);
        ASSERT_OK(c().close(after->handle));
        return;
    }
    FAIL() << "ingest was never behind";
}

}  // namespace
}  // namespace coral::test
