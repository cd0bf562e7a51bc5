// SPDX-License-Identifier: Apache-2.0
// The header of a segment as it lies in SEGMENT and GROUP records (docs/format.md, "Segment header").
#include <fmt/format.h>

#include <algorithm>

#include "codec/tensor_model.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {
namespace {

constexpr std::uint8_t kMinChunkLog2 = 12;
constexpr std::uint8_t kMaxChunkLog2 = 20;
constexpr std::uint32_t kMaxTables = 64u << 10;

Error lie(std::string what) {
    return make_error(Errc::kCorrupt, "segment header: " + std::move(what));
}

Status check_chunk(const SegmentHeader& h, std::uint32_t index, std::uint16_t reserved) {
    const Chunk& c = h.chunks[index];
    std::uint32_t begin = h.chunk_stored_begin(index);
    if (c.stored_end < begin) return lie(fmt::format("chunk {} ends before it begins", index));
    std::uint32_t stored = c.stored_end - begin;
    std::uint32_t raw = h.chunk_raw_length(index);
    if (reserved != 0) return lie(fmt::format("chunk {} has reserved bits", index));
    if (stored > raw) return lie(fmt::format("chunk {} stores {} bytes for {}", index, stored, raw));
    switch (c.mode) {
        case Mode::kRaw:
            if (stored != raw) return lie(fmt::format("raw chunk {} stores {} bytes for {}", index, stored, raw));
            break;
        case Mode::kZstd:
            if (stored == 0) return lie(fmt::format("zstd chunk {} is empty", index));
            break;
        case Mode::kCopy:
            if (stored != 0) return lie(fmt::format("copy chunk {} has stored bytes", index));
            if (c.base_slot >= h.bases.size()) return lie(fmt::format("chunk {} copies from no base", index));
            break;
        case Mode::kSolo:
            if (!h.model || !h.model->solo) return lie(fmt::format("chunk {} has no tables", index));
            break;
        case Mode::kDelta:
            if (!h.model || !h.model->delta) return lie(fmt::format("chunk {} has no tables", index));
            if (c.base_slot >= h.bases.size()) return lie(fmt::format("chunk {} differs from no base", index));
            if (h.model->delta->adam && (c.base_slot != 0 || h.bases.size() != kMaxBases)) {
                return lie(fmt::format("chunk {} lacks what its formula is about", index));
            }
            break;
        case Mode::kPalette:
            if (!h.model || !h.model->palette) return lie(fmt::format("chunk {} has no palette", index));
            break;
        default:
            return lie(fmt::format("chunk {} has mode {}", index, static_cast<unsigned>(c.mode)));
    }
    if (c.mode != Mode::kCopy && c.mode != Mode::kDelta && c.base_slot != 0)
        return lie(fmt::format("chunk {} names a base in vain", index));
    return {};
}

Status check_fixed(const SegmentHeader& h, std::uint16_t packed_hint, std::uint8_t nbase, std::uint8_t reserved) {
    if (h.raw_length == 0 || h.raw_length > kMaxSegment) return lie(fmt::format("raw length {}", h.raw_length));
    if (h.chunk_log2 < kMinChunkLog2 || h.chunk_log2 > kMaxChunkLog2) {
        return lie(fmt::format("chunk size 2^{}", h.chunk_log2));
    }
    if (h.hint.pack() != packed_hint) return lie(fmt::format("hint {:#x}", packed_hint));
    if (h.coder < Coder::kGeneric || h.coder > Coder::kTensor4) {
        return make_error(Errc::kUnsupported, fmt::format("segment header: coder {} needs a newer CoralFS",
                                                          static_cast<unsigned>(h.coder)));
    }
    if (reserved != 0) return lie("reserved byte is set");
    if (nbase > (h.coder < Coder::kTensor4 ? kPlainBases : kMaxBases)) return lie(fmt::format("{} bases", nbase));
    if (h.depth > kMaxDepth || (h.depth == 0) != (nbase == 0)) {
        return lie(fmt::format("depth {} with {} bases", h.depth, nbase));
    }
    return {};
}

}  // namespace

std::uint16_t Hint::pack() const {
    unsigned log2 = width == 8 ? 3 : width == 4 ? 2 : width == 2 ? 1 : 0;
    return static_cast<std::uint16_t>(log2 | static_cast<unsigned>(element) << 2 | (big_endian ? 1u : 0u) << 4 |
                                      static_cast<unsigned>(detail) << 8);
}

Hint Hint::unpack(std::uint16_t packed) {
    Hint h;
    h.width = static_cast<std::uint8_t>(1u << (packed & 3));
    unsigned element = packed >> 2 & 3;
    h.element = element > 2 ? Class::kBytes : static_cast<Class>(element);
    h.big_endian = (packed >> 4 & 1) != 0;
    h.detail = static_cast<std::uint8_t>(packed >> 8);
    return h;
}

std::uint32_t SegmentHeader::chunk_raw_length(std::uint32_t index) const {
    std::uint64_t begin = static_cast<std::uint64_t>(index) << chunk_log2;
    if (begin >= raw_length) return 0;
    std::uint64_t left = raw_length - begin;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(left, std::uint64_t{1} << chunk_log2));
}

std::optional<BaseRef> SegmentHeader::earlier_state() const {
    if (model && model->delta && model->delta->cast != 0) return std::nullopt;
    for (const Chunk& c : chunks) {
        if (c.mode == Mode::kDelta || c.mode == Mode::kCopy) return bases[c.base_slot];
    }
    return std::nullopt;
}

bool SegmentHeader::by_formula() const {
    return model && model->delta && model->delta->adam;
}

std::uint64_t SegmentHeader::memory() const {
    std::uint64_t bytes = sizeof *this + chunks.size() * sizeof(Chunk) + bases.size() * sizeof(BaseRef) + tables.size();
    return bytes + (model ? model->memory() : 0);
}

void write_header(const SegmentHeader& header, Buffer& out) {
    ByteWriter w(out);
    w.u32(header.raw_length).u16(header.hint.pack()).u16(static_cast<std::uint16_t>(header.coder));
    w.u8(header.chunk_log2).u8(header.depth).u8(static_cast<std::uint8_t>(header.bases.size())).u8(0);
    w.u32(static_cast<std::uint32_t>(header.tables.size()));
    for (const BaseRef& base : header.bases) w.id(base.id).u64(base.offset);
    w.raw(header.tables);
    for (const Chunk& c : header.chunks) {
        w.u32(c.stored_end).u8(static_cast<std::uint8_t>(c.mode)).u8(c.base_slot).u16(0).u64(c.raw_sum);
    }
}

Result<SegmentHeader> read_header(Bytes bytes, std::uint64_t payload_length) {
    ByteReader r(bytes);
    SegmentHeader h;
    h.raw_length = r.u32();
    std::uint16_t packed_hint = r.u16();
    h.hint = Hint::unpack(packed_hint);
    h.coder = static_cast<Coder>(r.u16());
    h.chunk_log2 = r.u8();
    h.depth = r.u8();
    std::uint8_t nbase = r.u8();
    std::uint8_t reserved = r.u8();
    std::uint32_t tables = r.u32();
    if (!r.ok()) return lie("cut off");
    CORAL_CHECK(check_fixed(h, packed_hint, nbase, reserved));
    for (std::uint8_t i = 0; i < nbase; ++i) {
        BaseRef base{r.id<SegmentId>(), r.u64()};
        if (base.offset >= kMaxSegment || base.offset % h.hint.width != 0) {
            return lie(fmt::format("base offset {}", base.offset));
        }
        h.bases.push_back(base);
    }
    if (h.coder == Coder::kGeneric) {
        if (tables != 0) return lie(fmt::format("{} bytes of tables for a coder without", tables));
    } else {
        if (tables > kMaxTables || tables > r.left()) return lie(fmt::format("{} bytes of tables", tables));
        Bytes raw_tables = r.take(tables);
        h.tables.assign(raw_tables.begin(), raw_tables.end());
        auto model = TensorModel::read(h.tables, h.hint, h.coder);
        if (!model) return lie(model.error().message);
        h.model = std::move(*model);
    }
    std::uint64_t count = (std::uint64_t{h.raw_length} + (1u << h.chunk_log2) - 1) >> h.chunk_log2;
    if (!r.ok() || r.left() != count * 16) return lie(fmt::format("{} bytes for {} chunks", r.left(), count));
    h.chunks.resize(static_cast<std::size_t>(count));
    for (std::uint32_t i = 0; i < count; ++i) {
        Chunk& c = h.chunks[i];
        c.stored_end = r.u32();
        c.mode = static_cast<Mode>(r.u8());
        c.base_slot = r.u8();
        std::uint16_t chunk_reserved = r.u16();
        c.raw_sum = r.u64();
        CORAL_CHECK(check_chunk(h, i, chunk_reserved));
    }
    if (h.chunks.back().stored_end != payload_length) {
        return lie(fmt::format("chunks end at {} of {} stored bytes", h.chunks.back().stored_end, payload_length));
    }
    return h;
}

}  // namespace coral::codec
