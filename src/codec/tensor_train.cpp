// SPDX-License-Identifier: Apache-2.0
#include "codec/tensor_train.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "codec/byte_stats.hpp"

namespace coral::codec {
namespace {

const std::uint8_t* data(Bytes bytes) {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

using Row = std::array<std::uint32_t, 256>;

double entropy_bits(const Row& counts) {
    double n = 0, sum = 0;
    for (std::uint32_t c : counts) {
        if (c == 0) continue;
        auto v = static_cast<double>(c);
        n += v;
        sum += v * std::log2(v);
    }
    return n > 0 ? n * std::log2(n) - sum : 0;
}

// What a class costs: its symbols, and about what its table takes.
double class_bits(const Row& counts) {
    auto used = std::count_if(counts.begin(), counts.end(), [](std::uint32_t c) { return c > 0; });
    return entropy_bits(counts) + 24 + 5.5 * static_cast<double>(used);
}

Row sum_of(const Row& a, const Row& b) {
    Row sum;
    for (unsigned s = 0; s < 256; ++s) sum[s] = a[s] + b[s];
    return sum;
}

Histogram widened(const Row& row) {
    Histogram out;
    std::copy(row.begin(), row.end(), out.begin());
    return out;
}

struct Class {
    std::uint8_t last;
    Row counts;
    double bits;
};

// Neighbours are merged while that saves more table than it costs code.
std::vector<Class> merge_classes(std::vector<Class> classes) {
    constexpr std::size_t kMost = 16;
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
        if (best_loss > 0 && classes.size() <= kMost) break;
        classes[best].counts = sum_of(classes[best].counts, classes[best + 1].counts);
        classes[best].bits = joined[best];
        classes[best].last = classes[best + 1].last;
        classes.erase(classes.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        joined.erase(joined.begin() + static_cast<std::ptrdiff_t>(best));
        if (best < joined.size()) joined[best] = class_bits(sum_of(classes[best].counts, classes[best + 1].counts));
        if (best > 0) joined[best - 1] = class_bits(sum_of(classes[best - 1].counts, classes[best].counts));
    }
    return classes;
}

// Small differences one by one: 10 % off the next save of an FP32 fine-tune. Few elements do not pay for long tables.
Buckets buckets_for(unsigned width, std::size_t elements) {
    switch (width) {
        case 1:
            return {4, 1};
        case 2:
            return {5, 1};
        case 4:
            return elements < 16'384 ? Buckets{4, 1} : Buckets{6, 2};
        default:
            return {3, 1};
    }
}

// Arrays of a chunk's elements, reused by every chunk that a thread measures.
struct Lanes {
    std::array<std::vector<std::uint8_t>, 16> arrays;
    std::uint8_t* get(unsigned number, std::size_t n) {
        if (arrays[number].size() < n + kSlack) arrays[number].resize(n + kSlack);
        return arrays[number].data();
    }
};
Lanes& lanes() {
    thread_local Lanes own;
    return own;
}

// How often each symbol comes with each key. Four tables in turn: equal neighbours would wait for each other's sum.
class Counter {
  public:
    Counter() : counts_(tables().data()) {}
    ~Counter() {
        for (unsigned key = 0; key < 256; ++key) {
            if (!seen_[key]) continue;
            for (unsigned t = 0; t < 4; ++t) std::memset(counts_ + row(t, key), 0, 256 * sizeof(std::uint32_t));
        }
    }
    Counter(const Counter&) = delete;
    Counter& operator=(const Counter&) = delete;

    void add(const std::uint8_t* keys, const std::uint8_t* symbols, std::size_t n) {
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

    std::vector<Class> classes() const {
        std::vector<Class> out;
        for (unsigned key = 0; key < 256; ++key) {
            if (!seen_[key]) continue;
            Class c{static_cast<std::uint8_t>(key), {}, 0};
            for (unsigned s = 0; s < 256; ++s) {
                for (unsigned t = 0; t < 4; ++t) c.counts[s] += counts_[row(t, key) + s];
            }
            c.bits = class_bits(c.counts);
            out.push_back(c);
        }
        return out;
    }

  private:
    static std::vector<std::uint32_t>& tables() {
        thread_local std::vector<std::uint32_t> all(4 * 65536);
        return all;
    }
    static std::size_t row(unsigned table, unsigned key) {
        return (std::size_t{table} << 16) + (std::size_t{key} << 8);
    }
    std::uint32_t* counts_;
    std::array<bool, 256> seen_{};
};

struct Piece {
    const std::uint8_t* raw;
    const std::uint8_t* base;
    std::size_t n;
};

void count_piece(const Kernels& k, const Hint& hint, const DeltaModel& model, Piece piece, Counter& counter) {
    const unsigned log2 = static_cast<unsigned>(std::countr_zero(static_cast<unsigned>(hint.width)));
    const std::size_t n = piece.n, bytes = n * hint.width;
    if (hint.big_endian) {
        std::uint8_t* turned[2] = {lanes().get(12, bytes), lanes().get(13, bytes)};
        const std::uint8_t* both[2] = {piece.raw, piece.base};
        for (unsigned side = 0; side < 2; ++side) {
            for (std::size_t i = 0; i < bytes; i += hint.width) {
                std::reverse_copy(both[side] + i, both[side] + i + hint.width, turned[side] + i);
            }
        }
        piece.raw = turned[0];
        piece.base = turned[1];
    }
    if (model.scale) {
        std::uint8_t* scaled = lanes().get(14, bytes);
        k.scale_f32(piece.base, n, *model.scale, scaled);
        piece.base = scaled;
    }
    DeltaArrays arrays;
    arrays.symbol = lanes().get(0, n);
    std::uint8_t* keys = lanes().get(2, n);
    k.keys[log2](piece.base, n, is_float(hint), keys);
    k.to_delta[log2](piece.raw, piece.base, n, is_float(hint), model.buckets, arrays);
    counter.add(keys, arrays.symbol, n);
}

std::vector<Piece> pieces_of(const Hint& hint, Bytes raw, Bytes base, unsigned chunk_log2,
                             const std::vector<std::uint32_t>& chunks, std::size_t most) {
    std::vector<Piece> out;
    std::size_t step = std::max<std::size_t>(1, chunks.size() / most);
    for (std::size_t i = 0; i < chunks.size() && out.size() < most; i += step) {
        std::size_t begin = std::size_t{chunks[i]} << chunk_log2;
        std::size_t length = std::min(std::size_t{1} << chunk_log2, raw.size() - begin);
        out.push_back({data(raw) + begin, data(base) + begin, length / hint.width});
    }
    return out;
}

double extra_bits(const DeltaModel& model, const Row& counts) {
    double bits = 0;
    for (unsigned s = 0; s < 255; ++s) bits += static_cast<double>(counts[s]) * model.count[s];
    return bits;
}

// The bits of these pieces with an ideal code for every key.
double ideal_bits(const Kernels& k, const Hint& hint, const DeltaModel& model, const std::vector<Piece>& pieces) {
    Counter counter;
    for (const Piece& piece : pieces) count_piece(k, hint, model, piece, counter);
    double bits = 0;
    for (const Class& c : counter.classes()) bits += c.bits + extra_bits(model, c.counts);
    return bits;
}

// Weight decay multiplies what the gradient does not reach by one factor: the median of new / old.
std::optional<float> find_scale(const std::vector<Piece>& pieces) {
    std::vector<float> ratios;
    for (const Piece& piece : pieces) {
        std::size_t step = std::max<std::size_t>(1, piece.n * pieces.size() / 8192);
        for (std::size_t i = 0; i < piece.n; i += step) {
            float a, b;
            std::memcpy(&a, piece.raw + 4 * i, 4);
            std::memcpy(&b, piece.base + 4 * i, 4);
            if (std::isnormal(a) && std::isnormal(b) && std::abs(b) > 1e-20f) ratios.push_back(a / b);
        }
    }
    if (ratios.size() < 64) return std::nullopt;
    auto middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
    std::nth_element(ratios.begin(), middle, ratios.end());
    float scale = *middle;
    if (!std::isnormal(scale) || scale == 1.0f || scale < 0.5f || scale > 2.0f) return std::nullopt;
    return scale;
}

}  // namespace

Trained<DeltaModel> train_delta(const Kernels& k, const Hint& hint, Bytes raw, Bytes base, unsigned chunk_log2,
                                const std::vector<std::uint32_t>& chunks) {
    Trained<DeltaModel> out;
    DeltaModel& model = out.model;
    model.buckets = buckets_for(hint.width, raw.size() / hint.width);
    model.derive(hint.width);
    if (hint.width == 4 && is_float(hint) && !hint.big_endian) {
        std::vector<Piece> few = pieces_of(hint, raw, base, chunk_log2, chunks, 4);
        if (auto scale = find_scale(few)) {
            double plain = ideal_bits(k, hint, model, few);
            model.scale = *scale;
            if (ideal_bits(k, hint, model, few) > 0.995 * plain) model.scale.reset();
        }
    }
    std::vector<Class> classes;
    {
        Counter counter;
        for (const Piece& piece : pieces_of(hint, raw, base, chunk_log2, chunks, chunks.size())) {
            count_piece(k, hint, model, piece, counter);
        }
        classes = merge_classes(counter.classes());
    }
    if (classes.empty()) classes.push_back({255, {}, 0});
    classes.back().last = 255;
    for (const Class& c : classes) {
        Histogram counts = widened(c.counts);
        model.last.push_back(c.last);
        model.classes.emplace_back(code_lengths(counts), &counts);
        out.bits += model.classes.back().cost(counts) + 8.0 * static_cast<double>(model.classes.back().written_size()) +
                    8 + extra_bits(model, c.counts);
    }
    model.derive(hint.width);
    return out;
}

Trained<SoloModel> train_solo(const Kernels& k, const Hint& hint, Bytes raw, unsigned chunk_log2,
                              const std::vector<std::uint32_t>& chunks) {
    Trained<SoloModel> out;
    const unsigned width = hint.width, log2 = static_cast<unsigned>(std::countr_zero(width));
    // Per plane: how often each byte, in a third of the pieces of a long segment. A chunk with a byte that is in none
    // of them makes a table of its own.
    std::array<Row, 8> counts{};
    std::array<double, 8> noise{};  // elements of planes that are noise
    double all = 0, measured = 0;
    std::vector<Piece> pieces = pieces_of(hint, raw, raw, chunk_log2, chunks, chunks.size());
    std::size_t step = pieces.size() > 12 ? 3 : 1;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const Piece& piece = pieces[i];
        all += static_cast<double>(piece.n);
        if (i % step != 0) continue;
        measured += static_cast<double>(piece.n);
        std::uint8_t* planes[8] = {};
        for (unsigned p = 0; p < width; ++p) planes[hint.big_endian ? width - 1 - p : p] = lanes().get(3 + p, piece.n);
        // Only counts are wanted: of the other byte order the planes come in the other order, unrotated.
        k.split[log2](piece.raw, piece.n, is_float(hint) && !hint.big_endian, planes);
        for (unsigned p = 0; p < width; ++p) {
            if (looks_random(planes[p], piece.n)) {
                noise[p] += static_cast<double>(piece.n);
                continue;
            }
            Histogram some = histogram_of(planes[p], piece.n);
            for (unsigned s = 0; s < 256; ++s) counts[p][s] += static_cast<std::uint32_t>(some[s]);
        }
    }
    for (unsigned p = 0; p < width; ++p) {
        double bits = (entropy_bits(counts[p]) + 8 * noise[p]) * (measured > 0 ? all / measured : 1);
        if (bits > 0.99 * 8 * all || all == 0 || hint.big_endian) {
            out.bits += std::min(bits, 8 * all);
            continue;
        }
        Histogram wide = widened(counts[p]);
        out.model.planes[p].emplace(code_lengths(wide), &wide);
        out.bits += (out.model.planes[p]->cost(wide) + 8 * noise[p]) * (measured > 0 ? all / measured : 1) +
                    8.0 * static_cast<double>(out.model.planes[p]->written_size());
    }
    return out;
}

}  // namespace coral::codec
