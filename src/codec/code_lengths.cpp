// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "codec/pivot_tree.hpp"

namespace coral::codec {

// Package-merge (Larmore and Hirschberg 1990): each of kMaxCodeLength rounds pairs the cheapest of the leaves and of
// the pairs before; a symbol's length is the number of chosen packages it is in.
CodeLengths code_lengths(const Histogram& counts) {
    std::vector<std::pair<std::uint64_t, std::uint8_t>> leaves;
    for (unsigned s = 0; s < 256; ++s) {
        if (counts[s] > 0) leaves.push_back({counts[s], static_cast<std::uint8_t>(s)});
    }
    CodeLengths lengths{};
    if (leaves.size() <= 1) {
        for (auto& leaf : leaves) lengths[leaf.second] = 1;
        return lengths;
    }
    std::sort(leaves.begin(), leaves.end());
    // A package is a leaf (index < 256 into leaves) or a pair of the round before; only counts of leaves are needed:
    // how many of the first 2n - 2 of a round are leaves, and how many pairs, which are the first ones of the round
    // before.
    std::size_t n = leaves.size();
    std::vector<std::vector<std::uint64_t>> rounds;  // weights, sorted
    std::vector<std::vector<bool>> is_leaf;
    std::vector<std::uint64_t> packages;
    for (unsigned round = 0; round < kMaxCodeLength; ++round) {
        std::vector<std::uint64_t> merged;
        std::vector<bool> leaf;
        for (std::size_t l = 0, p = 0; l < n || p < packages.size();) {
            bool take_leaf = l < n && (p == packages.size() || leaves[l].first <= packages[p]);
            merged.push_back(take_leaf ? leaves[l++].first : packages[p++]);
            leaf.push_back(take_leaf);
        }
        packages.clear();
        for (std::size_t i = 0; i + 1 < merged.size(); i += 2) packages.push_back(merged[i] + merged[i + 1]);
        rounds.push_back(std::move(merged));
        is_leaf.push_back(std::move(leaf));
    }
    std::size_t wanted = 2 * n - 2;
    for (unsigned round = kMaxCodeLength; round-- > 0 && wanted > 0;) {
        std::size_t chosen = 0;
        for (std::size_t i = 0; i < wanted; ++i) chosen += is_leaf[round][i] ? 1u : 0u;
        for (std::size_t i = 0; i < chosen; ++i) ++lengths[leaves[i].second];
        wanted = 2 * (wanted - chosen);
    }
    return lengths;
}

}  // namespace coral::codec
