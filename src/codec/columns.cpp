// SPDX-License-Identifier: Apache-2.0
#include "codec/columns.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "codec/symbol_counts.hpp"

namespace coral::codec {
namespace {

// Bytes of a block in the formats of ggml (github.com/ggml-org/ggml, src/ggml-common.h).
constexpr unsigned kBlocks[] = {17, 18, 20, 22, 24, 34, 36, 50, 54, 56, 66, 74, 82, 84, 98, 110, 136, 144, 176, 210};
constexpr std::size_t kSample = 32u << 10;
constexpr std::size_t kFewestBlocks = 32;
constexpr double kTablePays = 0.002;  // of all bits

const std::uint8_t* data(Bytes bytes) {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

// Bits of the upper halves of a sample's bytes, with a table for each place in the block.
double rough_bits(Bytes sample, unsigned block) {
    std::vector<std::array<std::uint32_t, 16>> counts(block);
    unsigned place = 0;
    for (std::byte b : sample) {
        ++counts[place][static_cast<unsigned>(b) >> 4];
        place = place + 1 == block ? 0 : place + 1;
    }
    double bits = 0;
    for (const auto& row : counts) {
        double n = 0, sum = 0;
        for (std::uint32_t c : row) {
            if (c == 0) continue;
            n += c;
            sum += c * std::log2(c) - 4;  // what the table costs: else the longest block would seem best
        }
        if (n > 0) bits += n * std::log2(n) - sum;
    }
    return bits;
}

unsigned likely_block(Bytes raw) {
    Bytes sample = raw.first(std::min(raw.size(), kSample));
    unsigned best = 0;
    double best_bits = 0.995 * rough_bits(sample, 1);
    for (unsigned block : kBlocks) {
        if (sample.size() < block * kFewestBlocks) break;
        double bits = rough_bits(sample, block);
        if (bits < best_bits) best = block, best_bits = bits;
    }
    return best;
}

// Neighbours that are nearly alike share a table, too: each one more is another pass over a chunk.
std::vector<SymbolClass> fewer(std::vector<SymbolClass> classes) {
    double all = 0;
    for (const SymbolClass& one : classes) all += one.bits;
    while (classes.size() > 1) {
        std::size_t best = 0;
        SymbolClass joined;
        double least = kTablePays * all;
        for (std::size_t i = 0; i + 1 < classes.size(); ++i) {
            SymbolClass both = classes[i];
            for (unsigned s = 0; s < 256; ++s) both.counts[s] += classes[i + 1].counts[s];
            both.bits = class_bits(both.counts);
            const double loss = both.bits - classes[i].bits - classes[i + 1].bits;
            if (loss < least) least = loss, best = i, joined = std::move(both);
        }
        if (joined.keys.empty()) break;
        joined.keys.insert(joined.keys.end(), classes[best + 1].keys.begin(), classes[best + 1].keys.end());
        classes[best] = std::move(joined);
        classes.erase(classes.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    return classes;
}

}  // namespace

Trained<std::optional<Columns>> train_columns(Bytes raw, unsigned chunk_log2,
                                              const std::vector<std::uint32_t>& chunks) {
    Trained<std::optional<Columns>> out;
    out.bits = std::numeric_limits<double>::infinity();
    const unsigned block = likely_block(raw);
    if (block == 0) return out;
    std::vector<std::uint8_t> places(std::min(raw.size(), std::size_t{1} << chunk_log2) + block);
    for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::uint8_t>(i % block);
    std::vector<SymbolClass> classes;
    {
        SymbolCounter counter;
        for (std::uint32_t c : chunks) {
            const std::size_t begin = std::size_t{c} << chunk_log2;
            const std::size_t length = std::min(std::size_t{1} << chunk_log2, raw.size() - begin);
            counter.add(places.data() + begin % block, data(raw) + begin, length);
        }
        classes = fewer(merge_classes(counter.classes()));
    }
    if (classes.size() < 2) return out;
    Columns& columns = out.model.emplace();
    columns.table_of.resize(block);
    out.bits = 8.0 * (2 + block);
    for (const SymbolClass& one : classes) {
        for (std::uint8_t place : one.keys) columns.table_of[place] = static_cast<std::uint8_t>(columns.tables.size());
        Histogram counts;
        std::copy(one.counts.begin(), one.counts.end(), counts.begin());
        columns.tables.emplace_back(code_lengths(counts), &counts);
        double n = 0;
        for (std::uint64_t count : counts) n += static_cast<double>(count);
        out.bits += std::min(columns.tables.back().cost(counts), 8 * n) +
                    8.0 * static_cast<double>(columns.tables.back().written_size());
    }
    return out;
}

}  // namespace coral::codec
