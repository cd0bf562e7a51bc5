// SPDX-License-Identifier: Apache-2.0
// What one process of a mount leaves to the next: the log and the header, without a kernel.
#include "coral/vfs/handover.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

namespace coral::vfs {
namespace {

std::unique_ptr<Handover> follow(const Handover& before) {
    Handover::Files files;
    auto from = before.descriptors();
    for (std::size_t i = 0; i < files.size(); ++i) files[i] = adopt_file(::dup(from[i]), "handover");
    auto next = Handover::adopt(std::move(files));
    EXPECT_TRUE(next.ok());
    return next ? std::move(*next) : nullptr;
}

SavedNode node(NodeId id, const std::string& key) {
    SavedNode n;
    n.id = id;
    n.kind = 10;
    n.parent = 4;
    n.key = key;
    n.text = "a/b";
    n.time_ns = -5;
    n.entry.name = "b";
    n.entry.size = 77;
    n.entry.mode = 0640;
    return n;
}

TEST(Handover, WhatIsOpenAndKnownIsThereForTheNext) {
    auto first = *Handover::create();
    ASSERT_TRUE(first->load().ok());
    first->node_made(node(1000, "one"));
    first->node_made(node(1001, "two"));
    first->node_gone(1000);
    HandleId a = first->next_handle(), b = first->next_handle();
    first->file_opened({a, 1001, 7, 2, IoMode::kDirect, 0});
    first->file_opened({b, 1001, 8, 0, IoMode::kPassthrough, 33});
    first->file_closed(a);
    HandleId d = first->next_handle();
    first->directory_opened(d, 5, 9);
    first->directory_shown(d, 0, {"x", "y", "z"});
    first->directory_shown(d, 2, {"zz"});

    auto next = follow(*first);
    auto saved = next->load();
    ASSERT_TRUE(saved.ok());
    ASSERT_EQ(saved->nodes.size(), 1u);
    const SavedNode& kept = saved->nodes.at(1001);
    EXPECT_EQ(kept.key, "two");
    EXPECT_EQ(kept.text, "a/b");
    EXPECT_EQ(kept.time_ns, -5);
    EXPECT_EQ(kept.entry, node(1001, "two").entry);
    ASSERT_EQ(saved->files.size(), 1u);
    EXPECT_EQ(saved->files.at(b).backing, 33u);
    EXPECT_EQ(saved->files.at(b).mode, IoMode::kPassthrough);
    EXPECT_EQ(saved->files.at(b).unique, 8u);
    EXPECT_EQ(saved->directories.at(d).shown, (std::vector<std::string>{"x", "y", "zz"}));
    EXPECT_GT(next->next_handle(), d) << "numbers are never used again";
}

TEST(Handover, ARecordThatWasCutOffIsNotThere) {
    auto first = *Handover::create();
    ASSERT_TRUE(first->load().ok());
    first->file_opened({1, 10, 1, 0, IoMode::kCached, 0});
    int log = first->descriptors()[1];
    off_t whole = ::lseek(log, 0, SEEK_END);
    first->file_opened({2, 20, 2, 0, IoMode::kCached, 0});
    off_t end = ::lseek(log, 0, SEEK_END);
    for (off_t cut = whole; cut < end; ++cut) {
        ASSERT_EQ(::ftruncate(log, cut), 0);
        auto next = follow(*first);
        auto saved = next->load();
        ASSERT_TRUE(saved.ok()) << cut;
        EXPECT_EQ(saved->files.size(), 1u) << cut;
        if (cut + 1 < end) continue;
        // The next process writes where the whole records end.
        next->file_opened({3, 30, 3, 0, IoMode::kCached, 0});
        auto third = follow(*first)->load();
        ASSERT_TRUE(third.ok());
        EXPECT_EQ(third->files.size(), 2u);
        EXPECT_EQ(third->files.count(3), 1u);
    }
}

TEST(Handover, TheLogStaysSmallAndLosesNothing) {
    auto first = *Handover::create();
    ASSERT_TRUE(first->load().ok());
    first->node_made(node(1, "for ever"));
    HandleId listing = first->next_handle();
    first->directory_opened(listing, 2, 3);
    first->directory_shown(listing, 0, {"a", "b"});
    for (std::uint64_t i = 10; i < 60'000; ++i) {
        first->node_made(node(i, "for a moment " + std::to_string(i)));
        first->node_gone(i);
    }
    off_t size = 0;
    for (int log : {first->descriptors()[1], first->descriptors()[2]}) size += ::lseek(log, 0, SEEK_END);
    EXPECT_LT(size, 4 << 20) << "60,000 nodes were 10 MB";
    auto saved = follow(*first)->load();
    ASSERT_TRUE(saved.ok());
    EXPECT_EQ(saved->nodes.size(), 1u);
    EXPECT_EQ(saved->nodes.at(1).key, "for ever");
    EXPECT_EQ(saved->directories.at(listing).shown, (std::vector<std::string>{"a", "b"}));
}

TEST(Handover, WhatARequestFoundStaysUntilItIsAnswered) {
    auto first = *Handover::create();
    first->count_worker();
    first->found(100, {5, 6});
    auto next = follow(*first);
    next->count_worker();
    EXPECT_EQ(next->found_before(100), (Handover::State{5, 6}));
    EXPECT_FALSE(next->found_before(102));
    next->answered();  // found_before has made it this thread's
    EXPECT_FALSE(next->found_before(100));
    for (std::uint64_t i = 0; i < 5000; ++i) {
        next->found(1000 + 2 * i, {i, 0});
        next->answered();
    }
    next->found(7, {1, 1});
    EXPECT_TRUE(next->found_before(7)) << "places are used again";
    next->answered();
}

TEST(Handover, AChangeThatWasCutIsToldOnce) {
    auto first = *Handover::create();
    EXPECT_FALSE(first->outside_change_was_cut());
    first->begin_outside_change();
    first->begin_outside_change();
    first->end_outside_change();
    auto next = follow(*first);
    EXPECT_TRUE(next->outside_change_was_cut());
    EXPECT_FALSE(next->outside_change_was_cut());
}

TEST(Handover, AnotherLayoutIsRefused) {
    auto first = *Handover::create();
    ASSERT_EQ(::pwrite(first->descriptors()[0], "X", 1, 0), 1);
    Handover::Files files;
    for (std::size_t i = 0; i < files.size(); ++i) files[i] = adopt_file(::dup(first->descriptors()[i]), "handover");
    auto next = Handover::adopt(std::move(files));
    ASSERT_FALSE(next.ok());
    EXPECT_EQ(next.error().code, Errc::kUnsupported);
}

}  // namespace
}  // namespace coral::vfs
