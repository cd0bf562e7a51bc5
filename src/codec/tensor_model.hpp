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
};

struct DeltaModel {
    Buckets buckets;
    std::optional<float> scale;      // F32: the base is multiplied by it first (weight decay)
    std::vector<std::uint8_t> last;  // of each class: its highest key; ascending, the last one is 255
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
    Buffer write(unsigned width) const;
    // kCorrupt for anything that a chunk could not be decoded with.
    static Result<std::shared_ptr<const TensorModel>> read(Bytes tables, const Hint& hint);
};

// Symbols of an alphabet, without kZeroSymbol.
unsigned alphabet(Buckets buckets, unsigned width);

// True for the float types whose bits are ordered like sign and magnitude.
bool is_float(const Hint& hint);

// One chunk. `raw` and `out` are whole chunks; `base` has the same length. False: it would not be smaller than raw.
bool encode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes raw, Buffer& out);
bool encode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes raw, Bytes base, Buffer& out);
Status decode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes stored, MutableBytes out);
Status decode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes stored, Bytes base,
                    MutableBytes out);

}  // namespace coral::codec
