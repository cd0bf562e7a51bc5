// SPDX-License-Identifier: Apache-2.0
#include "vfs/node_table.hpp"

#include <gtest/gtest.h>

namespace coral::vfs {
namespace {

NodePtr make(NodeTable& table, const std::string& key) {
    return table.acquire(key, [](NodeId id) { return std::make_shared<Node>(id, NodeKind::kLink); });
}

TEST(NodeTable, OneNodePerKeyCountedUntilForgotten) {
    NodeTable table;
    std::size_t fixed = table.size();
    NodePtr a = make(table, "a");
    EXPECT_EQ(make(table, "a"), a);
    NodePtr b = make(table, "b");
    EXPECT_NE(a->id, b->id);
    EXPECT_GE(a->id, kHashedBase);
    table.forget(a->id, 1);
    EXPECT_EQ(table.find(a->id), a);
    table.forget(a->id, 1);
    EXPECT_EQ(table.find(a->id), nullptr);
    table.forget(b->id, 1);
    EXPECT_EQ(table.size(), fixed);
}

TEST(NodeTable, AnIdIsTheSameAgainAndKnownBefore) {
    NodeTable table;
    NodeId before = table.peek("x");
    NodePtr x = make(table, "x");
    EXPECT_EQ(x->id, before);
    table.forget(x->id, 1);
    EXPECT_EQ(make(table, "x")->id, before);
}

TEST(NodeTable, PinsKeepANodeAndFixedNodesStay) {
    NodeTable table;
    NodePtr a = make(table, "a");
    table.pin(a);
    table.forget(a->id, 1);
    EXPECT_EQ(table.find(a->id), a);
    table.unpin(a);
    EXPECT_EQ(table.find(a->id), nullptr);
    for (NodeId id : {kRoot, kBranchesId, kTagsId, kCommitsId, kAtId}) {
        table.forget(id, 1000);
        EXPECT_NE(table.find(id), nullptr);
    }
    table.forget(12345, 1);  // never seen
}

}  // namespace
}  // namespace coral::vfs
