// SPDX-License-Identifier: Apache-2.0
// Encoding of one segment (≤ 16 MiB) as independently decodable chunks of 256 KiB. Pure functions: bytes (+ base bytes)
// in, bytes out; no I/O, no state, thread-safe. The byte stream of a coder number never changes (docs/format.md,
// "Segments").
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral::codec {

inline constexpr std::uint32_t kMaxSegment = 16u << 20;
inline constexpr std::uint8_t kChunkLog2 = 18;
inline constexpr std::uint8_t kMinChunkLog2 = 12;
inline constexpr std::uint32_t kChunkSize = 1u << kChunkLog2;
inline constexpr std::uint8_t kMaxDepth = 7;
inline constexpr std::size_t kMaxBases = 3;    // of one segment
inline constexpr std::size_t kPlainBases = 2;  // of one without the formula of an optimizer

// On-disk numbers; append only.
enum class Mode : std::uint8_t { kRaw = 0, kZstd = 1, kCopy = 2, kSolo = 3, kDelta = 4, kPalette = 5 };
enum class Coder : std::uint16_t {
    kGeneric = 1,  // RAW, ZSTD and COPY chunks only
    kTensor = 2,   // and SOLO and DELTA, with tables (docs/codec.md)
    kTensor3 = 3,  // and bases of another float type, two bases for one prediction, planes in two parts
    kTensor4 = 4,  // and three bases for a step of Adam
};

// How Adam makes a tensor of its earlier state and two others (docs/codec.md). On-disk numbers.
enum class Formula : std::uint8_t {
    kNone = 0,
    kAdamWeights = 1,   // weights, by both moments of the same save
    kAdamVariance = 2,  // the second moment, by the first of the same save and that of the save before
};

// What the bytes mean: a coding hint, never part of a name, free to be improved by encoding again.
struct Hint {
    enum class Class : std::uint8_t { kBytes = 0, kInteger = 1, kFloat = 2 };
    std::uint8_t width = 1;  // bytes of an element: 1, 2, 4, 8
    Class element = Class::kBytes;
    bool big_endian = false;
    std::uint8_t detail = 0;  // formats::Dtype number, 0 unknown: tells BF16 from F16

    std::uint16_t pack() const;
    static Hint unpack(std::uint16_t packed);
    bool operator==(const Hint&) const = default;
};

struct BaseRef {
    SegmentId id;
    std::uint64_t offset = 0;  // in the base's raw bytes, a multiple of the element width
    bool operator==(const BaseRef&) const = default;
};

struct Chunk {
    std::uint32_t stored_end = 0;  // in the payload; the stored bytes begin at the end of the chunk before
    Mode mode = Mode::kRaw;
    std::uint8_t base_slot = 0;
    std::uint64_t raw_sum = 0;  // XXH3-64, seed 0, of the DECODED chunk
    bool operator==(const Chunk&) const = default;
};

struct TensorModel;  // private to the codec

struct SegmentHeader {
    std::uint32_t raw_length = 0;
    Hint hint;
    Coder coder = Coder::kGeneric;
    std::uint8_t chunk_log2 = kChunkLog2;
    std::uint8_t depth = 0;  // 0 without bases, else 1 + the deepest base
    std::vector<BaseRef> bases;
    Buffer tables;                             // of the coder, for all chunks; empty for kGeneric
    std::shared_ptr<const TensorModel> model;  // the tables as read_header has understood them
    std::vector<Chunk> chunks;

    // The base that its differences are taken from, when that is an earlier state of the same elements.
    std::optional<BaseRef> earlier_state() const;
    // Was it made again by an optimizer's formula?
    bool by_formula() const;
    // Bytes that this takes in memory, for caches.
    std::uint64_t memory() const;
    std::uint32_t chunk_count() const { return static_cast<std::uint32_t>(chunks.size()); }
    std::uint32_t chunk_raw_length(std::uint32_t index) const;
    std::uint32_t chunk_stored_begin(std::uint32_t index) const { return index ? chunks[index - 1].stored_end : 0; }
};

void write_header(const SegmentHeader& header, Buffer& out);
// Refuses (kCorrupt) whatever could make a reader allocate or read beyond `payload_length` and the fixed limits.
Result<SegmentHeader> read_header(Bytes bytes, std::uint64_t payload_length);

// A candidate base whose bytes are at hand. `raw` covers the whole base segment.
struct Base {
    SegmentId id;
    std::uint64_t offset = 0;
    std::uint8_t depth = 0;
    Bytes raw;
    // The state before this base, if it is among the candidates, too: what the last step was tells about the next.
    std::optional<std::size_t> before = std::nullopt;
    // Its elements are of this float type (formats::Dtype number), not of the segment's; 0: of the same. When they are
    // wider, `next` is the candidate that follows it in its tensor.
    std::uint8_t dtype = 0;
    std::optional<std::size_t> next = std::nullopt;
    // Candidates that the optimizer has made the next state with, from this one.
    struct Inputs {
        Formula formula = Formula::kNone;
        std::size_t first = 0, second = 0;
    };
    std::optional<Inputs> inputs = std::nullopt;
};

enum class Level : std::uint8_t { kFast, kDefault, kArchive };

struct Encoded {
    SegmentHeader header;
    Buffer payload;
};

// `raw` must be 1 … kMaxSegment bytes. Bases too deep to be used are ignored; only those used appear in the header. The
// result has been decoded again and compared: what is returned is right. Payload ≤ raw.size(). Chunks are of
// 2^chunk_log2 bytes, kMinChunkLog2 … kChunkLog2: small ones for blocks of many small tensors.
Result<Encoded> encode_segment(Bytes raw, Hint hint, std::span<const Base> bases, Level level = Level::kDefault,
                               std::uint8_t chunk_log2 = kChunkLog2);

// Bytes [begin, end) of base `slot`; beyond the base's end they read as zero. The reader fills all of `out`.
using BaseReader = std::function<Status(std::uint8_t slot, std::uint64_t begin, MutableBytes out)>;

// Decodes chunk `index` from its stored bytes into `out` (exactly chunk_raw_length) and verifies its checksum: kCorrupt
// when anything does not fit, and `out` is then undefined.
Status decode_chunk(const SegmentHeader& header, std::uint32_t index, Bytes stored, const BaseReader& base,
                    MutableBytes out);

// zstd for metadata payloads (FILE, TREE, COMMIT …). `limit` caps what a decompressed frame may claim.
Buffer compress_small(Bytes raw, int level = 9);
Result<Buffer> decompress_small(Bytes stored, std::uint64_t raw_length, std::uint64_t limit);

}  // namespace coral::codec
