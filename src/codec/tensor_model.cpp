// SPDX-License-Identifier: Apache-2.0
#include "codec/tensor_model.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "codec/float_cast.hpp"

namespace coral::codec {
namespace {

// Flags of coder 2, and what coder 3 adds.
constexpr std::uint8_t kHasSolo = 1, kHasDelta = 2, kHasScale = 4;
constexpr std::uint8_t kHasParts = 8, kHasCast = 16, kHasStep = 32;
constexpr std::uint8_t kOfDelta = kHasScale | kHasCast | kHasStep;
constexpr unsigned kMaxClasses = 64;

Error corrupt(const char* what) {
    return make_error(Errc::kCorrupt, what);
}

Status read_solo(BitReader& in, unsigned width, SoloModel& solo) {
    const std::uint8_t* which = in.take_bytes(1);
    if (!which || *which >> width != 0) return corrupt("planes of a wrong number");
    for (unsigned plane = 0; plane < width; ++plane) {
        if ((*which >> plane & 1) == 0) continue;
        CORAL_TRY(PivotTree tree, PivotTree::read(in));
        solo.planes[plane] = std::move(tree);
    }
    return {};
}

// Classes are nibbles, the low one first.
Status read_step(BitReader& in, unsigned classes, LastStep& step) {
    const std::uint8_t* bytes = in.take_bytes(8 + 128);
    if (!bytes || bytes[0] > 32 || classes > 16) return corrupt("tables of the last step are cut off");
    step.again = bytes[0];
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
    put(step.again);
    for (std::uint8_t bound : step.bounds) put(bound);
    for (unsigned key = 0; key < 256; key += 2) put(step.class_of[key] | unsigned{step.class_of[key + 1]} << 4);
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

Status read_delta(BitReader& in, const Hint& hint, std::uint8_t flags, DeltaModel& delta) {
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
        std::uint32_t bits = 0;
        for (unsigned b = 0; b < 4; ++b) bits |= std::uint32_t{bytes[b]} << (8 * b);
        delta.scale = std::bit_cast<float>(bits);
        if (!std::isnormal(*delta.scale)) return corrupt("delta scale is no number");
    }
    if ((flags & kHasCast) != 0) {
        const std::uint8_t* from = in.take_bytes(1);
        if (!from || !can_cast(*from, hint)) return corrupt("base of a type that cannot be cast");
        delta.cast = *from;
    }
    if ((flags & kHasStep) != 0) CORAL_CHECK(read_step(in, classes, delta.step.emplace()));
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
    if (solo) {
        for (const auto& plane : solo->planes) bytes += plane ? plane->memory() : 0;
    }
    if (delta) {
        for (const PivotTree& tree : delta->classes) bytes += sizeof tree + tree.memory();
    }
    return bytes;
}

Buffer TensorModel::write(unsigned width) const {
    Buffer out;
    auto put = [&](unsigned byte) { out.push_back(static_cast<std::byte>(byte)); };
    unsigned flags = (solo ? kHasSolo : 0u) | (delta ? kHasDelta : 0u) | (solo && solo->in_parts ? kHasParts : 0u);
    if (delta) flags |= (delta->scale ? kHasScale : 0u) | (delta->cast ? kHasCast : 0u) | (delta->step ? kHasStep : 0u);
    put(flags);
    if (solo) {
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
        if (delta->scale) {
            auto bits = std::bit_cast<std::uint32_t>(*delta->scale);
            for (unsigned b = 0; b < 4; ++b) put(bits >> (8 * b) & 255u);
        }
        if (delta->cast) put(delta->cast);
        if (delta->step) write_step(*delta->step, out);
        for (std::uint8_t last : delta->last) {
            if (!delta->step) put(last);
        }
        for (const PivotTree& tree : delta->classes) tree.write(out);
    }
    return out;
}

Coder TensorModel::coder() const {
    bool third = (solo && solo->in_parts) || (delta && (delta->cast || delta->step));
    return third ? Coder::kTensor3 : Coder::kTensor;
}

Result<std::shared_ptr<const TensorModel>> TensorModel::read(Bytes tables, const Hint& hint, Coder coder) {
    BitReader in(tables);
    const std::uint8_t* first = in.take_bytes(1);
    const std::uint8_t flags = first ? *first : 0xff;
    bool known = flags < (coder == Coder::kTensor ? kHasParts : 2 * kHasStep);
    if (!known || ((flags & kOfDelta) != 0 && (flags & kHasDelta) == 0) ||
        ((flags & kHasParts) != 0 && (flags & kHasSolo) == 0)) {
        return corrupt("tables of no kind");
    }
    auto model = std::make_shared<TensorModel>();
    if ((flags & kHasSolo) != 0) CORAL_CHECK(read_solo(in, hint.width, model->solo.emplace()));
    if ((flags & kHasParts) != 0) model->solo->in_parts = true;
    if ((flags & kHasDelta) != 0) CORAL_CHECK(read_delta(in, hint, flags, model->delta.emplace()));
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
