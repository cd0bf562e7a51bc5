// SPDX-License-Identifier: Apache-2.0
// Chooses for every chunk: a copy of base bytes, differences from a base, few values, the tensor coder alone, zstd,
// raw.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "codec/byte_stats.hpp"
#include "codec/columns.hpp"
#include "codec/float_cast.hpp"
#include "codec/palette.hpp"
#include "codec/tensor_train.hpp"
#include "codec/zstd_context.hpp"
#include "coral/base/hash.hpp"
#include "coral/base/log.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {
namespace {

// ZSTD must save 1/32 (3.1 %) of a chunk: below that the time to decode is not worth it.
constexpr std::size_t kGainShift = 5;
constexpr std::size_t kSample = 16u << 10;

int zstd_level(Level level, const Hint& hint) {
    // Float bytes have no matches to find: a higher level only takes longer.
    if (hint.element == Hint::Class::kFloat && level != Level::kArchive) return 1;
    switch (level) {
        case Level::kFast:
            return 1;
        case Level::kDefault:
            return 3;
        case Level::kArchive:
            return 12;
    }
    return 3;
}

bool equal_to_base(Bytes raw, std::size_t begin, std::size_t length, const Base& base) {
    std::uint64_t from = base.offset + begin;
    if (from > base.raw.size() || base.raw.size() - from < length) return false;
    return std::memcmp(raw.data() + begin, base.raw.data() + from, length) == 0;
}

// Which candidate each chunk can be copied from, as bits.
std::vector<std::uint64_t> find_copies(Bytes raw, Hint hint, std::span<const Base> bases, unsigned chunk_log2) {
    const std::size_t chunk_size = std::size_t{1} << chunk_log2;
    std::size_t chunks = (raw.size() + chunk_size - 1) >> chunk_log2;
    std::vector<std::uint64_t> copies(chunks, 0);
    for (std::size_t b = 0; b < std::min<std::size_t>(bases.size(), 64); ++b) {
        const Base& base = bases[b];
        if (base.depth >= kMaxDepth || base.offset >= kMaxSegment || base.offset % hint.width != 0) continue;
        if (base.dtype != 0) continue;
        for (std::size_t c = 0; c < chunks; ++c) {
            std::size_t begin = c << chunk_log2;
            if (equal_to_base(raw, begin, std::min(chunk_size, raw.size() - begin), base)) {
                copies[c] |= std::uint64_t{1} << b;
            }
        }
    }
    return copies;
}

// Up to two candidates, each the first of those that add most copies.
std::vector<std::size_t> choose_bases(const std::vector<std::uint64_t>& copies, std::size_t candidates) {
    std::vector<std::size_t> chosen;
    std::uint64_t covered = 0;
    while (chosen.size() < kPlainBases) {
        std::size_t best = 0, best_count = 0;
        for (std::size_t b = 0; b < std::min<std::size_t>(candidates, 64); ++b) {
            auto count = static_cast<std::size_t>(std::count_if(copies.begin(), copies.end(), [&](std::uint64_t bits) {
                return (bits >> b & 1) != 0 && (bits & covered) == 0;
            }));
            if (count > best_count) best = b, best_count = count;
        }
        if (best_count == 0) break;
        chosen.push_back(best);
        covered |= std::uint64_t{1} << best;
    }
    return chosen;
}

// A cheap look before the whole chunk is compressed in vain: level 1 on samples. Where the chunk before was noise, one
// sample is enough to believe that this one is too.
bool seems_compressible(Bytes raw, bool noise_before, MutableBytes scratch) {
    if (raw.size() <= 2 * kSample) return true;
    auto shrinks = [&](std::size_t at) {
        std::size_t got = zstd_compress(raw.subspan(at, kSample), 1, scratch);
        return got != 0 && got <= kSample - (kSample >> (kGainShift + 1));
    };
    return shrinks(raw.size() / 2) || (!noise_before && shrinks(0));
}

// Appends the zstd frame and checks it by decoding; false when it gains too little.
bool append_zstd(Bytes raw, int level, unsigned chunk_log2, bool noise_before, Buffer& payload) {
    thread_local Buffer scratch(zstd_bound(kChunkSize));
    thread_local Buffer decoded(kChunkSize);
    if (raw.size() < 32 || !seems_compressible(raw, noise_before, scratch)) return false;
    std::size_t limit = raw.size() - (raw.size() >> kGainShift) - 1;
    std::size_t got = zstd_compress(raw, level, MutableBytes(scratch).first(limit));
    if (got == 0) return false;
    MutableBytes check = MutableBytes(decoded).first(raw.size());
    Bytes frame = Bytes(scratch).first(got);
    if (!zstd_decompress(frame, static_cast<int>(chunk_log2), check) ||
        std::memcmp(check.data(), raw.data(), raw.size()) != 0) {
        return false;  // a fault of memory or of zstd: raw bytes are always right
    }
    payload.insert(payload.end(), frame.begin(), frame.end());
    return true;
}

// What zstd would make of a segment, from a few samples: the share that is left.
double zstd_share(Bytes raw) {
    thread_local Buffer scratch(zstd_bound(kSample));
    std::size_t in = 0, out = 0;
    for (std::size_t part = 0; part < 3; ++part) {
        Bytes sample = raw.subspan(raw.size() / 4 * (part + 1) - raw.size() / 8, std::min(kSample, raw.size() / 8));
        if (sample.empty()) continue;
        std::size_t got = zstd_compress(sample, 1, scratch);
        in += sample.size();
        out += got ? got : sample.size();
    }
    return in ? static_cast<double>(out) / static_cast<double>(in) : 1;
}

bool decodes_to(const SegmentHeader& header, const Chunk& chunk, std::size_t at, Bytes stored, const DeltaBase& base,
                Bytes raw) {
    thread_local Buffer decoded(kChunkSize);
    MutableBytes check = MutableBytes(decoded).first(raw.size());
    const Kernels& k = kernels();
    Status done = chunk.mode == Mode::kSolo ? decode_solo(k, *header.model->solo, header.hint, stored, check, at)
                  : chunk.mode == Mode::kPalette
                      ? decode_palette(k, *header.model->palette, header.hint, stored, check)
                      : decode_delta(k, *header.model->delta, header.hint, stored, base, check);
    return done && std::memcmp(check.data(), raw.data(), raw.size()) == 0;
}

// Encodes one segment.
class Job {
  public:
    Job(Bytes raw, Hint hint, std::span<const Base> bases, Level level, std::uint8_t chunk_log2)
        : raw_(raw),
          bases_(bases),
          level_(level),
          chunk_log2_(chunk_log2),
          copies_(find_copies(raw, hint, bases, chunk_log2)) {
        e_.header.chunk_log2 = chunk_log2;
        e_.header.raw_length = static_cast<std::uint32_t>(raw.size());
        if (hint.element == Hint::Class::kBytes && bases.empty()) {
            // Raw dumps, and containers that no parser knows. (Offsets into bases would have to fit the width.)
            unsigned width = likely_width(reinterpret_cast<const std::uint8_t*>(raw.data()), raw.size());
            if (width > 1) {
                hint.width = static_cast<std::uint8_t>(width);
                hint.element = Hint::Class::kInteger;
            }
        }
        e_.header.hint = hint;
        chosen_ = choose_bases(copies_, bases.size());
    }

    Result<Encoded> run() {
        if (e_.header.hint.element != Hint::Class::kBytes && raw_.size() >= kTensorFrom) train();
        for (std::size_t b : chosen_) {
            e_.header.bases.push_back({bases_[b].id, bases_[b].offset});
            auto depth = static_cast<std::uint8_t>(bases_[b].depth + 1);
            e_.header.depth = std::max(e_.header.depth, depth);
        }
        e_.header.chunks.reserve(copies_.size());
        for (std::size_t c = 0; c < copies_.size(); ++c) CORAL_CHECK(add_chunk(c));
        return std::move(e_);
    }

  private:
    static constexpr std::size_t kTensorFrom = 512;
    static constexpr double kPalettePays = 0.99;
    static constexpr double kAttach = 0.95;  // of SOLO's size: below it a base is worth reading another segment

    Bytes part(std::size_t c) const {
        std::size_t begin = c << chunk_log2_;
        return raw_.subspan(begin, std::min(std::size_t{1} << chunk_log2_, raw_.size() - begin));
    }
    bool copied(std::size_t c) const {
        return std::any_of(chosen_.begin(), chosen_.end(), [&](std::size_t b) { return (copies_[c] >> b & 1) != 0; });
    }
    bool usable(const Base& base) const {
        return base.depth < kMaxDepth && base.offset < kMaxSegment && base.offset % e_.header.hint.width == 0 &&
               base.offset < base.raw.size();
    }

    // What differences are taken from.
    struct Choice {
        std::size_t base = 0;
        std::optional<std::size_t> second;  // the state before, or what follows the base in its tensor
        std::optional<Base::Inputs> inputs;
        DeltaSource source;
        Buffer joined;  // base and what follows it
    };

    std::optional<Choice> choice_of(std::size_t b) const {
        const Base& base = bases_[b];
        if (!usable(base) || (chosen_.size() == kPlainBases && !is_chosen(b))) return std::nullopt;
        Choice choice;
        choice.base = b;
        choice.source.base = from(base);
        choice.source.cast = base.dtype;
        if (base.dtype != 0) {
            // Slots say where in a tensor of wider elements a chunk lies: there is no room for copies of others.
            if (!can_cast(base.dtype, e_.header.hint) || !chosen_.empty()) return std::nullopt;
            if (base.next && bases_[*base.next].depth < kMaxDepth && base.raw.size() == kMaxSegment) {
                Bytes next = bases_[*base.next].raw;
                choice.joined.assign(choice.source.base.begin(), choice.source.base.end());
                choice.joined.insert(choice.joined.end(), next.begin(), next.end());
                choice.source.base = choice.joined;
                choice.second = base.next;
            }
        } else if (base.before && usable(bases_[*base.before]) && bases_[*base.before].dtype == 0) {
            const Base& before = bases_[*base.before];
            bool room =
                std::all_of(chosen_.begin(), chosen_.end(), [&](std::size_t c) { return c == b || c == *base.before; });
            if (room) {
                choice.source.before = from(before);
                choice.second = base.before;
            }
        }
        if (base.inputs) add_inputs(choice);
        return choice;
    }

    static Bytes from(const Base& base) { return base.raw.subspan(static_cast<std::size_t>(base.offset)); }

    // What the optimizer's formula is about, when it can have the slots behind the base's.
    void add_inputs(Choice& choice) const {
        const Hint& hint = e_.header.hint;
        const Base::Inputs& inputs = *bases_[choice.base].inputs;
        if (hint.width != 4 || hint.element != Hint::Class::kFloat || hint.big_endian) return;
        for (std::size_t b : {inputs.first, inputs.second}) {
            if (!usable(bases_[b]) || bases_[b].dtype != 0) return;
        }
        for (std::size_t c : chosen_) {
            if (c != choice.base && c != inputs.first && c != inputs.second) return;
        }
        choice.inputs = inputs;
        choice.source.formula = inputs.formula;
        choice.source.first = from(bases_[inputs.first]);
        choice.source.second = from(bases_[inputs.second]);
    }

    std::vector<std::uint32_t> covered(const DeltaSource& source, const std::vector<std::uint32_t>& rest) const {
        return covered_by(source, e_.header.hint, raw_, chunk_log2_, rest);
    }

    static bool belongs(const Base& base, std::size_t b) {
        return base.before == b || base.next == b ||
               (base.inputs && (base.inputs->first == b || base.inputs->second == b));
    }

    // Among several, samples decide.
    std::optional<Choice> choose_delta(const std::vector<std::uint32_t>& rest) const {
        std::vector<Choice> choices;
        for (std::size_t b = 0; b < std::min<std::size_t>(bases_.size(), 64); ++b) {
            bool other = std::any_of(bases_.begin(), bases_.end(), [&](const Base& base) { return belongs(base, b); });
            if (other) continue;
            if (auto choice = choice_of(b)) choices.push_back(std::move(*choice));
        }
        std::optional<std::size_t> best;
        double best_bits = 0;
        for (std::size_t i = 0; i < choices.size(); ++i) {
            const std::vector<std::uint32_t> some = covered(choices[i].source, rest);
            if (some.empty()) continue;
            double share = static_cast<double>(some.size()) / static_cast<double>(rest.size());
            double bits =
                choices.size() == 1
                    ? 0
                    : sample_delta(kernels(), e_.header.hint, raw_, choices[i].source, chunk_log2_, some) * share +
                          8.0 * e_.header.hint.width * (1 - share);
            if (!best || bits < best_bits) best = i, best_bits = bits;
        }
        if (!best) return std::nullopt;
        return std::move(choices[*best]);
    }

    // Chooses tables, and the base for differences; both only where they pay.
    void train() {
        const Kernels& k = kernels();
        const Hint& hint = e_.header.hint;
        std::vector<std::uint32_t> rest;
        for (std::size_t c = 0; c < copies_.size(); ++c) {
            if (!copied(c)) rest.push_back(static_cast<std::uint32_t>(c));
        }
        if (rest.empty()) return;
        auto model = std::make_shared<TensorModel>();
        auto solo = train_solo(k, hint, raw_, chunk_log2_, rest);
        if (hint.width == 1 && hint.detail == kDtypeQuantised) {
            auto blocks = train_columns(raw_, chunk_log2_, rest);
            if (blocks.bits < 0.995 * solo.bits) {
                solo.bits = blocks.bits;
                solo.model.columns = std::move(blocks.model);
            }
        }
        double raw_bits = 0;
        for (std::uint32_t c : rest) raw_bits += 8.0 * static_cast<double>(part(c).size());
        auto palette = train_palette(hint, raw_, chunk_log2_, rest);
        const bool few = palette.bits < kPalettePays * std::min(solo.bits, raw_bits);
        double best = kAttach * (few ? palette.bits : std::min(solo.bits, raw_bits));
        if (auto choice = choose_delta(rest)) {
            auto delta = train_delta(k, hint, raw_, choice->source, chunk_log2_, rest);
            // From here on as it was trained: where chunks are differences, their symbols have been counted.
            choice->source = needed_of(choice->source, delta.model);
            double left = raw_bits;
            for (std::uint32_t c : covered(choice->source, rest)) left -= 8.0 * static_cast<double>(part(c).size());
            delta.bits += left / raw_bits * solo.bits;
            if (delta.bits < best) {
                best = delta.bits;
                model->delta = std::move(delta.model);
                delta_ = std::move(choice);
            }
        }
        double share = best / raw_bits / (delta_ ? 1 : kAttach);
        zstd_pays_ = !delta_ && zstd_share(raw_) < 0.97 * share;
        if (share > 0.99 && !delta_) return;
        if (delta_) take(*model->delta);
        if (few && !delta_)
            model->palette = std::move(palette.model);
        else
            model->solo = std::move(solo.model);
        solo_share_ = std::min(solo.bits / raw_bits, 1.0);
        e_.header.tables = model->write(hint.width);
        // As readers will understand them.
        auto read = TensorModel::read(e_.header.tables, hint, model->coder());
        if (!read) {
            e_.header.tables.clear();
            return;
        }
        e_.header.coder = model->coder();
        e_.header.model = std::move(*read);
    }

    // The bases of differences get their slots.
    void take(const DeltaModel& model) {
        if (model.adam) {
            chosen_ = {delta_->base, delta_->inputs->first, delta_->inputs->second};
            return;
        }
        if (!is_chosen(delta_->base)) chosen_.push_back(delta_->base);
        bool both = delta_->second && (model.needs_before() || model.cast != 0);
        if (both && !is_chosen(*delta_->second)) chosen_.push_back(*delta_->second);
    }

    bool is_chosen(std::size_t b) const { return std::find(chosen_.begin(), chosen_.end(), b) != chosen_.end(); }

    Status add_chunk(std::size_t c) {
        Bytes raw = part(c);
        Chunk chunk;
        chunk.raw_sum = xxh3_64(raw);
        auto slot =
            std::find_if(chosen_.begin(), chosen_.end(), [&](std::size_t b) { return (copies_[c] >> b & 1) != 0; });
        if (slot != chosen_.end()) {
            chunk.mode = Mode::kCopy;
            chunk.base_slot = static_cast<std::uint8_t>(slot - chosen_.begin());
        } else if (!add_coded(c, raw, chunk)) {
            bool noise_before = c > 0 && e_.header.chunks.back().mode == Mode::kRaw;
            bool look = e_.header.coder == Coder::kGeneric || zstd_pays_;
            if (look && append_zstd(raw, zstd_level(level_, e_.header.hint), chunk_log2_, noise_before, e_.payload)) {
                chunk.mode = Mode::kZstd;
            } else {
                if (e_.payload.empty()) e_.payload.reserve(raw_.size() - (c << chunk_log2_));
                e_.payload.insert(e_.payload.end(), raw.begin(), raw.end());
            }
        }
        chunk.stored_end = static_cast<std::uint32_t>(e_.payload.size());
        e_.header.chunks.push_back(chunk);
        return {};
    }

    // The bytes that a chunk differs from, and their slot; none where the base does not reach.
    DeltaBase delta_base(std::size_t c, Chunk& chunk) const {
        if (!delta_) return {};
        const std::size_t begin = c << chunk_log2_, length = part(c).size();
        const DeltaSource& source = delta_->source;
        if (!covers(source, e_.header.hint, begin, length)) return {};
        const DeltaModel& model = *e_.header.model->delta;
        BaseRange range = base_range(model, e_.header.hint, 0, begin, length);
        DeltaBase out{source.base.subspan(static_cast<std::size_t>(range.begin), range.length), {}};
        if (!source.before.empty()) out.before = source.before.subspan(begin, length);
        if (model.adam) {
            out.first = source.first.subspan(begin, length);
            out.second = source.second.subspan(begin, length);
        }
        if (model.cast != 0) {
            const std::uint64_t at = bases_[delta_->base].offset + range.begin;
            if (range.length > 0 && at / kMaxSegment != (at + range.length - 1) / kMaxSegment) return {};
            chunk.base_slot = static_cast<std::uint8_t>(at / kMaxSegment);
        } else {
            auto slot = std::find(chosen_.begin(), chosen_.end(), delta_->base);
            chunk.base_slot = static_cast<std::uint8_t>(slot - chosen_.begin());
        }
        return out;
    }

    // The smallest of DELTA, SOLO or PALETTE and zstd, if one is smaller than raw; decoded and compared before it
    // counts.
    bool add_coded(std::size_t c, Bytes raw, Chunk& chunk) {
        if (!e_.header.model) return false;
        const Kernels& k = kernels();
        const Hint& hint = e_.header.hint;
        std::size_t before = e_.payload.size();
        DeltaBase base = delta_base(c, chunk);
        bool done = false;
        if (e_.header.model->palette) {
            done = encode_palette(k, *e_.header.model->palette, hint, raw, e_.payload);
            chunk.mode = Mode::kPalette;
        } else if (!base.base.empty() && encode_delta(k, *e_.header.model->delta, hint, raw, base, e_.payload)) {
            chunk.mode = Mode::kDelta;
            done = true;
        } else {
            chunk.base_slot = 0;
        }
        auto size = static_cast<double>(e_.payload.size() - before);
        if (e_.header.model->solo && (!done || size > 0.9 * solo_share_ * static_cast<double>(raw.size()))) {
            Buffer other;
            if (encode_solo(k, *e_.header.model->solo, hint, raw, other, c << chunk_log2_) &&
                (!done || other.size() < size)) {
                e_.payload.resize(before);
                e_.payload.insert(e_.payload.end(), other.begin(), other.end());
                chunk.mode = Mode::kSolo;
                chunk.base_slot = 0;
                done = true;
            }
        }
        if (zstd_pays_) {
            Buffer other;
            if (append_zstd(raw, zstd_level(level_, hint), chunk_log2_, false, other) &&
                (!done || other.size() < e_.payload.size() - before)) {
                e_.payload.resize(before);
                e_.payload.insert(e_.payload.end(), other.begin(), other.end());
                chunk.mode = Mode::kZstd;  // checked where it was made
                chunk.base_slot = 0;
                return true;
            }
        }
        if (!done) {
            chunk.mode = Mode::kRaw;
            return false;
        }
        if (decodes_to(e_.header, chunk, c << chunk_log2_, Bytes(e_.payload).subspan(before), base, raw)) return true;
        // A fault of memory or of ours: raw bytes are always right.
        log_error("chunk {} of a segment did not decode to its bytes and is stored raw (mode {})", c,
                  static_cast<unsigned>(chunk.mode));
        e_.payload.resize(before);
        chunk.mode = Mode::kRaw;
        chunk.base_slot = 0;
        return false;
    }

    Bytes raw_;
    std::span<const Base> bases_;
    Level level_;
    unsigned chunk_log2_;
    std::vector<std::uint64_t> copies_;
    std::vector<std::size_t> chosen_;
    std::optional<Choice> delta_;
    double solo_share_ = 1;
    bool zstd_pays_ = false;
    Encoded e_;
};

}  // namespace

Result<Encoded> encode_segment(Bytes raw, Hint hint, std::span<const Base> bases, Level level,
                               std::uint8_t chunk_log2) {
    if (raw.empty() || raw.size() > kMaxSegment) return make_error(Errc::kInvalid, "segment of a wrong length");
    if (Hint::unpack(hint.pack()) != hint) return make_error(Errc::kInvalid, "segment hint of a wrong width");
    if (chunk_log2 < kMinChunkLog2 || chunk_log2 > kChunkLog2)
        return make_error(Errc::kInvalid, "chunks of a wrong size");
    return Job(raw, hint, bases, level, chunk_log2).run();
}

Buffer compress_small(Bytes raw, int level) {
    Buffer out(zstd_bound(raw.size()));
    out.resize(zstd_compress(raw, level, out));
    return out;
}

}  // namespace coral::codec
