// SPDX-License-Identifier: Apache-2.0
#include "formats/zip_directory.hpp"

#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

std::optional<ZipDirectory> read(const std::string& file) {
    MemorySource source(as_bytes(file));
    auto directory = ZipDirectory::read(source);
    EXPECT_TRUE(directory.ok());
    if (!directory) return std::nullopt;
    return std::move(directory).value();
}

const std::vector<Member> kMembers{{"a/z", "first"}, {"a/b", ""}, {"a/c", "third"}};

TEST(ZipDirectory, EveryKindOfHeaderGivesTheSameMembers) {
    for (int bits = 0; bits < 16; ++bits) {
        ZipOptions options;
        options.zip64_members = bits & 1;
        options.zip64_end = bits & 2;
        options.descriptors = bits & 4;
        options.align = bits & 8;
        for (const char* comment : {"", "a comment", "PK\5\6 that looks like an end record, but is none"}) {
            options.comment = comment;
            const std::string file = zip(kMembers, options);
            auto directory = read(file);
            ASSERT_TRUE(directory) << bits;
            EXPECT_EQ(directory->first_name(), "a/z");
            ASSERT_EQ(directory->members().size(), 3U);
            for (const Member& member : kMembers) {
                const ZipMember* found = directory->find(member.name);
                ASSERT_TRUE(found) << bits;
                EXPECT_TRUE(found->stored);
                EXPECT_EQ(file.substr(found->offset, found->size), member.data);
                if (options.align) {
                    EXPECT_EQ(found->offset % 64, 0U);
                }
            }
            EXPECT_FALSE(directory->find("a/"));
            EXPECT_EQ(directory->range("a/"), std::make_pair(std::size_t{0}, std::size_t{3}));
            EXPECT_EQ(directory->range("a/c"), std::make_pair(std::size_t{1}, std::size_t{2}));
            EXPECT_EQ(directory->range("b"), std::make_pair(std::size_t{3}, std::size_t{3}));
        }
    }
}

TEST(ZipDirectory, MembersThatAreNotStoredHaveNoContent) {
    auto directory = read(zip({{"deflated", "x", 8},
                               {"encrypted", "x", 0, 1},
                               {"patched", "x", 0, 1 << 5},
                               {"renamed", "x", 0, 0, "another"},
                               {"fine", "x", 0, 1 << 11}}));
    ASSERT_TRUE(directory);
    for (const char* name : {"deflated", "encrypted", "patched", "renamed"}) {
        ASSERT_TRUE(directory->find(name));
        EXPECT_FALSE(directory->find(name)->stored) << name;
    }
    EXPECT_TRUE(directory->find("fine")->stored);
}

TEST(ZipDirectory, NamesAreNoPaths) {
    auto directory =
        read(zip({{"../../etc/passwd", "x"}, {"/root", "y"}, {std::string("nul\0", 4), "z"}, {"\xff", "w"}}));
    ASSERT_TRUE(directory);
    EXPECT_EQ(directory->members().size(), 4U);
}

TEST(ZipDirectory, OverlapsAreRefused) {
    // Both name the first local header: the bomb that makes much of little.
    EXPECT_FALSE(read(zip({{"a", "xx"}, {"a2", "yy", 0, 0, "a", ~0ULL, 0}})));
    EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", 3}, {"b", "y"}})));
    EXPECT_FALSE(read(zip({{"a", "xx", 8, 0, "", 40}, {"b", "y", 8}})));  // compressed ones as well
    EXPECT_TRUE(read(zip({{"a", "xx", 0, 0, "", 1}, {"b", "y"}})));       // a gap is harmless
    EXPECT_FALSE(read(zip({{"a", "x"}, {"a", "y"}})));                    // one name, two contents
}

TEST(ZipDirectory, MembersOutsideAreRefused) {
    for (bool zip64 : {false, true}) {
        ZipOptions options;
        options.zip64_members = zip64;
        EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", 1000}}, options)));
        EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", 0xfffffffe}}, options)));
        EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", ~0ULL, 5}}, options)));
        EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", ~0ULL, 0xfffffffe}}, options)));
    }
    ZipOptions options;
    options.zip64_members = true;
    EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", ~0ULL - 1}}, options)));
    EXPECT_FALSE(read(zip({{"a", "xx", 0, 0, "", ~0ULL, ~0ULL - 1}}, options)));
}

TEST(ZipDirectory, EndRecordsThatLieAreRefused) {
    for (bool zip64 : {false, true}) {
        ZipOptions options;
        options.zip64_end = zip64;
        for (std::uint64_t lie : {0ULL, 1ULL, 2ULL, 4ULL, 0xfffeULL}) {
            options.count_lie = lie;
            EXPECT_FALSE(read(zip(kMembers, options))) << lie;
        }
        options.count_lie = ~0ULL;
        for (std::uint64_t lie : {0ULL, 1ULL, 1000ULL, 0xfffffffeULL}) {
            options.size_lie = lie;
            EXPECT_FALSE(read(zip(kMembers, options))) << lie;
            options.size_lie = ~0ULL;
            options.offset_lie = lie;
            EXPECT_FALSE(read(zip(kMembers, options))) << lie;
            options.offset_lie = ~0ULL;
        }
    }
    ZipOptions options;
    options.zip64_end = true;
    for (std::uint64_t lie : {1ULL << 32, 1ULL << 62, ~0ULL - 1}) {
        options.count_lie = lie;
        EXPECT_FALSE(read(zip(kMembers, options)));
        options.count_lie = ~0ULL;
        options.size_lie = lie;
        EXPECT_FALSE(read(zip(kMembers, options)));
        options.size_lie = ~0ULL;
        options.offset_lie = lie;
        EXPECT_FALSE(read(zip(kMembers, options)));
        options.offset_lie = ~0ULL;
    }
}

TEST(ZipDirectory, OtherFilesAreNone) {
    EXPECT_FALSE(read(""));
    EXPECT_FALSE(read("PK\3\4"));
    EXPECT_FALSE(read(zip({})));
    EXPECT_FALSE(read("#!/bin/sh\n" + zip(kMembers)));  // self-extracting: torch does not load it either
    EXPECT_FALSE(read(zip(kMembers) + "x"));
    EXPECT_TRUE(read(zip(kMembers)));
}

}  // namespace
}  // namespace coral::formats::test
