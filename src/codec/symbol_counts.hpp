// SPDX-License-Identifier: Apache-2.0
// How often each symbol comes with each key, and which keys had better share a table.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace coral::codec {

using SymbolCounts = std::array<std::uint32_t, 256>;

double entropy_bits(const SymbolCounts& counts);
// What a class costs: its symbols, and about what its table takes.
double class_bits(const SymbolCounts& counts);

struct SymbolClass {
    std::vector<std::uint8_t> keys;
    SymbolCounts counts{};
    double bits = 0;  // class_bits
};

// Neighbours are merged while that saves more table than it costs code, and until there are no more than 16.
std::vector<SymbolClass> merge_classes(std::vector<SymbolClass> classes);

// Counts in arrays of the calling thread: one Counter at a time.
class SymbolCounter {
  public:
    SymbolCounter();
    ~SymbolCounter();
    SymbolCounter(const SymbolCounter&) = delete;
    SymbolCounter& operator=(const SymbolCounter&) = delete;

    void add(const std::uint8_t* keys, const std::uint8_t* symbols, std::size_t n);
    std::vector<SymbolClass> classes() const;  // one for each key that was seen, ascending

  private:
    std::uint32_t* counts_;
    std::array<bool, 256> seen_{};
};

}  // namespace coral::codec
