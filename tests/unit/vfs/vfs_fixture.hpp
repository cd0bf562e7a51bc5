// SPDX-License-Identifier: Apache-2.0
// A repository in a directory of its own, mounted without a kernel.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "coral/repo/repository.hpp"
#include "support/fs_client.hpp"
#include "support/scratch_dir.hpp"

// NOLINTBEGIN: test macros; what they show can be added to with <<
#define ASSERT_OK(expr) ASSERT_TRUE(::coral::test::succeeded(expr)) << #expr << " "
#define EXPECT_OK(expr) EXPECT_TRUE(::coral::test::succeeded(expr)) << #expr << " "
#define EXPECT_ERRC(expr, errc) EXPECT_TRUE(::coral::test::fails_with(expr, errc)) << #expr << " "
#define EXPECT_VALUE(expr, value) EXPECT_TRUE(::coral::test::gives(expr, value)) << #expr << " "
// NOLINTEND

namespace coral::test {

template <class T>
::testing::AssertionResult succeeded(const Result<T>& result) {
    if (result) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << to_string(result.error().code) << ": " << result.error().message << "\n";
}
template <class T>
::testing::AssertionResult fails_with(const Result<T>& result, Errc code) {
    if (result) return ::testing::AssertionFailure() << "did not fail with: " << to_string(code) << "\n";
    if (result.error().code == code) return ::testing::AssertionSuccess();
    return succeeded(result) << "instead of: " << to_string(code) << "\n";
}
template <class T, class U>
::testing::AssertionResult gives(const Result<T>& result, const U& value) {
    if (!result) return succeeded(result);
    if (*result == value) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << ::testing::PrintToString(*result) << ", not "
                                         << ::testing::PrintToString(value) << "\n";
}

class VfsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        // Nothing of the machine's user may show.
        ::setenv("XDG_CONFIG_HOME", (temp_ / "config").c_str(), 1);
        auto made = repo::Repository::init(os(), dir(), repo_options());
        ASSERT_TRUE(made.ok()) << made.error().message;
        repo_ = std::move(*made);
        mount();
    }
    void TearDown() override { unmount(); }

    virtual Os& os() { return real_os(); }
    std::string dir() const { return temp_ / "repo"; }
    static repo::RepositoryOptions repo_options() {
        repo::RepositoryOptions o;
        o.store.cache_bytes = 32u << 20;
        return o;
    }
    void mount(vfs::Options options = {}) {
        options.threads = options.threads ? options.threads : 2;
        auto opened = vfs::Filesystem::open(*repo_, options);
        ASSERT_TRUE(opened.ok()) << opened.error().message;
        fs_ = std::move(*opened);
        client_ = std::make_unique<FsClient>(*fs_);
    }
    void unmount() {
        if (!fs_) return;
        EXPECT_OK(fs_->shut_down());
        client_.reset();
        fs_.reset();
    }
    // As if the daemon had ended and another had begun.
    void remount(const vfs::Options& options = {}) {
        unmount();
        repo_.reset();
        auto opened = repo::Repository::open(os(), dir(), repo_options());
        ASSERT_TRUE(opened.ok()) << opened.error().message;
        repo_ = std::move(*opened);
        mount(options);
    }
    FsClient& c() { return *client_; }

    CommitId commit(const std::string& message = "m", const std::string& branch = "main") {
        auto tree = fs_->worktree(branch);
        EXPECT_OK(tree);
        if (!tree) return {};
        repo::CommitOptions options;
        options.message = message;
        auto done = (*tree)->commit(options);
        EXPECT_OK(done);
        return done ? done->id : CommitId{};
    }
    Status tag(const std::string& name, const CommitId& commit) {
        return repo_->update_refs({{"tags/" + name, AnyId{}, AnyId::from(commit), false, "test"}});
    }
    void settle(const std::string& branch = "main") {
        auto tree = fs_->worktree(branch);
        ASSERT_OK(tree);
        ASSERT_OK((*tree)->wait_ingested());
    }

    MemoryDir temp_;
    std::unique_ptr<repo::Repository> repo_;
    std::unique_ptr<vfs::Filesystem> fs_;
    std::unique_ptr<FsClient> client_;
};

// Bytes that do not repeat and depend on the seed.
inline std::string noise(std::size_t size, std::uint64_t seed) {
    std::string out(size, '\0');
    std::uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (char& c : out) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        c = static_cast<char>(x);
    }
    return out;
}

}  // namespace coral::test
