// SPDX-License-Identifier: Apache-2.0
#include "coral/formats/layout.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace coral::formats {

namespace {

struct DtypeRow {
    Dtype dtype;
    std::string_view name;
    std::uint32_t bits;   // 0: unknown
    std::uint32_t width;  // of the unit that codecs work on
    bool is_float;        // each unit is sign, exponent and mantissa
};

// Names as in safetensors (github.com/huggingface/safetensors, safetensors/src/tensor.rs, Dtype); the last rows of the
// kinds that it lacks follow the same pattern. F80 is an x86 long double as NumPy stores it, in 16 bytes. F8_E8M0 has
// neither sign nor mantissa, F4 and F6 are packed: no unit of theirs is a float.
constexpr std::array kDtypes{
    DtypeRow{Dtype::kUnknown, "UNKNOWN", 0, 1, false},
    DtypeRow{Dtype::kBool, "BOOL", 8, 1, false},
    DtypeRow{Dtype::kU8, "U8", 8, 1, false},
    DtypeRow{Dtype::kI8, "I8", 8, 1, false},
    DtypeRow{Dtype::kU16, "U16", 16, 2, false},
    DtypeRow{Dtype::kI16, "I16", 16, 2, false},
    DtypeRow{Dtype::kU32, "U32", 32, 4, false},
    DtypeRow{Dtype::kI32, "I32", 32, 4, false},
    DtypeRow{Dtype::kU64, "U64", 64, 8, false},
    DtypeRow{Dtype::kI64, "I64", 64, 8, false},
    DtypeRow{Dtype::kF16, "F16", 16, 2, true},
    DtypeRow{Dtype::kBF16, "BF16", 16, 2, true},
    DtypeRow{Dtype::kF32, "F32", 32, 4, true},
    DtypeRow{Dtype::kF64, "F64", 64, 8, true},
    DtypeRow{Dtype::kC64, "C64", 64, 4, true},
    DtypeRow{Dtype::kC128, "C128", 128, 8, true},
    DtypeRow{Dtype::kF8E4M3, "F8_E4M3", 8, 1, true},
    DtypeRow{Dtype::kF8E5M2, "F8_E5M2", 8, 1, true},
    DtypeRow{Dtype::kF8E8M0, "F8_E8M0", 8, 1, false},
    DtypeRow{Dtype::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8, 1, true},
    DtypeRow{Dtype::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8, 1, true},
    DtypeRow{Dtype::kF4, "F4", 4, 1, false},
    DtypeRow{Dtype::kF6E2M3, "F6_E2M3", 6, 1, false},
    DtypeRow{Dtype::kF6E3M2, "F6_E3M2", 6, 1, false},
    DtypeRow{Dtype::kQuantised, "QUANTISED", 0, 1, false},
    DtypeRow{Dtype::kF80, "F80", 128, 8, false},
};

constexpr bool rows_match_numbers() {
    for (std::size_t i = 0; i < kDtypes.size(); ++i) {
        if (static_cast<std::size_t>(kDtypes[i].dtype) != i) return false;
    }
    return true;
}
static_assert(rows_match_numbers());

// A number read from a file record may be anything: what is not in the table counts as unknown.
const DtypeRow& row(Dtype dtype) {
    auto i = static_cast<std::size_t>(dtype);
    return i < kDtypes.size() ? kDtypes[i] : kDtypes[0];
}

}  // namespace

std::string_view dtype_name(Dtype dtype) {
    return row(dtype).name;
}

std::optional<Dtype> dtype_from_name(std::string_view name) {
    auto it = std::find_if(kDtypes.begin(), kDtypes.end(), [name](const DtypeRow& r) { return r.name == name; });
    if (it == kDtypes.end()) return std::nullopt;
    return it->dtype;
}

std::uint32_t dtype_bits(Dtype dtype) {
    return row(dtype).bits;
}
std::uint32_t dtype_width(Dtype dtype) {
    return row(dtype).width;
}
bool dtype_is_float(Dtype dtype) {
    return row(dtype).is_float;
}

Status MemorySource::read_at(std::uint64_t offset, MutableBytes out) const {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
        return make_error(Errc::kIo, "read past the end of a memory source");
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
}

Result<std::optional<Layout>> parse_layout(const ByteSource& source) {
    // Each parser looks at its magic first, so a miss costs one small read. Those with the weakest come last.
    for (auto* parse :
         {parse_torch_zip, parse_npz, parse_npy, parse_gguf, parse_torch_legacy, parse_safetensors, parse_onnx}) {
        Result<std::optional<Layout>> layout = parse(source);
        if (!layout || layout->has_value()) return layout;
    }
    return std::optional<Layout>{};
}

}  // namespace coral::formats
