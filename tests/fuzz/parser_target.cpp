// SPDX-License-Identifier: Apache-2.0
// One parser of src/formats, named in CORAL_FUZZ_PARSER, on any bytes: no crash, and a layout keeps its promises.
#include "coral/formats/layout.hpp"
#include "fuzz/fuzz.hpp"

using namespace coral;
using namespace coral::formats;

namespace {

void check(const Layout& layout, std::uint64_t file_size) {
    std::uint64_t end = 0;
    fuzz::require(layout.parser != Parser::kNone && layout.version != 0, "a layout says who made it");
    for (const Tensor& tensor : layout.tensors) {
        fuzz::require(tensor.offset >= end && tensor.offset <= file_size, "tensors are sorted and do not overlap");
        fuzz::require(tensor.length <= file_size - tensor.offset, "tensors lie inside the file");
        fuzz::require(tensor.name.size() <= 1024 && tensor.shape.size() <= 64, "names and shapes have limits");
        fuzz::require(!tensor.big_endian || dtype_width(tensor.dtype) > 1, "bytes have no order");
        end = tensor.offset + tensor.length;
        if (dtype_bits(tensor.dtype) == 0) continue;
        // In the order of the dimensions: one of 0 may follow a huge one.
        std::uint64_t count = 1, bits = 0;
        bool fits = true;
        for (std::uint64_t dimension : tensor.shape) fits = fits && checked_mul<std::uint64_t>(count, dimension, count);
        fits = fits && checked_mul<std::uint64_t>(count, dtype_bits(tensor.dtype), bits);
        fuzz::require(fits && bits % 8 == 0 && bits / 8 == tensor.length, "a shape tells the length");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const MemorySource source(fuzz::bytes_of(data, size));
    const Result<std::optional<Layout>> layout = CORAL_FUZZ_PARSER(source);
    fuzz::require(layout.ok(), "only a source fails");
    if (*layout) check(**layout, size);
    return 0;
}
