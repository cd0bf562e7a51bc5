// SPDX-License-Identifier: Apache-2.0
// A segment: u32 length of the header, the header, the payload. Every decoder of every coder, on chunks that nobody
// has checked.
#include <algorithm>

#include "coral/codec/segment_codec.hpp"
#include "fuzz/fuzz.hpp"

using namespace coral;
using namespace coral::codec;

namespace {

constexpr std::uint32_t kMaxChunks = 4;  // more of them only take longer

Status read_base(std::uint8_t slot, std::uint64_t begin, MutableBytes out) {
    fuzz::require(slot < kMaxBases, "a chunk's base is one of the segment's");
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = fuzz::base_byte(begin + i);
    return {};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteReader in(fuzz::bytes_of(data, size));
    const Bytes head = in.take(in.u32());
    if (!in.ok()) return 0;
    const Bytes payload = in.take(in.left());
    Result<SegmentHeader> header = read_header(head, payload.size());
    if (!header.ok()) return 0;
    Buffer again;
    write_header(*header, again);
    fuzz::require(std::ranges::equal(again, head), "a header that is read is one that is written");
    for (std::uint32_t i = 0; i < std::min(header->chunk_count(), kMaxChunks); ++i) {
        const std::uint32_t begin = header->chunk_stored_begin(i), end = header->chunks[i].stored_end;
        fuzz::require(begin <= end && end <= payload.size(), "chunks lie in the payload");
        fuzz::require(header->chunk_raw_length(i) <= kChunkSize, "chunks have a size");
        Buffer out(header->chunk_raw_length(i));
        static_cast<void>(decode_chunk(*header, i, payload.subspan(begin, end - begin), read_base, out));
    }
    return 0;
}
