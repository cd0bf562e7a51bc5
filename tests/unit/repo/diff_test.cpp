// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/diff.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::RepositoryTest;
using testing::test_seed;

class DiffTest : public RepositoryTest {
  protected:
    std::vector<Change> diff(const TreeId& a, const TreeId& b, const std::string& prefix = {}) {
        std::vector<Change> changes;
        EXPECT_OK(diff_trees(
            *repo_, a, b,
            [&](const Change& c) -> Status {
                changes.push_back(c);
                return {};
            },
            prefix));
        return changes;
    }
    // "A a/b", with '/' behind directories.
    std::vector<std::string> lines(const TreeId& a, const TreeId& b, const std::string& prefix = {}) {
        std::vector<std::string> out;
        for (const Change& c : diff(a, b, prefix)) {
            out.push_back(fmt::format("{} {}{}", change_letter(c.kind), c.path, c.directory ? "/" : ""));
        }
        return out;
    }
    using Lines = std::vector<std::string>;
};

TEST_F(DiffTest, EachKindOfChange) {
    TreeId a = tree({fake_file("gone", "1"), fake_file("mod", "1"), fake_file("mode", "1"), fake_file("same", "1"),
                     fake_file("type", "x"), folder("sub", {fake_file("x", "1"), fake_file("y", "1")})});
    TreeId b =
        tree({fake_file("mod", "22"), fake_file("mode", "1", 0755), fake_file("new", "1"), fake_file("same", "1"),
              link("type", "x"), folder("sub", {fake_file("x", "2"), fake_file("y", "1")})});
    EXPECT_EQ(lines(a, b), (Lines{"D gone", "M mod", "m mode", "A new", "M sub/x", "T type"}));
    EXPECT_EQ(lines(b, a), (Lines{"A gone", "M mod", "m mode", "D new", "M sub/x", "T type"}));
    auto changes = diff(a, b);
    EXPECT_EQ(changes[1].old_size, 1u);
    EXPECT_EQ(changes[1].new_size, 2u);
    EXPECT_EQ(changes[1].new_content, Sha256::of(as_bytes("22")));
    EXPECT_TRUE(changes[0].new_content.is_zero());
    EXPECT_EQ(lines(a, b, "p/q").front(), "D p/q/gone");
    EXPECT_EQ(lines(a, b, "p/").front(), "D p/gone");
}

TEST_F(DiffTest, TimeAloneIsNoChangeAttributesAre) {
    TreeEntry f = fake_file("f", "1"), g = f, h = f;
    g.mtime_ns = 77;
    h.xattrs = SegmentId::from(Sha256::of(as_bytes("x")));
    EXPECT_TRUE(lines(tree({f}), tree({g})).empty());
    EXPECT_EQ(lines(tree({f}), tree({h})), (Lines{"m f"}));
}

TEST_F(DiffTest, FromAndToNothing) {
    TreeId a = tree({fake_file("f", "1"), folder("d", {folder("e", {}), fake_file("g", "2")})});
    EXPECT_EQ(lines({}, a), (Lines{"A d/e/", "A d/g", "A f"}));
    EXPECT_EQ(lines(a, {}), (Lines{"D d/e/", "D d/g", "D f"}));
    EXPECT_TRUE(lines({}, {}).empty());
    EXPECT_TRUE(lines({}, tree({})).empty());
}

TEST_F(DiffTest, FilesThatBecomeDirectories) {
    TreeId a = tree({fake_file("n", "1"), fake_file("n.txt", "1"), link("l", "n")});
    TreeId b = tree({folder("n", {fake_file("a", "1"), folder("b", {fake_file("c", "1")})}), fake_file("n.txt", "1"),
                     folder("l", {})});
    EXPECT_EQ(lines(a, b), (Lines{"D l", "A l/", "D n", "A n/a", "A n/b/c"}));
    EXPECT_EQ(lines(b, a), (Lines{"D l/", "A l", "A n", "D n/a", "D n/b/c"}));
}

TEST_F(DiffTest, EmptyDirectoriesAndModesOfDirectories) {
    TreeId a = tree(
        {folder("e", {}), folder("f", {fake_file("x", "1")}), folder("m", {fake_file("x", "1")}), folder("k", {})});
    TreeId b = tree({folder("e", {fake_file("x", "1")}), folder("f", {}), folder("m", {fake_file("x", "1")}, 0700),
                     folder("k", {}, 0700)});
    EXPECT_EQ(lines(a, b), (Lines{"D e/", "A e/x", "A f/", "D f/x", "m k/", "m m/"}));
}

TEST_F(DiffTest, SortedByPathAlsoWhereNamesBeginNames) {
    TreeId b = tree({folder("a", {fake_file("z", "1")}), folder("a-b", {fake_file("q", "1")}), fake_file("a.txt", "1"),
                     fake_file("a0", "1")});
    EXPECT_EQ(lines({}, b), (Lines{"A a-b/q", "A a.txt", "A a/z", "A a0"}));
}

TEST_F(DiffTest, AnErrorOfTheVisitorEndsIt) {
    int n = 0;
    auto stop = [&](const Change&) -> Status {
        ++n;
        return make_error(Errc::kBusy, "stop");
    };
    EXPECT_ERROR(diff_trees(*repo_, {}, tree({fake_file("a", "1"), fake_file("b", "1")}), stop), Errc::kBusy, "stop");
    EXPECT_EQ(n, 1);
}

TEST_F(DiffTest, EqualSubtreesAreNotRead) {
    TreeEntry broken;
    broken.name = "broken";
    broken.type = EntryType::kDirectory;
    broken.mode = 0755;
    broken.content = Sha256::of(as_bytes("no such tree"));
    TreeId a = tree({broken, fake_file("f", "1")}), b = tree({broken, fake_file("f", "2")});
    EXPECT_EQ(lines(a, b), (Lines{"M f"}));
    EXPECT_ERROR(diff_trees(*repo_, a, tree({}), [](const Change&) { return Status(); }), Errc::kNotFound,
                 broken.content.hex());
}

TEST_F(DiffTest, VeryDeep) {
    TreeEntry leaf = fake_file("f", "1");
    std::vector<TreeEntry> level{leaf};
    for (int i = 0; i < 5000; ++i) level = {folder("d", level)};
    auto changes = diff({}, tree(level));
    ASSERT_EQ(changes.size(), 1u);
    EXPECT_EQ(changes[0].path.size(), 5000u * 2 + 1);
}

// ---- against the plain definition: leaves of both as maps.

class Reference {
  public:
    explicit Reference(Repository& repo) : repo_(repo) {}
    void flatten(const TreeId& id, const std::string& prefix, std::map<std::string, TreeEntry>& leaves,
                 std::map<std::string, TreeEntry>& dirs) {
        if (id.is_zero()) return;
        auto tree = repo_.tree(id).value();
        for (const TreeEntry& e : tree->entries) {
            if (e.type != EntryType::kDirectory) {
                leaves[prefix + e.name] = e;
                continue;
            }
            dirs[prefix + e.name] = e;
            if (repo_.tree(TreeId::from(e.content)).value()->entries.empty())
                leaves[prefix + e.name] = e;
            else
                flatten(TreeId::from(e.content), prefix + e.name + "/", leaves, dirs);
        }
    }
    std::multiset<std::string> diff(const TreeId& a, const TreeId& b) {
        std::map<std::string, TreeEntry> la, lb, da, db;
        flatten(a, "", la, da);
        flatten(b, "", lb, db);
        std::multiset<std::string> out;
        auto say = [&](char kind, const std::string& path, bool dir) {
            out.insert(fmt::format("{} {}{}", kind, path, dir ? "/" : ""));
        };
        auto is_dir = [](const TreeEntry& e) { return e.type == EntryType::kDirectory; };
        for (const auto& [path, e] : la) {
            auto at = lb.find(path);
            if (at == lb.end() || is_dir(at->second) != is_dir(e))
                say('D', path, is_dir(e));
            else if (is_dir(e))
                continue;
            else if (at->second.type != e.type)
                say('T', path, false);
            else if (at->second.content != e.content)
                say('M', path, false);
            else if (at->second.mode != e.mode)
                say('m', path, false);
        }
        for (const auto& [path, e] : lb) {
            auto at = la.find(path);
            if (at == la.end() || is_dir(at->second) != is_dir(e)) say('A', path, is_dir(e));
        }
        for (const auto& [path, e] : da) {
            auto at = db.find(path);
            if (at != db.end() && at->second.mode != e.mode) say('m', path, true);
        }
        return out;
    }

  private:
    Repository& repo_;
};

TEST_F(DiffTest, RandomTreesAgainstTheDefinition) {
    std::uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "CORAL_TEST_SEED=" << seed);
    std::mt19937_64 rng(seed);
    const std::vector<std::string> names{"a", "a-", "a.b", "a0", "b"};
    std::function<std::vector<TreeEntry>(int)> grow = [&](int depth) {
        std::vector<TreeEntry> entries;
        for (std::size_t i = 0; i < names.size(); ++i) {
            switch (rng() % (depth > 0 ? 6 : 4)) {
                case 0:
                    break;
                case 1:
                    entries.push_back(link(names[i], rng() % 2 ? "t" : "u"));
                    break;
                case 2:
                case 3:
                    entries.push_back(fake_file(names[i], rng() % 2 ? "1" : "2", rng() % 4 ? 0644 : 0600));
                    break;
                default:
                    entries.push_back(folder(names[i], grow(depth - 1), rng() % 4 ? 0755 : 0700));
            }
        }
        if (rng() % 5 == 0) entries.clear();
        return entries;
    };
    std::vector<TreeId> trees{TreeId{}};
    for (int i = 0; i < 14; ++i) trees.push_back(tree(grow(3)));
    Reference reference(*repo_);
    for (const TreeId& a : trees) {
        for (const TreeId& b : trees) {
            auto changes = diff(a, b);
            std::multiset<std::string> got;
            for (const Change& c : changes) {
                got.insert(fmt::format("{} {}{}", change_letter(c.kind), c.path, c.directory ? "/" : ""));
            }
            ASSERT_EQ(got, reference.diff(a, b)) << a.hex() << " " << b.hex();
            for (std::size_t i = 1; i < changes.size(); ++i) ASSERT_LE(changes[i - 1].path, changes[i].path);
        }
    }
}

}  // namespace
}  // namespace coral::repo
