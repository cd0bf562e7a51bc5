// SPDX-License-Identifier: Apache-2.0
#include "codec/tensor_train.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "codec/adam_fit.hpp"
#include "codec/byte_stats.hpp"
#include "codec/delta_base.hpp"
#include "codec/float_cast.hpp"
#include "codec/symbol_counts.hpp"

namespace coral::codec {
namespace {

const std::uint8_t* data(Bytes bytes) {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

Histogram widened(const SymbolCounts& row) {
    Histogram out;
    std::copy(row.begin(), row.end(), out.begin());
    return out;
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

// Of the samples' bits: what finer classes must leave to be worth their tables and time.
constexpr double kMantissaPays = 0.95;

struct Piece {
    Bytes raw;
    DeltaBase base;
};

// Up to `most` of the chunks, spread over them, each cut to `longest` bytes.
std::vector<Piece> pieces_of(const Hint& hint, Bytes raw, const DeltaSource& source, unsigned chunk_log2,
                             const std::vector<std::uint32_t>& chunks, std::size_t most,
                             std::size_t longest = kMaxSegment) {
    std::vector<Piece> out;
    DeltaModel cast;
    cast.cast = source.cast;
    const std::size_t step = std::max<std::size_t>(1, chunks.size() / most);
    for (std::size_t i = 0; i < chunks.size() && out.size() < most; i += step) {
        std::size_t begin = std::size_t{chunks[i]} << chunk_log2;
        std::size_t length = std::min({std::size_t{1} << chunk_log2, raw.size() - begin, longest});
        Piece piece{raw.subspan(begin, length), {}};
        if (!source.base.empty()) {
            BaseRange range = base_range(cast, hint, 0, begin, length);
            piece.base.base = source.base.subspan(static_cast<std::size_t>(range.begin), range.length);
        }
        if (!source.before.empty()) piece.base.before = source.before.subspan(begin, length);
        if (source.formula != Formula::kNone) {
            piece.base.first = source.first.subspan(begin, length);
            piece.base.second = source.second.subspan(begin, length);
        }
        out.push_back(piece);
    }
    return out;
}

// A look at a segment: 64 Ki elements from four places.
std::vector<Piece> samples_of(const Hint& hint, Bytes raw, const DeltaSource& source, unsigned chunk_log2,
                              const std::vector<std::uint32_t>& chunks) {
    return pieces_of(hint, raw, source, chunk_log2, chunks, 4, std::size_t{hint.width} << 14);
}

void count_piece(const Kernels& k, const Hint& hint, const DeltaModel& model, const Piece& piece,
                 SymbolCounter& counter) {
    const unsigned log2 = static_cast<unsigned>(std::countr_zero(static_cast<unsigned>(hint.width)));
    const std::size_t n = piece.raw.size() / hint.width, bytes = n * hint.width;
    const std::uint8_t* values = data(piece.raw);
    if (hint.big_endian) {
        std::uint8_t* turned = lanes().get(12, bytes);
        for (std::size_t i = 0; i < bytes; i += hint.width) {
            std::reverse_copy(values + i, values + i + hint.width, turned + i);
        }
        values = turned;
    }
    PreparedBase base = prepare_base(k, model, hint, piece.base, n);
    DeltaArrays arrays;
    arrays.symbol = lanes().get(0, n);
    k.to_delta[log2](values, base.values, n, is_float(hint), model.buckets, arrays);
    counter.add(base.keys, arrays.symbol, n);
}

double extra_bits(const DeltaModel& model, const SymbolCounts& counts) {
    double bits = 0;
    for (unsigned s = 0; s < 255; ++s) bits += static_cast<double>(counts[s]) * model.count[s];
    return bits;
}

// The bits of these pieces with an ideal code for every key. `used`: what a symbol costs that comes with a key at all:
// many keys fit a small sample better than they will fit the rest.
double ideal_bits(const Kernels& k, const Hint& hint, const DeltaModel& model, const std::vector<Piece>& pieces,
                  double used = 2) {
    SymbolCounter counter;
    for (const Piece& piece : pieces) count_piece(k, hint, model, piece, counter);
    double bits = 0;
    for (const SymbolClass& c : counter.classes()) {
        auto symbols = std::count_if(c.counts.begin(), c.counts.end(), [](std::uint32_t n) { return n > 0; });
        bits += entropy_bits(c.counts) + extra_bits(model, c.counts) + used * static_cast<double>(symbols);
    }
    return bits;
}

// Weight decay multiplies what the gradient does not reach by one factor: the median of new / old.
std::optional<float> find_scale(const std::vector<Piece>& pieces) {
    std::vector<float> ratios;
    for (const Piece& piece : pieces) {
        const std::size_t n = piece.raw.size() / 4, step = std::max<std::size_t>(1, n * pieces.size() / 8192);
        for (std::size_t i = 0; i < n; i += step) {
            float a, b;
            std::memcpy(&a, data(piece.raw) + 4 * i, 4);
            std::memcpy(&b, data(piece.base.base) + 4 * i, 4);
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

// Takes the optimizer's formula into the model when samples say that it pays: two more bases make reading slower.
bool try_formula(const Kernels& k, const Hint& hint, const std::vector<Piece>& few, Formula formula,
                 DeltaModel& model) {
    std::vector<AdamSample> samples;
    for (const Piece& piece : few) {
        samples.push_back({piece.raw, piece.base.base, piece.base.first, piece.base.second});
    }
    DeltaModel with = model;
    with.adam = fit_adam(formula, samples);
    if (!with.adam || ideal_bits(k, hint, with, few) > 0.96 * ideal_bits(k, hint, model, few)) return false;
    model.adam = with.adam;
    return true;
}

// Bounds between eight groups of about as many elements.
std::array<std::uint8_t, 7> bounds_of(const SymbolCounts& seen) {
    std::size_t all = 0, below = 0;
    for (std::uint32_t n : seen) all += n;
    std::array<std::uint8_t, 7> bounds{};
    unsigned bound = 0;
    for (unsigned key = 0; key < 256; ++key) {
        while (bound < bounds.size() && below * 8 >= all * (bound + 1)) {
            bounds[bound++] = static_cast<std::uint8_t>(key);
        }
        below += seen[key];
    }
    while (bound < bounds.size()) bounds[bound++] = 255;
    return bounds;
}

// Groups of the base's exponents, or of the last step's bit lengths.
LastStep grouped(const Kernels& k, const Hint& hint, const std::vector<Piece>& pieces, LastStep::By by) {
    const unsigned log2 = static_cast<unsigned>(std::countr_zero(static_cast<unsigned>(hint.width)));
    SymbolCounts seen{};
    for (const Piece& piece : pieces) {
        const std::size_t n = piece.raw.size() / hint.width;
        PreparedBase base = prepare_base(k, DeltaModel{}, hint, {piece.base.base, {}}, n);
        const std::uint8_t* keys = base.keys;
        if (by == LastStep::By::kStepsAndMantissa) {
            std::uint8_t* lengths = lanes().get(1, n);
            k.predict[log2](base.values, data(piece.base.before), n, is_float(hint), 0, lanes().get(2, n * hint.width),
                            lengths);
            keys = lengths;
        }
        for (std::size_t i = 0; i < n; ++i) ++seen[keys[i]];
    }
    LastStep step;
    step.by = by;
    step.bounds = bounds_of(seen);
    return step;
}

// Takes the last step into the model when samples say that it pays: a second base makes reading slower.
void try_last_step(const Kernels& k, const Hint& hint, const std::vector<Piece>& few, DeltaModel& model) {
    const double plain = ideal_bits(k, hint, model, few);
    DeltaModel with = model;
    with.scale.reset();
    LastStep step = grouped(k, hint, few, LastStep::By::kSteps);
    double best = 0.98 * plain;
    for (unsigned again : {0u, 3u, 6u, 10u, 14u}) {
        step.again = static_cast<std::uint8_t>(again);
        with.step = step;
        double bits = ideal_bits(k, hint, with, few);
        if (bits >= best) {
            if (model.step) break;  // beyond the best
            continue;
        }
        best = bits;
        model.scale.reset();
        model.step = step;
    }
}

// Takes the base's mantissa into the classes when samples say that it pays; perhaps after the decay of weights, which
// leaves small differences that each have a symbol.
bool try_mantissa(const Kernels& k, const Hint& hint, const std::vector<Piece>& few, std::optional<float> scale,
                  DeltaModel& model) {
    const LastStep::By by = model.step ? LastStep::By::kStepsAndMantissa : LastStep::By::kMantissa;
    LastStep step = grouped(k, hint, few, by);
    if (model.step) step.again = model.step->again, scale.reset();
    const double now = ideal_bits(k, hint, model, few);
    double best = kMantissaPays * now;
    DeltaModel with = model;
    with.step = step;
    for (std::optional<float> factor : {std::optional<float>(), scale}) {
        with.scale = factor;
        double bits = ideal_bits(k, hint, with, few);
        if (bits < best) {
            best = bits;
            model.step = with.step;
            model.scale = with.scale;
        }
        if (!scale) break;
    }
    return best < kMantissaPays * now;
}

// Keys in the order of what they lead to, so that neighbours are alike.
std::vector<SymbolClass> ordered_by_symbols(std::vector<SymbolClass> classes) {
    auto mean = [](const SymbolClass& c) {
        double sum = 0, n = 0;
        for (unsigned s = 0; s < kZeroSymbol; ++s) {
            sum += static_cast<double>(s) * c.counts[s];
            n += c.counts[s];
        }
        return n > 0 ? sum / n : 0;
    };
    std::stable_sort(classes.begin(), classes.end(),
                     [&](const SymbolClass& a, const SymbolClass& b) { return mean(a) < mean(b); });
    return classes;
}

// Classes and their tables; their bits go to `out`.
void set_classes(const std::vector<SymbolClass>& classes, Trained<DeltaModel>& out) {
    DeltaModel& model = out.model;
    for (std::size_t c = 0; c < classes.size(); ++c) {
        Histogram counts = widened(classes[c].counts);
        if (model.step) {
            for (std::uint8_t key : classes[c].keys) model.step->class_of[key] = static_cast<std::uint8_t>(c);
            model.last.push_back(static_cast<std::uint8_t>(c));
        } else {
            model.last.push_back(c + 1 == classes.size() ? std::uint8_t{255} : classes[c].keys.back());
        }
        model.classes.emplace_back(code_lengths(counts), &counts);
        out.bits += model.classes.back().cost(counts) + 8.0 * static_cast<double>(model.classes.back().written_size()) +
                    8 + extra_bits(model, classes[c].counts);
    }
    if (model.step) out.bits += 8.0 * (8 + 128);
}

DeltaModel plain_model(const Hint& hint, std::size_t elements, const DeltaSource& source) {
    DeltaModel model;
    model.cast = source.cast;
    model.buckets = buckets_for(hint.width, elements);
    model.derive(hint.width);
    return model;
}

// Samples decide what the base is multiplied by, and whether the last step or the optimizer's helps.
void refine(const Kernels& k, const Hint& hint, const std::vector<Piece>& few, bool before, bool fine, Formula formula,
            DeltaModel& model) {
    if (formula != Formula::kNone && try_formula(k, hint, few, formula, model)) return;
    std::optional<float> scale;
    if (model.cast == 0 && hint.width == 4 && is_float(hint) && !hint.big_endian) scale = find_scale(few);
    if (scale) {
        double plain = ideal_bits(k, hint, model, few);
        model.scale = scale;
        if (ideal_bits(k, hint, model, few) > 0.995 * plain) model.scale.reset();
    }
    if (model.cast != 0 || hint.big_endian) return;
    if (before) try_last_step(k, hint, few, model);
    if (!fine || hint.width == 1) return;
    // Most weights have nothing of it: one sample says so sooner than all.
    DeltaModel trial = model;
    if (try_mantissa(k, hint, {few.front()}, scale, trial)) (void)try_mantissa(k, hint, few, scale, model);
}

// Below this many elements the tables of finer classes cost more than they save.
constexpr std::size_t kStepFrom = 16'384;

}  // namespace

bool covers(const DeltaSource& source, const Hint& hint, std::uint64_t begin, std::size_t length) {
    DeltaModel cast;
    cast.cast = source.cast;
    BaseRange range = base_range(cast, hint, 0, begin, length);
    if (range.begin + range.length > source.base.size()) return false;
    if (source.formula != Formula::kNone && begin + length > std::min(source.first.size(), source.second.size())) {
        return false;
    }
    return source.before.empty() || begin + length <= source.before.size();
}

std::vector<std::uint32_t> covered_by(const DeltaSource& source, const Hint& hint, Bytes raw, unsigned chunk_log2,
                                      const std::vector<std::uint32_t>& chunks) {
    std::vector<std::uint32_t> covered;
    for (std::uint32_t c : chunks) {
        const std::size_t begin = std::size_t{c} << chunk_log2;
        if (covers(source, hint, begin, std::min(std::size_t{1} << chunk_log2, raw.size() - begin))) {
            covered.push_back(c);
        }
    }
    return covered;
}

DeltaSource needed_of(const DeltaSource& source, const DeltaModel& model) {
    DeltaSource out = source;
    if (!model.needs_before()) out.before = {};
    if (!model.adam) out.formula = Formula::kNone, out.first = {}, out.second = {};
    return out;
}

double sample_delta(const Kernels& k, const Hint& hint, Bytes raw, const DeltaSource& source, unsigned chunk_log2,
                    const std::vector<std::uint32_t>& chunks) {
    DeltaModel model = plain_model(hint, raw.size() / hint.width, source);
    std::vector<Piece> few = samples_of(hint, raw, source, chunk_log2, chunks);
    if (source.formula != Formula::kNone) (void)try_formula(k, hint, few, source.formula, model);
    double elements = 0;
    for (const Piece& piece : few) elements += static_cast<double>(piece.raw.size() / hint.width);
    return elements > 0 ? ideal_bits(k, hint, model, few) / elements : 8.0 * hint.width;
}

Trained<DeltaModel> train_delta(const Kernels& k, const Hint& hint, Bytes raw, const DeltaSource& source,
                                unsigned chunk_log2, const std::vector<std::uint32_t>& chunks) {
    const std::size_t elements = raw.size() / hint.width;
    Trained<DeltaModel> out;
    out.model = plain_model(hint, elements, source);
    const bool fine = elements >= kStepFrom;
    refine(k, hint, samples_of(hint, raw, source, chunk_log2, covered_by(source, hint, raw, chunk_log2, chunks)),
           !source.before.empty() && fine, fine, source.formula, out.model);
    // What is not counted has no code.
    const DeltaSource needed = needed_of(source, out.model);
    const std::vector<std::uint32_t> covered = covered_by(needed, hint, raw, chunk_log2, chunks);
    std::vector<SymbolClass> classes;
    {
        SymbolCounter counter;
        for (const Piece& piece : pieces_of(hint, raw, needed, chunk_log2, covered, covered.size())) {
            count_piece(k, hint, out.model, piece, counter);
        }
        classes = counter.classes();
    }
    if (classes.empty()) classes.push_back({{255}, {}, 0});
    classes = merge_classes(out.model.step ? ordered_by_symbols(std::move(classes)) : std::move(classes));
    set_classes(classes, out);
    out.model.derive(hint.width);
    return out;
}

Trained<SoloModel> train_solo(const Kernels& k, const Hint& hint, Bytes raw, unsigned chunk_log2,
                              const std::vector<std::uint32_t>& chunks) {
    Trained<SoloModel> out;
    const unsigned width = hint.width, log2 = static_cast<unsigned>(std::countr_zero(width));
    // Per plane: how often each byte, in a third of the pieces of a long segment. A chunk with a byte that is in none
    // of them makes a table of its own.
    std::array<SymbolCounts, 8> counts{};
    std::array<double, 8> noise{};  // elements of planes that are noise
    double all = 0, measured = 0;
    std::vector<Piece> pieces = pieces_of(hint, raw, {}, chunk_log2, chunks, chunks.size());
    std::size_t step = pieces.size() > 12 ? 3 : 1;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const Piece& piece = pieces[i];
        const std::size_t n = piece.raw.size() / width;
        all += static_cast<double>(n);
        if (i % step != 0) continue;
        measured += static_cast<double>(n);
        std::uint8_t* planes[8] = {};
        for (unsigned p = 0; p < width; ++p) planes[hint.big_endian ? width - 1 - p : p] = lanes().get(3 + p, n);
        // Only counts are wanted: of the other byte order the planes come in the other order, unrotated.
        k.split[log2](data(piece.raw), n, is_float(hint) && !hint.big_endian, planes);
        for (unsigned p = 0; p < width; ++p) {
            if (looks_random(planes[p], n)) {
                noise[p] += static_cast<double>(n);
                continue;
            }
            Histogram some = histogram_of(planes[p], n);
            for (unsigned s = 0; s < 256; ++s) counts[p][s] += static_cast<std::uint32_t>(some[s]);
        }
    }
    // Pruned weights, w × 0 with w's sign: planes in two parts.
    out.model.in_parts =
        is_float(hint) && !hint.big_endian && width > 1 && 16.0 * counts[0][0] >= measured && measured > 0;
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
