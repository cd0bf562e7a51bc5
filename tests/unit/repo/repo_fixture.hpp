// SPDX-License-Identifier: Apache-2.0
// A repository in a directory of its own, and history made by hand.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "coral/base/hash.hpp"
#include "coral/base/sqlite.hpp"
#include "coral/repo/diff.hpp"
#include "coral/repo/repository.hpp"
#include "repo/state.hpp"

// NOLINTBEGIN: test macros
#define ASSERT_OK(expr)                                                                                       \
    do {                                                                                                      \
        auto&& assert_ok_ = (expr);                                                                           \
        ASSERT_TRUE(assert_ok_.ok()) << #expr << ": " << (assert_ok_.ok() ? "" : assert_ok_.error().message); \
    } while (false)
#define EXPECT_OK(expr)                                                                                       \
    do {                                                                                                      \
        auto&& expect_ok_ = (expr);                                                                           \
        EXPECT_TRUE(expect_ok_.ok()) << #expr << ": " << (expect_ok_.ok() ? "" : expect_ok_.error().message); \
    } while (false)
// The call fails with this category and a message that has `part` in it.
#define EXPECT_ERROR(expr, errc, part)                                                                               \
    do {                                                                                                             \
        auto&& expect_error_ = (expr);                                                                               \
        if (expect_error_.ok()) {                                                                                    \
            ADD_FAILURE() << #expr << " did not fail";                                                               \
        } else {                                                                                                     \
            EXPECT_EQ(coral::to_string(expect_error_.error().code), coral::to_string(errc))                          \
                << expect_error_.error().message;                                                                    \
            EXPECT_NE(expect_error_.error().message.find(part), std::string::npos) << expect_error_.error().message; \
        }                                                                                                            \
    } while (false)
// NOLINTEND

namespace coral::repo::testing {

// A fresh directory without symlinks in its path, gone with the object.
class TempDir {
  public:
    TempDir() {
        std::string pattern =
            (std::filesystem::canonical(std::filesystem::temp_directory_path()) / "coral-repo-XXXXXX").string();
        if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp " + pattern);
        path_ = pattern;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

// Says its seed when a test fails; CORAL_TEST_SEED repeats a run.
inline std::uint64_t test_seed() {
    if (const char* text = std::getenv("CORAL_TEST_SEED")) return std::strtoull(text, nullptr, 10);
    return std::random_device{}();
}

inline Person person(std::int64_t seconds) {
    return {"A. Tester", "a@example.org", seconds * 1'000'000'000, 60};
}

class RepositoryTest : public ::testing::Test {
  protected:
    void SetUp() override {
        // Nothing of the machine's user may show.
        ::setenv("XDG_CONFIG_HOME", (temp_ / "config").c_str(), 1);
        ::unsetenv("CORAL_AUTHOR_NAME");
        ::unsetenv("CORAL_AUTHOR_EMAIL");
        auto made = Repository::init(real_os(), dir(), options());
        ASSERT_TRUE(made.ok()) << made.error().message;
        repo_ = std::move(*made);
    }
    std::string dir() const { return temp_ / "repo"; }
    static RepositoryOptions options() {
        RepositoryOptions o;
        o.store.cache_bytes = 16u << 20;
        return o;
    }
    std::unique_ptr<Repository> reopen() {
        auto opened = Repository::open(real_os(), dir(), options());
        EXPECT_TRUE(opened.ok()) << opened.error().message;
        return opened.ok() ? std::move(*opened) : nullptr;
    }

    // A stored file of `content`, as a tree entry.
    TreeEntry file(const std::string& name, const std::string& content, std::uint16_t mode = 0644) {
        TreeEntry e;
        e.name = name;
        e.mode = mode;
        e.size = content.size();
        e.content = Sha256::of(as_bytes(content));
        store::FileRecord record;
        record.id = FileId::from(e.content);
        record.size = content.size();
        if (!content.empty()) {
            auto segment = SegmentId::from(e.content);
            EXPECT_OK(repo_->store().put_segment(segment, as_bytes(content), codec::Hint{}, {}));
            record.segments = {segment};
            record.extents = {{0, 0, content.size()}};
        }
        EXPECT_OK(repo_->store().put_file(record));
        return e;
    }
    // Only its name: nothing is stored.
    static TreeEntry fake_file(const std::string& name, const std::string& content, std::uint16_t mode = 0644) {
        TreeEntry e;
        e.name = name;
        e.mode = mode;
        e.size = content.size();
        e.content = Sha256::of(as_bytes(content));
        return e;
    }
    static TreeEntry link(const std::string& name, const std::string& target) {
        TreeEntry e;
        e.name = name;
        e.type = EntryType::kSymlink;
        e.mode = 0777;
        e.size = target.size();
        e.content = Sha256::of(as_bytes(target));
        e.link = target;
        return e;
    }
    TreeId tree(std::vector<TreeEntry> entries) {
        std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
        auto id = repo_->put_tree(Tree{std::move(entries)});
        EXPECT_TRUE(id.ok()) << id.error().message;
        return id.ok() ? *id : TreeId{};
    }
    TreeEntry folder(const std::string& name, std::vector<TreeEntry> entries, std::uint16_t mode = 0755) {
        TreeEntry e;
        e.name = name;
        e.type = EntryType::kDirectory;
        e.mode = mode;
        e.content = AnyId::from(tree(std::move(entries)));
        return e;
    }
    CommitId commit(std::int64_t seconds, const std::vector<CommitId>& parents, const std::string& message = "m",
                    std::optional<TreeId> of = std::nullopt) {
        Commit c;
        c.tree = of ? *of : tree({});
        c.parents = parents;
        c.author = c.committer = person(seconds);
        c.message = message;
        auto id = repo_->put_commit(c);
        EXPECT_TRUE(id.ok()) << id.error().message;
        return id.ok() ? *id : CommitId{};
    }
    Status move(const std::string& ref, const CommitId& to) {
        return repo_->update_refs({{ref, std::nullopt, AnyId::from(to), false, "test"}});
    }
    // One number from state.db.
    std::int64_t count(const std::string& sql) {
        std::int64_t value = -1;
        EXPECT_OK(repo_->state().read([&](Database& db) -> Status {
            Statement st = db.prepare(sql);
            CORAL_TRY(bool row, st.step());
            if (row) value = st.integer(0);
            return {};
        }));
        return value;
    }

    TempDir temp_;
    std::unique_ptr<Repository> repo_;
};

}  // namespace coral::repo::testing
