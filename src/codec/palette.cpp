// SPDX-License-Identifier: Apache-2.0
#include "codec/palette.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "codec/byte_stats.hpp"

namespace coral::codec {
namespace {

const std::uint8_t* data(Bytes bytes) {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

template <class T>
bool count_values(const std::uint8_t* elements, std::size_t n, ValueNumbers& numbers, Histogram& counts) {
    for (std::size_t i = 0; i < n; ++i) {
        T v;
        std::memcpy(&v, elements + i * sizeof(T), sizeof(T));
        auto number = numbers.number(v);
        if (!number) return false;
        ++counts[*number];
    }
    return true;
}

template <class T>
void numbers_of(ValueNumbers& numbers, const std::uint8_t* elements, std::size_t n, std::uint8_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        T v;
        std::memcpy(&v, elements + i * sizeof(T), sizeof(T));
        out[i] = static_cast<std::uint8_t>(numbers.number(v).value_or(0));
    }
}

bool count_values(unsigned width, const std::uint8_t* elements, std::size_t n, ValueNumbers& numbers,
                  Histogram& counts) {
    switch (width) {
        case 2:
            return count_values<std::uint16_t>(elements, n, numbers, counts);
        case 4:
            return count_values<std::uint32_t>(elements, n, numbers, counts);
        default:
            return count_values<std::uint64_t>(elements, n, numbers, counts);
    }
}

}  // namespace

Trained<PaletteModel> train_palette(const Hint& hint, Bytes raw, unsigned chunk_log2,
                                    const std::vector<std::uint32_t>& chunks) {
    Trained<PaletteModel> out;
    out.bits = std::numeric_limits<double>::infinity();
    if (hint.width == 1) return out;  // planes of bytes do as well
    ValueNumbers numbers;
    Histogram counts{};
    for (std::uint32_t c : chunks) {
        const std::size_t begin = std::size_t{c} << chunk_log2;
        const std::size_t length = std::min(std::size_t{1} << chunk_log2, raw.size() - begin);
        if (!count_values(hint.width, data(raw) + begin, length / hint.width, numbers, counts)) return out;
    }
    const std::vector<std::uint64_t>& met = numbers.values();
    if (met.size() < 2) return out;
    std::vector<unsigned> order(met.size());
    for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](unsigned a, unsigned b) { return met[a] < met[b]; });
    Histogram sorted{};
    for (std::size_t i = 0; i < order.size(); ++i) {
        out.model.values.push_back(met[order[i]]);
        sorted[i] = counts[order[i]];
    }
    out.model.tree.emplace(code_lengths(sorted), &sorted);
    out.bits = out.model.tree->cost(sorted) + 8.0 * static_cast<double>(out.model.tree->written_size()) +
               8.0 * static_cast<double>(1 + met.size() * hint.width);
    return out;
}

void palette_numbers(const PaletteModel& model, unsigned width, const std::uint8_t* elements, std::size_t n,
                     std::uint8_t* out) {
    ValueNumbers numbers;
    for (std::uint64_t value : model.values) (void)numbers.number(value);
    switch (width) {
        case 2:
            return numbers_of<std::uint16_t>(numbers, elements, n, out);
        case 4:
            return numbers_of<std::uint32_t>(numbers, elements, n, out);
        default:
            return numbers_of<std::uint64_t>(numbers, elements, n, out);
    }
}

}  // namespace coral::codec
