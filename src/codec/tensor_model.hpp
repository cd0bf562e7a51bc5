// SPDX-License-Identifier: Apache-2.0
// What all chunks of a segment share under the tensor coder (docs/codec.md): code tables of byte planes (SOLO) and of
// differences from a base, one for each class of base exponents (DELTA); and the values of which there are few
// (PALETTE).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "codec/pivot_tree.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {

// Bytes that come in blocks of so many, as quantised weights with their scales do: which of the tables is that of each.
struct Columns {
    std::vector<std::uint8_t> table_of;  // by position in the block; 2 … 256
    std::vector<PivotTree> tables;       // 1 … 16
};

struct SoloModel {
    std::array<std::optional<PivotTree>, 8> planes;  // none: raw, or a table of the chunk's own
    bool in_parts = false;                           // planes may be in two parts (kPlaneParts)
    std::optional<Columns> columns;                  // instead of a plane, of bytes
};

// What an element's class is chosen by, where that is more than its base's key: one of eight groups and five bits.
struct LastStep {
    static constexpr unsigned kFine = 32;
    // On-disk numbers. What the last step was, from the state before the base to the base, tells about the next one;
    // where weights only decayed, the leading bits of the base's mantissa tell what rounding made of that.
    enum class By : std::uint8_t {
        kSteps = 0,             // groups of keys; bit length of the last step, at most 31
        kMantissa = 1,          // groups of keys; five bits of the mantissa. Without a state before
        kStepsAndMantissa = 2,  // groups of bit lengths; five bits of the mantissa
    };
    By by = By::kSteps;
    std::uint8_t again = 0;  // so many sixteenths of the last step are expected once more
    // The group: how many of these the key, or the bit length, reaches. Ascending.
    std::array<std::uint8_t, 7> bounds{};
    std::array<std::uint8_t, 256> class_of{};  // [group × kFine + those bits]

    bool needs_before() const { return by != By::kMantissa; }
};

struct DeltaModel {
    Buckets buckets;
    std::optional<float> scale;    // F32: the base is multiplied by it first (weight decay)
    std::uint8_t cast = 0;         // the base's elements are of this float type
    std::optional<LastStep> step;  // classes by it, and mostly a second base
    std::optional<AdamStep> adam;  // what it makes of three bases is what differences are taken from
    std::vector<std::uint8_t>
        last;  // of each class: its highest key; ascending, the last one is 255 (with `step`, not)
    std::vector<PivotTree> classes;
    std::array<std::uint8_t, 256> lead{}, count{};  // of each symbol: leading bits, number of extra bits
    unsigned extra_bytes = 0;                       // whole bytes of extra bits that any coded symbol has

    bool needs_before() const { return step && step->needs_before(); }
    // Fills lead, count and extra_bytes.
    void derive(unsigned width);
};

struct PaletteModel {
    std::vector<std::uint64_t> values;  // ascending; an element is the number of one. 2 … 256
    std::optional<PivotTree> tree;      // of these numbers
};

struct TensorModel {
    std::optional<SoloModel> solo;
    std::optional<DeltaModel> delta;
    std::optional<PaletteModel> palette;

    std::uint64_t memory() const;
    Coder coder() const;  // the lowest that can express it
    Buffer write(unsigned width) const;
    // kCorrupt for anything that a chunk could not be decoded with.
    static Result<std::shared_ptr<const TensorModel>> read(Bytes tables, const Hint& hint, Coder coder);
};

// Bytes of the base for a chunk: `base` as DeltaModel::cast wants it, `before` empty without DeltaModel::step, `first`
// and `second` without DeltaModel::adam.
struct DeltaBase {
    Bytes base, before;
    Bytes first = {}, second = {};
};
// Where in the base a chunk's elements lie, in bytes: the base's own, beyond its first segment in the second.
struct BaseRange {
    std::uint64_t begin = 0;
    std::size_t length = 0;
};
BaseRange base_range(const DeltaModel& model, const Hint& hint, std::uint64_t offset, std::uint64_t begin,
                     std::size_t length);

// Symbols of an alphabet, without kZeroSymbol.
unsigned alphabet(Buckets buckets, unsigned width);

// True for the float types whose bits are ordered like sign and magnitude.
bool is_float(const Hint& hint);

// One chunk. `raw` and `out` are whole chunks, `at` is where they lie in the segment; `base` is base_range() of them.
// False: it would not be smaller than raw.
bool encode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes raw, Buffer& out,
                 std::size_t at = 0);
bool encode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes raw, const DeltaBase& base,
                  Buffer& out);
Status decode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes stored, MutableBytes out,
                   std::size_t at = 0);
Status decode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes stored, const DeltaBase& base,
                    MutableBytes out);
// All elements must be in the palette.
bool encode_palette(const Kernels& k, const PaletteModel& model, const Hint& hint, Bytes raw, Buffer& out);
Status decode_palette(const Kernels& k, const PaletteModel& model, const Hint& hint, Bytes stored, MutableBytes out);

}  // namespace coral::codec
