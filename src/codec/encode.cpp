// SPDX-License-Identifier: Apache-2.0
// The generic coder: every chunk is a copy of base bytes, a zstd frame, or raw.
#include <algorithm>
#include <cstring>

#include "codec/zstd_context.hpp"
#include "coral/base/hash.hpp"
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
std::vector<std::uint64_t> find_copies(Bytes raw, Hint hint, std::span<const Base> bases) {
    std::size_t chunks = (raw.size() + kChunkSize - 1) >> kChunkLog2;
    std::vector<std::uint64_t> copies(chunks, 0);
    for (std::size_t b = 0; b < std::min<std::size_t>(bases.size(), 64); ++b) {
        const Base& base = bases[b];
        if (base.depth >= kMaxDepth || base.offset >= kMaxSegment || base.offset % hint.width != 0) continue;
        for (std::size_t c = 0; c < chunks; ++c) {
            std::size_t begin = c << kChunkLog2;
            if (equal_to_base(raw, begin, std::min<std::size_t>(kChunkSize, raw.size() - begin), base)) {
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
    while (chosen.size() < kMaxBases) {
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
bool append_zstd(Bytes raw, int level, bool noise_before, Buffer& payload) {
    thread_local Buffer scratch(zstd_bound(kChunkSize));
    thread_local Buffer decoded(kChunkSize);
    if (raw.size() < 32 || !seems_compressible(raw, noise_before, scratch)) return false;
    std::size_t limit = raw.size() - (raw.size() >> kGainShift) - 1;
    std::size_t got = zstd_compress(raw, level, MutableBytes(scratch).first(limit));
    if (got == 0) return false;
    MutableBytes check = MutableBytes(decoded).first(raw.size());
    Bytes frame = Bytes(scratch).first(got);
    if (!zstd_decompress(frame, kChunkLog2, check) || std::memcmp(check.data(), raw.data(), raw.size()) != 0) {
        return false;  // a fault of memory or of zstd: raw bytes are always right
    }
    payload.insert(payload.end(), frame.begin(), frame.end());
    return true;
}

Status verify_copies(const Encoded& e, Bytes raw) {
    // RAW and COPY chunks were compared or copied above; this catches a fault between there and here at memcmp speed.
    for (std::uint32_t i = 0; i < e.header.chunk_count(); ++i) {
        if (e.header.chunks[i].mode != Mode::kRaw) continue;
        std::size_t begin = static_cast<std::size_t>(i) << kChunkLog2;
        if (std::memcmp(e.payload.data() + e.header.chunk_stored_begin(i), raw.data() + begin,
                        e.header.chunk_raw_length(i)) != 0) {
            return make_error(Errc::kInternal, "encoded segment does not decode to its bytes");
        }
    }
    return {};
}

}  // namespace

Result<Encoded> encode_segment(Bytes raw, Hint hint, std::span<const Base> bases, Level level) {
    if (raw.empty() || raw.size() > kMaxSegment) return make_error(Errc::kInvalid, "segment of a wrong length");
    if (Hint::unpack(hint.pack()) != hint) return make_error(Errc::kInvalid, "segment hint of a wrong width");
    std::vector<std::uint64_t> copies = find_copies(raw, hint, bases);
    std::vector<std::size_t> chosen = choose_bases(copies, bases.size());

    Encoded e;
    e.header.raw_length = static_cast<std::uint32_t>(raw.size());
    e.header.hint = hint;
    for (std::size_t b : chosen) {
        e.header.bases.push_back({bases[b].id, bases[b].offset});
        e.header.depth = std::max<std::uint8_t>(e.header.depth, static_cast<std::uint8_t>(bases[b].depth + 1));
    }
    e.header.chunks.reserve(copies.size());
    for (std::size_t c = 0; c < copies.size(); ++c) {
        std::size_t begin = c << kChunkLog2;
        Bytes part = raw.subspan(begin, std::min<std::size_t>(kChunkSize, raw.size() - begin));
        Chunk chunk;
        chunk.raw_sum = xxh3_64(part);
        bool noise_before = c > 0 && e.header.chunks.back().mode == Mode::kRaw;
        auto slot =
            std::find_if(chosen.begin(), chosen.end(), [&](std::size_t b) { return (copies[c] >> b & 1) != 0; });
        if (slot != chosen.end()) {
            chunk.mode = Mode::kCopy;
            chunk.base_slot = static_cast<std::uint8_t>(slot - chosen.begin());
        } else if (append_zstd(part, zstd_level(level, hint), noise_before, e.payload)) {
            chunk.mode = Mode::kZstd;
        } else {
            if (e.payload.empty()) e.payload.reserve(raw.size() - begin);
            e.payload.insert(e.payload.end(), part.begin(), part.end());
        }
        chunk.stored_end = static_cast<std::uint32_t>(e.payload.size());
        e.header.chunks.push_back(chunk);
    }
    CORAL_CHECK(verify_copies(e, raw));
    return e;
}

Buffer compress_small(Bytes raw, int level) {
    Buffer out(zstd_bound(raw.size()));
    out.resize(zstd_compress(raw, level, out));
    return out;
}

}  // namespace coral::codec
