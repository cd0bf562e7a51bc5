// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "coral/repo/ingest.hpp"

namespace coral::repo {
namespace {

BaseMap::Entry entry(std::uint8_t mark, std::uint64_t length = 1000) {
    BaseMap::Entry out;
    out.segments.emplace_back();
    out.segments.back().bytes[0] = std::byte{mark};
    out.length = length;
    return out;
}

int mark_of(const std::optional<BaseMap::Entry>& found) {
    return found ? static_cast<int>(found->segments.at(0).bytes[0]) : -1;
}

TEST(BaseMap, TheNewestUnderTheName) {
    BaseMap map;
    map.put("layer.weight", 12, entry(1));
    map.put("layer.weight", 12, entry(2, 2000));
    EXPECT_EQ(mark_of(map.find("layer.weight", 12, 1000)), 2) << "grown tensors share a name, not a length";
    EXPECT_EQ(mark_of(map.find("layer.weight", 11, 1000)), -1);
    EXPECT_EQ(mark_of(map.find("layer.bias", 12, 1000)), -1);
}

TEST(BaseMap, UnderTheNamesThatWrappersGive) {
    BaseMap map;
    map.put("encoder.0.weight", 12, entry(1));
    for (const char* name : {"module.encoder.0.weight", "module._orig_mod.encoder.0.weight", "model.encoder.0.weight",
                             "bert.encoder.0.weight", "state_dict.model.encoder.0.weight"}) {
        EXPECT_EQ(mark_of(map.find(name, 12, 1000)), 1) << name;
        EXPECT_EQ(mark_of(map.find(name, 12, 999)), -1) << name;
    }
    BaseMap wrapped;
    wrapped.put("_orig_mod.encoder.0.weight", 12, entry(3));
    wrapped.put("bert.pooler.0.weight", 12, entry(4));
    EXPECT_EQ(mark_of(wrapped.find("encoder.0.weight", 12, 1000)), 3);
    EXPECT_EQ(mark_of(wrapped.find("module.encoder.0.weight", 12, 1000)), 3);
    EXPECT_EQ(mark_of(wrapped.find("pooler.0.weight", 12, 1000)), 4);
    EXPECT_EQ(mark_of(wrapped.find("other.weight", 12, 1000)), -1);
}

TEST(BaseMap, TheVeryNameComesFirst) {
    BaseMap map;
    map.put("a.b.weight", 12, entry(1));
    map.put("module.a.b.weight", 12, entry(2));
    EXPECT_EQ(mark_of(map.find("a.b.weight", 12, 1000)), 1);
    EXPECT_EQ(mark_of(map.find("module.a.b.weight", 12, 1000)), 2);
}

}  // namespace
}  // namespace coral::repo
