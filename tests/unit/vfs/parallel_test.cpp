// SPDX-License-Identifier: Apache-2.0
// Many threads at once; run under TSan (preset tsan).
#include <atomic>
#include <random>
#include <thread>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

class ParallelTest : public VfsTest {};

// The first acceptance test of the read path: no thread waits for another's decode of another part, none reads wrong.
TEST_F(ParallelTest, ThirtyTwoThreadsReadOneColdFile) {
    std::string data = noise(48u << 20, 11);
    ASSERT_OK(c().put("branches/main/big", data));
    std::string path = "commits/" + commit().hex() + "/big";
    remount();  // nothing is cached
    auto opened = c().open(path, O_RDONLY);
    ASSERT_OK(opened);
    std::atomic<int> wrong{0}, failed{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 32; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937_64 random(t);
            std::string out(128u << 10, '\0');
            // Half of them stream through a region of their own, half jump about.
            for (std::uint64_t i = 0; i < 12; ++i) {
                std::uint64_t offset = t % 2 ? random() % data.size() : t * (data.size() / 32) + i * out.size();
                auto got = fs_->read(opened->handle, offset, std::as_writable_bytes(std::span(out)));
                if (!got)
                    ++failed;
                else if (data.compare(offset, out.size(), out.data(), *got) != 0)
                    ++wrong;
            }
        });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(failed, 0);
    EXPECT_EQ(wrong, 0);
    ASSERT_OK(c().close(opened->handle));
}

// Every call from everywhere: nothing to check but that each file is what its own thread made it.
TEST_F(ParallelTest, ThreadsChangeReadListAndCommitTogether) {
    ASSERT_OK(c().put("branches/main/shared", noise(300'000, 1)));
    commit();
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> writers, others;
    for (unsigned t = 0; t < 4; ++t) {
        writers.emplace_back([&, t] {
            std::string dir = "branches/main/d" + std::to_string(t);
            if (!c().make_dir(dir)) ++wrong;
            for (unsigned i = 0; i < 12; ++i) {
                std::string name = dir + "/f" + std::to_string(i % 3), data = noise(1000 + 777 * i, t * 100 + i);
                if (!c().put(dir + "/tmp", data) || !c().rename(dir + "/tmp", name)) ++wrong;
                auto back = c().cat(name);
                if (!back || *back != data) ++wrong;
                if (i % 4 == 3 && !c().unlink(name)) ++wrong;
            }
        });
    }
    others.emplace_back([&] {
        while (!stop) {
            (void)c().list("branches/main", true, 5);
            (void)c().list("branches/main/d1", false, 2);
            (void)c().list("commits");
            (void)c().link("HEAD");
        }
    });
    others.emplace_back([&] {
        while (!stop) {
            auto data = c().cat("branches/main/shared");
            if (!data || *data != noise(300'000, 1)) ++wrong;
        }
    });
    others.emplace_back([&] {
        while (!stop) {
            auto tree = fs_->worktree("main");
            repo::CommitOptions options;
            options.message = "now";
            options.allow_open = true;
            if (tree) (void)(*tree)->commit(options);
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    });
    for (std::thread& t : writers) t.join();
    stop = true;
    for (std::thread& t : others) t.join();
    EXPECT_EQ(wrong, 0);
}

TEST_F(ParallelTest, ThousandOpensAndManyHandles) {
    ASSERT_OK(c().put("branches/main/f", "content"));
    std::string path = "commits/" + commit().hex() + "/f";
    std::vector<vfs::HandleId> handles;
    for (int i = 0; i < 20'000; ++i) {
        auto opened = c().open(i % 2 ? path : "branches/main/f", O_RDONLY);
        ASSERT_OK(opened);
        handles.push_back(opened->handle);
    }
    EXPECT_VALUE(c().read_all(handles.front()), "content");
    EXPECT_VALUE(c().read_all(handles.back()), "content");
    for (vfs::HandleId handle : handles) ASSERT_OK(c().close(handle));
    EXPECT_ERRC(c().read(handles.front(), 0, 1), Errc::kBadHandle);
}

}  // namespace
}  // namespace coral::test
