// SPDX-License-Identifier: Apache-2.0
// The objects of history: the first byte says which, the rest is its canonical encoding or is refused.
#include <algorithm>

#include "coral/repo/objects.hpp"
#include "fuzz/fuzz.hpp"

using namespace coral;

namespace {

template <class Object>
void read(Bytes bytes, Result<Object> (*decode)(Bytes), Buffer (*encode)(const Object&)) {
    const Result<Object> object = decode(bytes);
    if (object.ok()) fuzz::require(std::ranges::equal(encode(*object), bytes), "what is decoded is canonical");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const Bytes bytes = fuzz::bytes_of(data + 1, size - 1);
    switch (data[0] % 4) {
        case 0:
            read<repo::Tree>(bytes, repo::decode_tree, repo::encode_tree);
            break;
        case 1:
            read<repo::Commit>(bytes, repo::decode_commit, repo::encode_commit);
            break;
        case 2:
            read<repo::Tag>(bytes, repo::decode_tag, repo::encode_tag);
            break;
        default:
            read<repo::Xattrs>(bytes, repo::decode_xattrs, repo::encode_xattrs);
    }
    return 0;
}
