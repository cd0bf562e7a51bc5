// SPDX-License-Identifier: Apache-2.0
// The payload of a FILE record.
#include <algorithm>

#include "coral/store/store.hpp"
#include "fuzz/fuzz.hpp"

using namespace coral;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const Bytes bytes = fuzz::bytes_of(data, size);
    const Result<store::FileRecord> record = store::decode_file_record(FileId{}, bytes);
    if (!record.ok()) return 0;
    fuzz::require(std::ranges::equal(store::encode_file_record(*record), bytes), "a FILE payload is canonical");
    fuzz::require(record->positions.size() == record->extents.size(), "every extent has a place");
    return 0;
}
