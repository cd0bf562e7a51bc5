// SPDX-License-Identifier: Apache-2.0
// The records of a pack as recovery meets them: the first byte says what the rest is taken for. Sums are not asked, so
// that what lies behind them is reached.
#include "fuzz/fuzz.hpp"
#include "store/records.hpp"

using namespace coral;
using namespace coral::store;

namespace {

// A record from its start: fixed part, kind-specific part, what the index would keep of it.
void read_record(Bytes bytes) {
    if (bytes.size() < kRecordFixed) return;
    Result<RecordHeader> header = peek_record(bytes.first(kRecordFixed));
    if (!header.ok()) return;
    fuzz::require(header->header_length >= kRecordMinimum && header->header_length <= kMaxHeader,
                  "headers are bounded");
    fuzz::require(header->payload_length <= kMaxPayload, "payloads are bounded");
    if (header->header_length > bytes.size()) return;
    const Bytes specific = bytes.subspan(kRecordFixed, static_cast<std::size_t>(header->specific_length()));
    static_cast<void>(check_header_sum(bytes.first(header->header_length), Uuid{}, 0));
    static_cast<void>(index_entry(*header, specific, 0, 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const Bytes bytes = fuzz::bytes_of(data + 1, size - 1);
    switch (data[0] % 8) {
        case 0:
            read_record(bytes);
            break;
        case 1:
            static_cast<void>(decode_group(bytes, 1 << 20));
            break;
        case 2:
            static_cast<void>(decode_file_header(bytes));
            break;
        case 3:
            static_cast<void>(decode_footer(bytes, Uuid{}, 1 << 20));
            break;
        case 4:
            for (std::uint64_t count : {1, 2, 3, 1000}) static_cast<void>(decode_index(bytes, count, 1 << 20));
            break;
        case 5:
            static_cast<void>(decode_object_specific(Kind::kFile, bytes));
            static_cast<void>(decode_object_specific(Kind::kTree, bytes));
            break;
        case 6:
            static_cast<void>(codec::decompress_small(bytes, 1 << 16, 1 << 20));
            break;
        default:
            break;
    }
    return 0;
}
