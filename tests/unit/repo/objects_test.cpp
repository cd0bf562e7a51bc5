// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/objects.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "coral/base/hash.hpp"
#include "coral/store/store.hpp"
#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::test_seed;

TreeEntry file_entry(const std::string& name, const std::string& content) {
    TreeEntry e;
    e.name = name;
    e.size = content.size();
    e.mtime_ns = 1'700'000'000'123'456'789;
    e.content = Sha256::of(as_bytes(content));
    return e;
}

TreeEntry link_entry(const std::string& name, const std::string& target) {
    TreeEntry e;
    e.name = name;
    e.type = EntryType::kSymlink;
    e.mode = 0777;
    e.size = target.size();
    e.content = Sha256::of(as_bytes(target));
    e.link = target;
    return e;
}

Tree golden_tree() {
    Tree t;
    TreeEntry dir;
    dir.name = "epoch-1";
    dir.type = EntryType::kDirectory;
    dir.mode = 0755;
    dir.content = store::object_id(store::Kind::kTree, encode_tree({}));
    t.entries = {dir, link_entry("latest", "epoch-1"), file_entry("model.bin", "weights")};
    t.entries[2].xattrs = SegmentId::from(Sha256::of(encode_xattrs({{"user.note", "x"}})));
    return t;
}

Commit golden_commit() {
    Commit c;
    c.tree = TreeId::from(store::object_id(store::Kind::kTree, encode_tree({})));
    c.parents = {CommitId::from(Sha256::of(as_bytes("p1"))), CommitId::from(Sha256::of(as_bytes("p2")))};
    c.author = {"Zoë Q.", "zoe@example.org", 1'700'000'000'000'000'007, 330};
    c.committer = {"bot", "", -1, -90};
    c.meta = {{"epoch", "7"}, {"loss", "0.25 (best)"}};
    c.message = "epoch 7\n\nbytes: \xff\n";
    return c;
}

// The bytes of format 1. If this fails, the code is wrong, never the test.
TEST(Objects, GoldenTree) {
    Buffer raw = encode_tree(golden_tree());
    std::string hex = to_hex(raw);
    EXPECT_EQ(hex.substr(0, 8), "03000000");
    EXPECT_EQ(hex.substr(8, 2 * (2 + 7 + 1 + 2 + 8 + 8)),
              "0700"
              "65706f63682d31"
              "02"
              "ed01"
              "0000000000000000"
              "0000000000000000");
    EXPECT_EQ(store::object_id(store::Kind::kTree, encode_tree({})).hex(),
              "fe7000636bde00feefa71888df0a0fad5461759a9c8088cd60b07180cda35acb");
    EXPECT_EQ(store::object_id(store::Kind::kTree, raw).hex(),
              "ac6bd7032955418cde1c9c31a79bf4b365cdfe78c85b4f2e940b7cd8dfa97e0e");
}

TEST(Objects, GoldenCommit) {
    Buffer raw = encode_commit(golden_commit());
    EXPECT_EQ(as_text(raw),
              "tree fe7000636bde00feefa71888df0a0fad5461759a9c8088cd60b07180cda35acb\n"
              "parent " +
                  Sha256::of(as_bytes("p1")).hex() +
                  "\n"
                  "parent " +
                  Sha256::of(as_bytes("p2")).hex() +
                  "\n"
                  "author Zoë Q. <zoe@example.org> 1700000000.000000007 +0530\n"
                  "committer bot <> -1.999999999 -0130\n"
                  "meta epoch=7\n"
                  "meta loss=0.25 (best)\n"
                  "\n"
                  "epoch 7\n\nbytes: \xff\n");
    EXPECT_EQ(store::object_id(store::Kind::kCommit, raw).hex(),
              "17f437bae47003fea41c154b973a84f0b50b372440a84c5c6eff400bb5835391");
}

TEST(Objects, GoldenTag) {
    Tag t{CommitId::from(Sha256::of(as_bytes("c"))), "v1.0", {"A", "a@b", 5'000'000'000, 0}, "first\n", ""};
    EXPECT_EQ(as_text(encode_tag(t)), "object " + Sha256::of(as_bytes("c")).hex() +
                                          "\ntype commit\ntag v1.0\ntagger A <a@b> 5.000000000 +0000\n\nfirst\n");
    EXPECT_EQ(store::object_id(store::Kind::kTag, encode_tag(t)).hex(),
              "07d8a8fc237c300a4e3fe0d8351becd5af935f1a803bffe69bdba75a4af0f25a");
    t.signature = "c2ln";
    auto back = decode_tag(encode_tag(t));
    ASSERT_OK(back);
    EXPECT_EQ(*back, t);
    for (auto [from, to] :
         {std::pair{"type commit", "type tree"}, {"object ", "target "}, {"tag v1.0\n", ""}, {"+0000", "-0000"}}) {
        std::string text(as_text(encode_tag(t)));
        text.replace(text.find(from), std::string_view(from).size(), to);
        EXPECT_FALSE(decode_tag(as_bytes(text)).ok()) << to;
    }
    t.name = "a\nb";
    EXPECT_FALSE(check_tag(t).ok());
}

TEST(Objects, GoldenXattrs) {
    EXPECT_EQ(to_hex(encode_xattrs({{"user.b", "12"}, {"user.a", ""}})),
              "0600"
              "757365722e61"
              "00000000"
              "0600"
              "757365722e62"
              "02000000"
              "3132");
}

TEST(Objects, RoundTrip) {
    auto tree = decode_tree(encode_tree(golden_tree()));
    ASSERT_OK(tree);
    EXPECT_EQ(*tree, golden_tree());
    auto commit = decode_commit(encode_commit(golden_commit()));
    ASSERT_OK(commit);
    EXPECT_EQ(*commit, golden_commit());
}

TEST(Objects, PersonTimesAtTheEdges) {
    for (std::int64_t time : {INT64_MIN, INT64_MIN + 1, std::int64_t{-1'000'000'001}, std::int64_t{-1'000'000'000},
                              std::int64_t{-1}, std::int64_t{0}, std::int64_t{999'999'999}, INT64_MAX}) {
        for (int zone : {-1439, -60, -1, 0, 1, 845, 1439}) {
            Commit c = golden_commit();
            c.author.time_ns = time;
            c.author.zone_minutes = static_cast<std::int16_t>(zone);
            auto back = decode_commit(encode_commit(c));
            ASSERT_OK(back);
            EXPECT_EQ(*back, c) << time << " " << zone;
        }
    }
}

TEST(Objects, NamesThatATreeCanHold) {
    for (std::string good : {std::string("a"), std::string("..."), std::string(255, 'x'), std::string("\xff\n\x01"),
                             std::string(" "), std::string("-rf")}) {
        EXPECT_TRUE(valid_name(good));
    }
    for (std::string bad : {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/"),
                            std::string("a\0b", 3), std::string(256, 'x')}) {
        EXPECT_FALSE(valid_name(bad));
    }
}

template <class Change>
void refuse_tree(Change change) {
    Tree t = golden_tree();
    change(t);
    EXPECT_FALSE(check_tree(t).ok());
    EXPECT_THROW((void)encode_tree(t), std::invalid_argument);
}

TEST(Objects, TreesThatAreRefused) {
    refuse_tree([](Tree& t) { std::swap(t.entries[0], t.entries[1]); });
    refuse_tree([](Tree& t) { t.entries[1].name = t.entries[0].name; });
    refuse_tree([](Tree& t) { t.entries[0].name = "a/b"; });
    refuse_tree([](Tree& t) { t.entries[2].mode = 04644; });
    refuse_tree([](Tree& t) { t.entries[2].content = {}; });
    refuse_tree([](Tree& t) { t.entries[2].size = UINT64_MAX; });
    refuse_tree([](Tree& t) { t.entries[2].link = "x"; });
    refuse_tree([](Tree& t) { t.entries[0].size = 1; });
    refuse_tree([](Tree& t) { t.entries[0].mtime_ns = 1; });
    refuse_tree([](Tree& t) { t.entries[1].mode = 0755; });
    refuse_tree([](Tree& t) { t.entries[1].link = "else"; });
    refuse_tree([](Tree& t) { t.entries[1] = link_entry("latest", ""); });
    refuse_tree([](Tree& t) { t.entries[1] = link_entry("latest", std::string("a\0b", 3)); });
    refuse_tree([](Tree& t) { t.entries[0].type = static_cast<EntryType>(4); });
}

TEST(Objects, SortedAsUnsignedBytes) {
    Tree t{{file_entry("a", "1"), file_entry("\xc3\xa9", "2")}};
    EXPECT_TRUE(check_tree(t).ok());
    EXPECT_NE(t.find("\xc3\xa9"), nullptr);
    EXPECT_EQ(t.find("b"), nullptr);
}

TEST(Objects, HostileTreeBytes) {
    EXPECT_FALSE(decode_tree({}).ok());
    Buffer raw;
    ByteWriter(raw).u32(0xffffffff);
    EXPECT_FALSE(decode_tree(raw).ok());  // and no 4 G entries are reserved
    raw = encode_tree(golden_tree());
    raw.push_back(std::byte{0});
    EXPECT_ERROR(decode_tree(raw), Errc::kCorrupt, "after the last");
    raw = encode_tree(golden_tree());
    for (std::size_t n = 0; n < raw.size(); ++n) EXPECT_FALSE(decode_tree(Bytes(raw).first(n)).ok()) << n;
}

// Whatever decodes encodes to the same bytes: one object, one spelling. Tried on every change of one byte.
TEST(Objects, EveryChangedByteIsRefusedOrCanonical) {
    auto check = [](const Buffer& good, auto decode, auto encode) {
        for (std::size_t i = 0; i < good.size(); ++i) {
            for (unsigned flip : {0x01u, 0x20u, 0x80u, 0xffu, 0x1au}) {
                Buffer raw = good;
                raw[i] ^= static_cast<std::byte>(flip);
                auto value = decode(raw);
                if (value.ok()) {
                    EXPECT_EQ(encode(*value), raw) << i << " " << flip;
                }
            }
        }
    };
    check(
        encode_tree(golden_tree()), [](Bytes b) { return decode_tree(b); },
        [](const Tree& t) { return encode_tree(t); });
    check(
        encode_commit(golden_commit()), [](Bytes b) { return decode_commit(b); },
        [](const Commit& c) { return encode_commit(c); });
    check(
        encode_xattrs({{"user.a", "x"}, {"user.b", ""}}), [](Bytes b) { return decode_xattrs(b); },
        [](const Xattrs& x) { return encode_xattrs(x); });
}

TEST(Objects, CommitsThatAreRefused) {
    auto refuse = [](auto change) {
        Commit c = golden_commit();
        change(c);
        EXPECT_FALSE(check_commit(c).ok());
        EXPECT_THROW((void)encode_commit(c), std::invalid_argument);
    };
    refuse([](Commit& c) { c.author.name = "x\ntree 00"; });
    refuse([](Commit& c) { c.author.name = "x <y>"; });
    refuse([](Commit& c) { c.committer.mail = "a\rb"; });
    refuse([](Commit& c) { c.committer.mail = "a>b"; });
    refuse([](Commit& c) { c.author.name = "\xff"; });
    refuse([](Commit& c) { c.author.name = "\xc0\xaf"; });      // overlong
    refuse([](Commit& c) { c.author.name = "\xed\xa0\x80"; });  // surrogate
    refuse([](Commit& c) { c.author.name = std::string("a\0b", 3); });
    refuse([](Commit& c) { c.author.name = std::string(2000, 'x'); });
    refuse([](Commit& c) { c.author.zone_minutes = 24 * 60; });
    refuse([](Commit& c) { c.meta = {{"b", "1"}, {"a", "2"}}; });
    refuse([](Commit& c) { c.meta = {{"a", "1"}, {"a", "2"}}; });
    refuse([](Commit& c) { c.meta = {{"a=b", "1"}}; });
    refuse([](Commit& c) { c.meta = {{"", "1"}}; });
    refuse([](Commit& c) { c.meta = {{"a", "1\nmeta b=2"}}; });
    refuse([](Commit& c) { c.signature = "a\nb"; });
}

TEST(Objects, OtherSpellingsOfACommitAreRefused) {
    std::string good(as_text(encode_commit(golden_commit())));
    auto refuse = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        ASSERT_NE(text.find(from), std::string::npos) << from;
        text.replace(text.find(from), from.size(), to);
        EXPECT_FALSE(decode_commit(as_bytes(text)).ok()) << to;
    };
    refuse("1700000000.", "+1700000000.");
    refuse("1700000000.", "01700000000.");
    refuse("1700000000.000000007", "1700000000.7");
    refuse("1700000000.000000007", "99999999999.000000000");
    refuse("+0530", "+0490");
    refuse("+0530", "-2500");
    refuse("+0530", " 0530");
    refuse("-1.999999999", "-0.000000001");
    refuse("-0130", "-0000");
    refuse("\nparent ", "\nParent ");
    refuse("meta epoch=7\n", "meta loss=9\n");
    refuse("author ", "author: ");
    refuse("\n\nepoch", "\nextra x\n\nepoch");
    refuse("tree fe700063", "tree FE700063");  // ids are lower case
    refuse("tree ", "parent ");
}

TEST(Objects, PersonTextIsCleaned) {
    EXPECT_EQ(clean_person_text("  Jo <jo@x>\n evil\t"), "Jo jo@x  evil");
    EXPECT_EQ(clean_person_text("\xff"
                                "a\x01"),
              "?a");
    EXPECT_EQ(clean_person_text("Zoë"), "Zoë");
    EXPECT_EQ(clean_person_text("<>\n"), "");
    Commit c = golden_commit();
    c.author.name = clean_person_text(std::string(5000, 'x') + "\xc3\xa9");
    EXPECT_TRUE(check_commit(c).ok());
}

TEST(Objects, XattrsThatAreRefused) {
    EXPECT_FALSE(check_xattrs({{"user.coral.digest", "x"}}).ok());
    EXPECT_FALSE(check_xattrs({{"", "x"}}).ok());
    EXPECT_FALSE(check_xattrs({{std::string(256, 'x'), "x"}}).ok());
    EXPECT_FALSE(check_xattrs({{"user.big", std::string(65537, 'x')}}).ok());
    Buffer raw = encode_xattrs({{"user.a", "1"}}), twice = raw;
    twice.insert(twice.end(), raw.begin(), raw.end());
    EXPECT_FALSE(decode_xattrs(twice).ok());
    raw.pop_back();
    EXPECT_FALSE(decode_xattrs(raw).ok());
    raw = {std::byte{1}};
    EXPECT_FALSE(decode_xattrs(raw).ok());
}

std::string random_name(std::mt19937_64& rng) {
    std::string name(1 + rng() % (rng() % 20 == 0 ? 255 : 12), '\0');
    for (char& c : name) {
        do {
            c = static_cast<char>(rng());
        } while (c == '/' || c == '\0');
    }
    return valid_name(name) ? name : "x";
}

TEST(Objects, RandomTreesRoundTrip) {
    std::uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "CORAL_TEST_SEED=" << seed);
    std::mt19937_64 rng(seed);
    for (int round = 0; round < 300; ++round) {
        std::set<std::string> names;
        for (std::uint64_t i = rng() % 40; i > 0; --i) names.insert(random_name(rng));
        Tree t;
        for (const std::string& name : names) {
            TreeEntry e = rng() % 4 == 0 ? link_entry(name, random_name(rng)) : file_entry(name, random_name(rng));
            if (e.type == EntryType::kFile) {
                e.mode = static_cast<std::uint16_t>(rng() & 0777);
                e.size = rng() >> 1;
                e.mtime_ns = static_cast<std::int64_t>(rng());
                if (rng() % 3 == 0) e.xattrs = SegmentId::from(Sha256::of(as_bytes(name)));
            }
            t.entries.push_back(e);
        }
        Buffer raw = encode_tree(t);
        auto back = decode_tree(raw);
        ASSERT_OK(back);
        ASSERT_EQ(*back, t);
        // Random damage: refused, or the one spelling of something else.
        for (int i = 0; i < 20 && !raw.empty(); ++i) {
            Buffer bad = raw;
            bad[rng() % bad.size()] = static_cast<std::byte>(rng());
            auto value = decode_tree(bad);
            if (value.ok()) {
                ASSERT_EQ(encode_tree(*value), bad);
            }
        }
    }
}

}  // namespace
}  // namespace coral::repo
