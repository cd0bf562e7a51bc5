// SPDX-License-Identifier: Apache-2.0
// What all chunks of a segment share under the tensor coder (docs/codec.md): code tables of byte planes (SOLO) and of
// differences from a base, one for each class of base exponents (DELTA).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "codec/pivot_tree.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {

struct SoloModel {
    std::array<std::optional<PivotTree>, 8> planes;  // none: raw, or a table of the chunk's own
    bool in_parts = false;                           // planes may be in two parts (kPlaneParts)
};

// What the last step, from the state before the base to the base, tells about the next one.
struct LastStep {
    static constexpr unsigned kLengths = 32;  // bit lengths of the last step that are told apart
    std::uint8_t again = 0;                   // so many sixteenths of it are expected once more
    // Group of a base element: how many of these its key reaches. Ascending.
    std::array<std::uint8_t, 7> bounds{};
    // Class of an element: [group × kLengths + bit length of the last step, at most 31].
    std::array<std::uint8_t, 256> class_of{};
};

struct DeltaModel {
    Buckets buckets;
    std::optional<float> scale;    // F32: the base is multiplied by it first (weight decay)
    std::uint8_t cast = 0;         // the base's elements are of this float type
    std::optional<LastStep> step;  // classes by it, and a second base
    std::vector<std::uint8_t>
        last;  // of each class: its highest key; ascending, the last one is 255 (with `step`, not)
    std::vector<PivotTree> classes;
    std::array<std::uint8_t, 256> lead{}, count{};  // of each symbol: leading bits, number of extra bits
    unsigned extra_bytes = 0;                       // whole bytes of extra bits that any coded symbol has

    // Fills lead, count and extra_bytes.
    void derive(unsigned width);
};

struct TensorModel {
    std::optional<SoloModel> solo;
    std::optional<DeltaModel> delta;

    std::uint64_t memory() const;
    Coder coder() const;  // the lowest that can express it
    Buffer write(unsigned width) const;
    // kCorrupt for anything that a chunk could not be decoded with.
    static Result<std::shared_ptr<const TensorModel>> read(Bytes tables, const Hint& hint, Coder coder);
};

// Bytes of the base for a chunk: `base` as DeltaModel::cast wants it, `before` empty without DeltaModel::step.
struct DeltaBase {
    Bytes base, before;
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

// One chunk. `raw` and `out` are whole chunks; `base` is base_range() of them. False: it would not be smaller than raw.
bool encode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes raw, Buffer& out);
bool encode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes raw, const DeltaBase& base,
                  Buffer& out);
Status decode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes stored, MutableBytes out);
Status decode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes stored, const DeltaBase& base,
                    MutableBytes out);

}  // namespace coral::codec
