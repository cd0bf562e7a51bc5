// SPDX-License-Identifier: Apache-2.0
// The pickle machine alone: inside a zip few mutations would reach it.
#include "formats/pickle.hpp"
#include "fuzz/fuzz.hpp"

using namespace coral;
using namespace coral::formats;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const MemorySource source(fuzz::bytes_of(data, size));
    SourceReader reader(source, 0, size);
    TorchPickle pickle;
    pickle.read(reader);
    std::vector<std::uint64_t> shape;
    pickle.walk([&](std::uint32_t storage, const PickledTensor* tensor, std::string_view) {
        fuzz::require(storage < pickle.storages().size(), "a walk shows storages that there are");
        if (tensor) pickle.dense_shape(*tensor, shape);
    });
    return 0;
}
