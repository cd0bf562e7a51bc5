// SPDX-License-Identifier: Apache-2.0
#include "codec/symbol_counts.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace coral::codec {
namespace {

constexpr std::size_t kMostClasses = 16;

SymbolCounts sum_of(const SymbolCounts& a, const SymbolCounts& b) {
    SymbolCounts sum;
    for (unsigned s = 0; s < 256; ++s) sum[s] = a[s] + b[s];
    return sum;
}

// Four tables in turn: equal neighbours would wait for each other's sum.
constexpr unsigned kTables = 4;

std::size_t row(unsigned table, unsigned key) {
    return (std::size_t{table} << 16) + (std::size_t{key} << 8);
}

std::uint32_t* tables() {
    thread_local std::vector<std::uint32_t> all(std::size_t{kTables} << 16);
    return all.data();
}

}  // namespace

double entropy_bits(const SymbolCounts& counts) {
    double n = 0, sum = 0;
    for (std::uint32_t c : counts) {
        if (c == 0) continue;
        auto v = static_cast<double>(c);
        n += v;
        sum += v * std::log2(v);
    }
    return n > 0 ? n * std::log2(n) - sum : 0;
}

double class_bits(const SymbolCounts& counts) {
    auto used = std::count_if(counts.begin(), counts.end(), [](std::uint32_t c) { return c > 0; });
    return entropy_bits(counts) + 24 + 5.5 * static_cast<double>(used);
}

std::vector<SymbolClass> merge_classes(std::vector<SymbolClass> classes) {
    std::vector<double> joined;
    for (std::size_t i = 0; i + 1 < classes.size(); ++i) {
        joined.push_back(class_bits(sum_of(classes[i].counts, classes[i + 1].counts)));
    }
    while (classes.size() > 1) {
        std::size_t best = 0;
        double best_loss = 1e300;
        for (std::size_t i = 0; i < joined.size(); ++i) {
            double loss = joined[i] - classes[i].bits - classes[i + 1].bits;
            if (loss < best_loss) best = i, best_loss = loss;
        }
        if (best_loss > 0 && classes.size() <= kMostClasses) break;
        SymbolClass& into = classes[best];
        SymbolClass& from = classes[best + 1];
        into.counts = sum_of(into.counts, from.counts);
        into.bits = joined[best];
        into.keys.insert(into.keys.end(), from.keys.begin(), from.keys.end());
        classes.erase(classes.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        joined.erase(joined.begin() + static_cast<std::ptrdiff_t>(best));
        if (best < joined.size()) joined[best] = class_bits(sum_of(classes[best].counts, classes[best + 1].counts));
        if (best > 0) joined[best - 1] = class_bits(sum_of(classes[best - 1].counts, classes[best].counts));
    }
    return classes;
}

SymbolCounter::SymbolCounter() : counts_(tables()) {}

SymbolCounter::~SymbolCounter() {
    for (unsigned key = 0; key < 256; ++key) {
        if (!seen_[key]) continue;
        for (unsigned t = 0; t < kTables; ++t) std::memset(counts_ + row(t, key), 0, 256 * sizeof(std::uint32_t));
    }
}

void SymbolCounter::add(const std::uint8_t* keys, const std::uint8_t* symbols, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) seen_[keys[i]] = true;
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        ++counts_[row(0, keys[i]) + symbols[i]];
        ++counts_[row(1, keys[i + 1]) + symbols[i + 1]];
        ++counts_[row(2, keys[i + 2]) + symbols[i + 2]];
        ++counts_[row(3, keys[i + 3]) + symbols[i + 3]];
    }
    for (; i < n; ++i) ++counts_[row(0, keys[i]) + symbols[i]];
}

std::vector<SymbolClass> SymbolCounter::classes() const {
    std::vector<SymbolClass> out;
    for (unsigned key = 0; key < 256; ++key) {
        if (!seen_[key]) continue;
        SymbolClass c;
        c.keys.push_back(static_cast<std::uint8_t>(key));
        for (unsigned s = 0; s < 256; ++s) {
            for (unsigned t = 0; t < kTables; ++t) c.counts[s] += counts_[row(t, key) + s];
        }
        c.bits = class_bits(c.counts);
        out.push_back(std::move(c));
    }
    return out;
}

}  // namespace coral::codec
