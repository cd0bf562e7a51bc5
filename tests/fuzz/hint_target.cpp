// SPDX-License-Identifier: Apache-2.0
// The payloads of REF and WORK records.
#include <algorithm>

#include "coral/store/store.hpp"
#include "fuzz/fuzz.hpp"

using namespace coral;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const Bytes bytes = fuzz::bytes_of(data, size);
    if (Result<store::RefHint> hint = store::decode_ref_hint(bytes); hint.ok()) {
        fuzz::require(std::ranges::equal(store::encode_ref_hint(*hint), bytes), "a REF payload is canonical");
    }
    if (Result<store::WorkHint> hint = store::decode_work_hint(bytes); hint.ok()) {
        fuzz::require(store::decode_work_hint(store::encode_work_hint(*hint)).ok(), "a WORK payload is read again");
    }
    return 0;
}
