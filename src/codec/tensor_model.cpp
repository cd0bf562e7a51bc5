// SPDX-License-Identifier: Apache-2.0
#include "codec/tensor_model.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "codec/float_cast.hpp"

namespace coral::codec {
namespace {

// Flags of coder 2, and what coders 3 and 4 add.
constexpr std::uint8_t kHasSolo = 1, kHasDelta = 2, kHasScale = 4;
constexpr std::uint8_t kHasParts = 8, kHasCast = 16, kHasStep = 32;
constexpr std::uint8_t kHasAdam = 64, kHasPalette = 128;
constexpr std::uint8_t kOfDelta = kHasScale | kHasCast | kHasStep | kHasAdam;
constexpr std::uint8_t kNotWithAdam = kHasScale | kHasCast | kHasStep;
constexpr unsigned kMaxClasses = 64, kMaxColumnTables = 16;
constexpr std::uint8_t kColumns = 2;  // where the planes of SOLO have their bits, of which bytes have one

Error corrupt(const char* what) {
    return make_error(Errc::kCorrupt, what);
}

Status read_columns(BitReader& in, Columns& columns) {
    const std::uint8_t* sizes = in.take_bytes(2);
    if (!sizes || sizes[0] == 0 || sizes[1] == 0 || sizes[1] > kMaxColumnTables) {
        return corrupt("blocks of a wrong length");
    }
    const std::uint8_t* table_of = in.take_bytes(sizes[0] + 1u);
    if (!table_of) return corrupt("blocks are cut off");
    columns.table_of.assign(table_of, table_of + sizes[0] + 1);
    for (std::uint8_t table : columns.table_of) {
        if (table >= sizes[1]) return corrupt("a place in blocks that has no table");
    }
    for (unsigned t = 0; t < sizes[1]; ++t) {
        CORAL_TRY(PivotTree tree, PivotTree::read(in));
        columns.tables.push_back(std::move(tree));
    }
    return {};
}

Status read_solo(BitReader& in, unsigned width, Coder coder, SoloModel& solo) {
    const std::uint8_t* which = in.take_bytes(1);
    if (which && *which == kColumns && width == 1 && coder >= Coder::kTensor4) {
        return read_columns(in, solo.columns.emplace());
    }
    if (!which || *which >> width != 0) return corrupt("planes of a wrong number");
    for (unsigned plane = 0; plane < width; ++plane) {
        if ((*which >> plane & 1) == 0) continue;
        CORAL_TRY(PivotTree tree, PivotTree::read(in));
        solo.planes[plane] = std::move(tree);
    }
    return {};
}

// Classes are nibbles, the low one first.
Status read_step(BitReader& in, const Hint& hint, Coder coder, unsigned classes, LastStep& step) {
    const std::uint8_t* bytes = in.take_bytes(8 + 128);
    if (!bytes || classes > 16) return corrupt("tables of the last step are cut off");
    const unsigned by = bytes[0] >> 6;
    step.again = bytes[0] & 63;
    step.by = static_cast<LastStep::By>(by);
    if (by > 2 || step.again > 32 || (by > 0 && (coder < Coder::kTensor4 || hint.width == 1)) ||
        (by == 1 && step.again != 0)) {
        return corrupt("tables of the last step are of no kind");
    }
    std::copy(bytes + 1, bytes + 8, step.bounds.begin());
    if (!std::is_sorted(step.bounds.begin(), step.bounds.end())) return corrupt("groups of the base are out of order");
    for (unsigned key = 0; key < 256; ++key) {
        step.class_of[key] = bytes[8 + key / 2] >> (4 * (key % 2)) & 15;
        if (step.class_of[key] >= classes) return corrupt("a class of no tables");
    }
    return {};
}

void write_step(const LastStep& step, Buffer& out) {
    auto put = [&](unsigned byte) { out.push_back(static_cast<std::byte>(byte)); };
    put(step.again | static_cast<unsigned>(step.by) << 6);
    for (std::uint8_t bound : step.bounds) put(bound);
    for (unsigned key = 0; key < 256; key += 2) put(step.class_of[key] | unsigned{step.class_of[key + 1]} << 4);
}

void put_float(float value, Buffer& out) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned b = 0; b < 4; ++b) out.push_back(static_cast<std::byte>(bits >> (8 * b) & 255u));
}

float float_at(const std::uint8_t* bytes) {
    std::uint32_t bits = 0;
    for (unsigned b = 0; b < 4; ++b) bits |= std::uint32_t{bytes[b]} << (8 * b);
    return std::bit_cast<float>(bits);
}

Status read_adam(BitReader& in, const Hint& hint, AdamStep& step) {
    const std::uint8_t* bytes = in.take_bytes(1 + 12);
    if (!bytes || hint.width != 4 || !is_float(hint) || hint.big_endian) return corrupt("formula of no use");
    step = {static_cast<Formula>(bytes[0]), float_at(bytes + 1), float_at(bytes + 5), float_at(bytes + 9)};
    if (step.formula != Formula::kAdamWeights && step.formula != Formula::kAdamVariance) {
        return corrupt("formula of an unknown kind");
    }
    for (float f : {step.a, step.b, step.c}) {
        if (f != 0 && !std::isnormal(f)) return corrupt("formula with what is no number");
    }
    return {};
}

Status read_palette(BitReader& in, const Hint& hint, PaletteModel& palette) {
    const std::uint8_t* count = in.take_bytes(1);
    if (!count || *count == 0 || hint.width == 1) return corrupt("palette of one value");
    for (unsigned i = 0; i <= *count; ++i) {
        const std::uint8_t* bytes = in.take_bytes(hint.width);
        if (!bytes) return corrupt("palette is cut off");
        std::uint64_t value = 0;
        for (unsigned b = 0; b < hint.width; ++b) value |= std::uint64_t{bytes[b]} << (8 * b);
        if (i > 0 && value <= palette.values.back()) return corrupt("palette is out of order");
        palette.values.push_back(value);
    }
    CORAL_TRY(PivotTree tree, PivotTree::read(in));
    for (unsigned s = *count + 1u; s < 256; ++s) {
        if (tree.has(static_cast<std::uint8_t>(s))) return corrupt("number beyond the palette");
    }
    palette.tree = std::move(tree);
    return {};
}

void write_palette(const PaletteModel& palette, unsigned width, Buffer& out) {
    out.push_back(static_cast<std::byte>(palette.values.size() - 1));
    for (std::uint64_t value : palette.values) {
        for (unsigned b = 0; b < width; ++b) out.push_back(static_cast<std::byte>(value >> (8 * b)));
    }
    palette.tree->write(out);
}

Status read_classes(BitReader& in, unsigned classes, DeltaModel& delta) {
    if (delta.step) {
        for (unsigned c = 0; c < classes; ++c) delta.last.push_back(static_cast<std::uint8_t>(c));
        return {};
    }
    const std::uint8_t* last = in.take_bytes(classes);
    if (!last) return corrupt("delta classes are cut off");
    delta.last.assign(last, last + classes);
    if (delta.last.back() != 255 || !std::is_sorted(last, last + classes) ||
        std::adjacent_find(last, last + classes) != last + classes) {
        return corrupt("delta classes are out of order");
    }
    return {};
}

Status read_delta(BitReader& in, const Hint& hint, Coder coder, std::uint8_t flags, DeltaModel& delta) {
    const std::uint8_t* fixed = in.take_bytes(3);
    if (!fixed) return corrupt("delta tables are cut off");
    delta.buckets = {fixed[0], fixed[1]};
    if (delta.buckets.direct > 6 || delta.buckets.top > 2 || delta.buckets.top >= delta.buckets.direct ||
        alphabet(delta.buckets, hint.width) >= kZeroSymbol) {
        return corrupt("delta symbols of an unknown kind");
    }
    unsigned classes = fixed[2];
    if (classes == 0 || classes > kMaxClasses) return corrupt("delta classes of a wrong number");
    if ((flags & kHasScale) != 0) {
        const std::uint8_t* bytes = in.take_bytes(4);
        if (!bytes || hint.width != 4) return corrupt("delta scale is cut off");
        delta.scale = float_at(bytes);
        if (!std::isnormal(*delta.scale)) return corrupt("delta scale is no number");
    }
    if ((flags & kHasCast) != 0) {
        const std::uint8_t* from = in.take_bytes(1);
        if (!from || !can_cast(*from, hint)) return corrupt("base of a type that cannot be cast");
        delta.cast = *from;
    }
    if ((flags & kHasAdam) != 0) CORAL_CHECK(read_adam(in, hint, delta.adam.emplace()));
    if ((flags & kHasStep) != 0) CORAL_CHECK(read_step(in, hint, coder, classes, delta.step.emplace()));
    CORAL_CHECK(read_classes(in, classes, delta));
    unsigned symbols = alphabet(delta.buckets, hint.width);
    for (unsigned c = 0; c < classes; ++c) {
        CORAL_TRY(PivotTree tree, PivotTree::read(in));
        for (unsigned s = symbols; s < kZeroSymbol; ++s) {
            if (tree.has(static_cast<std::uint8_t>(s))) return corrupt("delta symbol of no meaning");
        }
        delta.classes.push_back(std::move(tree));
    }
    delta.derive(hint.width);
    return {};
}

}  // namespace

bool is_float(const Hint& hint) {
    return hint.element == Hint::Class::kFloat;
}

unsigned alphabet(Buckets buckets, unsigned width) {
    unsigned bits = 8 * width;
    if (bits <= buckets.direct) return 1u << bits;
    return (1u << buckets.direct) + ((bits - buckets.direct) << buckets.top);
}

void DeltaModel::derive(unsigned width) {
    lead.fill(0);
    count.fill(0);
    extra_bytes = 0;
    unsigned direct = 1u << buckets.direct;
    for (unsigned s = 0; s < alphabet(buckets, width); ++s) {
        if (s < direct) {
            lead[s] = static_cast<std::uint8_t>(s);
            continue;
        }
        unsigned length = buckets.direct + 1 + ((s - direct) >> buckets.top);
        unsigned top = (s - direct) & ((1u << buckets.top) - 1);
        lead[s] = static_cast<std::uint8_t>((1u << buckets.top) | top);
        count[s] = static_cast<std::uint8_t>(length - 1 - buckets.top);
        for (const PivotTree& tree : classes) {
            if (tree.has(static_cast<std::uint8_t>(s))) extra_bytes = std::max(extra_bytes, count[s] / 8u);
        }
    }
}

std::uint64_t TensorModel::memory() const {
    std::uint64_t bytes = sizeof *this;
    if (solo && solo->columns) {
        bytes += solo->columns->table_of.size();
        for (const PivotTree& tree : solo->columns->tables) bytes += sizeof tree + tree.memory();
    }
    if (solo) {
        for (const auto& plane : solo->planes) bytes += plane ? plane->memory() : 0;
    }
    if (delta) {
        for (const PivotTree& tree : delta->classes) bytes += sizeof tree + tree.memory();
    }
    if (palette) bytes += palette->values.size() * sizeof(std::uint64_t) + palette->tree->memory();
    return bytes;
}

Buffer TensorModel::write(unsigned width) const {
    Buffer out;
    auto put = [&](unsigned byte) { out.push_back(static_cast<std::byte>(byte)); };
    unsigned flags = (solo ? kHasSolo : 0u) | (delta ? kHasDelta : 0u) | (solo && solo->in_parts ? kHasParts : 0u);
    if (delta)
        flags |= (delta->scale ? kHasScale : 0u) | (delta->cast ? kHasCast : 0u) | (delta->step ? kHasStep : 0u) |
                 (delta->adam ? kHasAdam : 0u);
    if (palette) flags |= kHasPalette;
    put(flags);
    if (solo && solo->columns) {
        put(kColumns);
        put(static_cast<unsigned>(solo->columns->table_of.size() - 1));
        put(static_cast<unsigned>(solo->columns->tables.size()));
        for (std::uint8_t table : solo->columns->table_of) put(table);
        for (const PivotTree& tree : solo->columns->tables) tree.write(out);
    } else if (solo) {
        unsigned which = 0;
        for (unsigned p = 0; p < width; ++p) which |= solo->planes[p] ? 1u << p : 0u;
        put(which);
        for (unsigned p = 0; p < width; ++p) {
            if (solo->planes[p]) solo->planes[p]->write(out);
        }
    }
    if (delta) {
        put(delta->buckets.direct);
        put(delta->buckets.top);
        put(static_cast<unsigned>(delta->classes.size()));
        if (delta->scale) put_float(*delta->scale, out);
        if (delta->cast) put(delta->cast);
        if (delta->adam) {
            put(static_cast<unsigned>(delta->adam->formula));
            for (float f : {delta->adam->a, delta->adam->b, delta->adam->c}) put_float(f, out);
        }
        if (delta->step) write_step(*delta->step, out);
        for (std::uint8_t last : delta->last) {
            if (!delta->step) put(last);
        }
        for (const PivotTree& tree : delta->classes) tree.write(out);
    }
    if (palette) write_palette(*palette, width, out);
    return out;
}

Coder TensorModel::coder() const {
    const bool finer = delta && delta->step && delta->step->by != LastStep::By::kSteps;
    if (palette || finer || (solo && solo->columns) || (delta && delta->adam)) return Coder::kTensor4;
    bool third = (solo && solo->in_parts) || (delta && (delta->cast || delta->step));
    return third ? Coder::kTensor3 : Coder::kTensor;
}

Result<std::shared_ptr<const TensorModel>> TensorModel::read(Bytes tables, const Hint& hint, Coder coder) {
    BitReader in(tables);
    const std::uint8_t* first = in.take_bytes(1);
    const std::uint8_t flags = first ? *first : 0xff;
    const unsigned beyond = coder == Coder::kTensor    ? kHasParts
                            : coder == Coder::kTensor3 ? unsigned{kHasAdam}
                                                       : 2u * kHasPalette;
    if (flags >= beyond || ((flags & kHasAdam) != 0 && (flags & kNotWithAdam) != 0) ||
        ((flags & kOfDelta) != 0 && (flags & kHasDelta) == 0) ||
        ((flags & kHasParts) != 0 && (flags & kHasSolo) == 0)) {
        return corrupt("tables of no kind");
    }
    auto model = std::make_shared<TensorModel>();
    if ((flags & kHasSolo) != 0) CORAL_CHECK(read_solo(in, hint.width, coder, model->solo.emplace()));
    if ((flags & kHasParts) != 0) model->solo->in_parts = true;
    if ((flags & kHasDelta) != 0) CORAL_CHECK(read_delta(in, hint, coder, flags, model->delta.emplace()));
    if ((flags & kHasPalette) != 0) CORAL_CHECK(read_palette(in, hint, model->palette.emplace()));
    if (!in.at_end()) return corrupt("tables with something behind them");
    return std::shared_ptr<const TensorModel>(std::move(model));
}

BaseRange base_range(const DeltaModel& model, const Hint& hint, std::uint64_t offset, std::uint64_t begin,
                     std::size_t length) {
    if (model.cast == 0) return {offset + begin, length};
    const unsigned width = cast_width(model.cast);
    return {offset + begin / hint.width * width, length / hint.width * width};
}

}  // namespace coral::codec
