// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "codec/tensor_model.hpp"
#include "codec/zstd_context.hpp"
#include "coral/base/hash.hpp"
#include "coral/codec/segment_codec.hpp"

namespace coral::codec {
namespace {

// Room for base bytes, kept by the thread for the next chunk. Reading a base may decode it, and its base: one each.
class BaseBytes {
  public:
    explicit BaseBytes(std::size_t size) : size_(size) {
        if (!spare().empty()) {
            bytes_ = std::move(spare().back());
            spare().pop_back();
        }
        if (bytes_.size() < size) bytes_.resize(size);
    }
    ~BaseBytes() {
        if (spare().size() < 4) spare().push_back(std::move(bytes_));
    }
    BaseBytes(const BaseBytes&) = delete;
    BaseBytes& operator=(const BaseBytes&) = delete;
    MutableBytes get() { return MutableBytes(bytes_).first(size_); }

  private:
    static std::vector<Buffer>& spare() {
        thread_local std::vector<Buffer> all;
        return all;
    }
    std::size_t size_;
    Buffer bytes_;
};

// The base bytes of a chunk: with a cast, those beyond the first segment are in the second, which follows it.
Status read_base(const SegmentHeader& header, std::uint32_t index, const BaseReader& base, MutableBytes out) {
    const DeltaModel& model = *header.model->delta;
    const std::uint8_t slot = header.chunks[index].base_slot;
    const std::uint64_t at = std::uint64_t{index} << header.chunk_log2;
    std::uint64_t begin = base_range(model, header.hint, header.bases[slot].offset, at, out.size()).begin;
    if (model.cast == 0 || slot == 0) return base(slot, begin, out);
    begin = base_range(model, header.hint, header.bases[0].offset, at, out.size()).begin;
    if (begin < kMaxSegment) return make_error(Errc::kCorrupt, "chunk of the wrong base");
    return base(slot, begin - kMaxSegment, out);
}

Status fill_delta(const SegmentHeader& header, std::uint32_t index, Bytes stored, const BaseReader& base,
                  MutableBytes out) {
    const DeltaModel& model = *header.model->delta;
    const std::uint8_t slot = header.chunks[index].base_slot;
    if (slot >= header.bases.size() || !base) return make_error(Errc::kCorrupt, "chunk of no base");
    if (model.needs_before() && header.bases.size() != 2) return make_error(Errc::kCorrupt, "no state before the base");
    BaseBytes base_bytes(base_range(model, header.hint, 0, 0, out.size()).length);
    CORAL_CHECK(read_base(header, index, base, base_bytes.get()));
    BaseBytes before(model.needs_before() ? out.size() : 0);
    if (model.needs_before()) {
        const auto other = static_cast<std::uint8_t>(1 - slot);
        std::uint64_t at = header.bases[other].offset + (std::uint64_t{index} << header.chunk_log2);
        CORAL_CHECK(base(other, at, before.get()));
    }
    BaseBytes first(model.adam ? out.size() : 0), second(model.adam ? out.size() : 0);
    if (model.adam) {
        const std::uint64_t at = std::uint64_t{index} << header.chunk_log2;
        CORAL_CHECK(base(1, header.bases[1].offset + at, first.get()));
        CORAL_CHECK(base(2, header.bases[2].offset + at, second.get()));
    }
    return decode_delta(kernels(), model, header.hint, stored,
                        {base_bytes.get(), before.get(), first.get(), second.get()}, out);
}

Status fill(const SegmentHeader& header, std::uint32_t index, Bytes stored, const BaseReader& base, MutableBytes out) {
    const Chunk& chunk = header.chunks[index];
    switch (chunk.mode) {
        case Mode::kRaw:
            if (stored.size() != out.size()) return make_error(Errc::kCorrupt, "raw chunk of a wrong length");
            // A caller may have read the bytes to where they belong.
            if (stored.data() != out.data()) std::memcpy(out.data(), stored.data(), out.size());
            return {};
        case Mode::kZstd:
            return zstd_decompress(stored, header.chunk_log2, out);
        case Mode::kCopy: {
            if (chunk.base_slot >= header.bases.size() || !base) return make_error(Errc::kCorrupt, "copy of no base");
            std::uint64_t begin = header.bases[chunk.base_slot].offset;
            if (!checked_add(begin, std::uint64_t{index} << header.chunk_log2, begin)) {
                return make_error(Errc::kCorrupt, "copy beyond any base");
            }
            return base(chunk.base_slot, begin, out);
        }
        case Mode::kSolo:
            if (!header.model || !header.model->solo) return make_error(Errc::kCorrupt, "chunk without its tables");
            return decode_solo(kernels(), *header.model->solo, header.hint, stored, out,
                               std::size_t{index} << header.chunk_log2);
        case Mode::kDelta: {
            if (!header.model || !header.model->delta) return make_error(Errc::kCorrupt, "chunk without its tables");
            return fill_delta(header, index, stored, base, out);
        }
        case Mode::kPalette:
            if (!header.model || !header.model->palette) return make_error(Errc::kCorrupt, "chunk without its palette");
            return decode_palette(kernels(), *header.model->palette, header.hint, stored, out);
        default:
            break;
    }
    return make_error(Errc::kUnsupported, fmt::format("chunk mode {}", static_cast<unsigned>(chunk.mode)));
}

}  // namespace

Status decode_chunk(const SegmentHeader& header, std::uint32_t index, Bytes stored, const BaseReader& base,
                    MutableBytes out) {
    if (index >= header.chunk_count() || out.size() != header.chunk_raw_length(index)) {
        return make_error(Errc::kInvalid, fmt::format("no chunk {} of {} bytes", index, out.size()));
    }
    if (Status filled = fill(header, index, stored, base, out); !filled) {
        return std::move(filled).error().with(fmt::format("chunk {}", index));
    }
    if (xxh3_64(out) != header.chunks[index].raw_sum) {
        return make_error(Errc::kCorrupt, fmt::format("chunk {}: the checksum of its decoded bytes is wrong", index));
    }
    return {};
}

Result<Buffer> decompress_small(Bytes stored, std::uint64_t raw_length, std::uint64_t limit) {
    if (raw_length > limit) return make_error(Errc::kCorrupt, fmt::format("claims {} bytes", raw_length));
    if (zstd_claimed_length(stored) != raw_length) {
        return make_error(Errc::kCorrupt, "zstd frame of another length than its record says");
    }
    Buffer out(static_cast<std::size_t>(raw_length));
    CORAL_CHECK(zstd_decompress(stored, 27, out));
    return out;
}

}  // namespace coral::codec
