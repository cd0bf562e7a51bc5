// SPDX-License-Identifier: Apache-2.0
// GGUF 2 and 3 of llama.cpp: counts, typed key-value pairs, one row for each tensor, then the data, aligned.
// Spec: github.com/ggml-org/ggml, docs/gguf.md; sizes of blocks: src/ggml-common.h.
#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"
#include "formats/source_reader.hpp"
#include "formats/utf8.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF", in this order in files of either byte order
constexpr std::uint32_t kFirstVersion = 2, kLastVersion = 3;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::string_view kAlignmentKey = "general.alignment";

// Types of values, by their numbers; bytes of one. 8 is a text, 9 an array.
constexpr std::array<std::uint64_t, 13> kValueBytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr std::uint32_t kU32 = 4, kText = 8, kArray = 9;

struct TypeRow {
    std::uint32_t type;  // of ggml
    Dtype dtype;
    std::uint64_t block;  // elements
    std::uint64_t bytes;  // of a block
};
constexpr std::array kTypes{
    TypeRow{0, Dtype::kF32, 1, 4},
    TypeRow{1, Dtype::kF16, 1, 2},
    TypeRow{2, Dtype::kQuantised, 32, 18},     // Q4_0
    TypeRow{3, Dtype::kQuantised, 32, 20},     // Q4_1
    TypeRow{6, Dtype::kQuantised, 32, 22},     // Q5_0
    TypeRow{7, Dtype::kQuantised, 32, 24},     // Q5_1
    TypeRow{8, Dtype::kQuantised, 32, 34},     // Q8_0
    TypeRow{9, Dtype::kQuantised, 32, 36},     // Q8_1
    TypeRow{10, Dtype::kQuantised, 256, 84},   // Q2_K
    TypeRow{11, Dtype::kQuantised, 256, 110},  // Q3_K
    TypeRow{12, Dtype::kQuantised, 256, 144},  // Q4_K
    TypeRow{13, Dtype::kQuantised, 256, 176},  // Q5_K
    TypeRow{14, Dtype::kQuantised, 256, 210},  // Q6_K
    TypeRow{15, Dtype::kQuantised, 256, 292},  // Q8_K
    TypeRow{16, Dtype::kQuantised, 256, 66},   // IQ2_XXS
    TypeRow{17, Dtype::kQuantised, 256, 74},   // IQ2_XS
    TypeRow{18, Dtype::kQuantised, 256, 98},   // IQ3_XXS
    TypeRow{19, Dtype::kQuantised, 256, 50},   // IQ1_S
    TypeRow{20, Dtype::kQuantised, 32, 18},    // IQ4_NL
    TypeRow{21, Dtype::kQuantised, 256, 110},  // IQ3_S
    TypeRow{22, Dtype::kQuantised, 256, 82},   // IQ2_S
    TypeRow{23, Dtype::kQuantised, 256, 136},  // IQ4_XS
    TypeRow{24, Dtype::kI8, 1, 1},
    TypeRow{25, Dtype::kI16, 1, 2},
    TypeRow{26, Dtype::kI32, 1, 4},
    TypeRow{27, Dtype::kI64, 1, 8},
    TypeRow{28, Dtype::kF64, 1, 8},
    TypeRow{29, Dtype::kQuantised, 256, 56},  // IQ1_M
    TypeRow{30, Dtype::kBF16, 1, 2},
    TypeRow{34, Dtype::kQuantised, 256, 54},  // TQ1_0
    TypeRow{35, Dtype::kQuantised, 256, 66},  // TQ2_0
    TypeRow{39, Dtype::kQuantised, 32, 17},   // MXFP4
    TypeRow{40, Dtype::kQuantised, 64, 36},   // NVFP4
    TypeRow{41, Dtype::kQuantised, 128, 18},  // Q1_0
};

const TypeRow* find_type(std::uint32_t type) {
    auto it = std::find_if(kTypes.begin(), kTypes.end(), [type](const TypeRow& row) { return row.type == type; });
    return it == kTypes.end() ? nullptr : &*it;
}

template <std::unsigned_integral T>
T swapped(T v) {
    T out = 0;
    for (std::size_t i = 0; i < sizeof v; ++i) out = static_cast<T>(out << 8 | ((v >> (8 * i)) & 0xff));
    return out;
}

class HeaderParser {
  public:
    HeaderParser(SourceReader& reader, std::uint64_t end) : reader_(reader), end_(end) {}

    // Offsets are in the file. False: not GGUF, or broken.
    bool parse(std::uint64_t file_size) {
        std::uint64_t tensors = 0, pairs = 0;
        if (!read_start() || !number(tensors) || !number(pairs) || tensors > kMaxTensors) return false;
        for (std::uint64_t i = 0; i < pairs; ++i) {
            if (!read_pair()) return false;
        }
        for (std::uint64_t i = 0; i < tensors; ++i) {
            if (!read_tensor()) return false;
        }
        return place(file_size);
    }

    std::vector<Tensor>& tensors() { return tensors_; }

  private:
    template <std::unsigned_integral T>
    bool number(T& out) {
        std::array<std::byte, sizeof(T)> raw;
        if (!reader_.read(raw)) return false;
        out = load_le<T>(raw.data());
        if (big_endian_) out = swapped(out);
        return true;
    }

    // The version tells the byte order: there will not be 65,536 of them.
    bool read_start() {
        std::uint32_t magic = 0, version = 0;
        if (!number(magic) || magic != kMagic || !number(version)) return false;
        if ((version & 0xffff) == 0) {
            big_endian_ = true;
            version = swapped(version);
        }
        return version >= kFirstVersion && version <= kLastVersion;
    }

    // A key or a name, of which none is empty: a file with a hole of zeros is broken. Too long for a name, or no UTF-8,
    // it counts as unknown, and `out` is empty.
    bool name(std::string& out) {
        std::uint64_t length = 0;
        out.clear();
        if (!number(length) || length == 0) return false;
        if (length > kMaxNameLength) return reader_.skip(length);
        out.resize(static_cast<std::size_t>(length));
        if (!reader_.read(std::as_writable_bytes(std::span(out)))) return false;
        if (!is_utf8(out)) out.clear();
        return true;
    }

    bool skip_text() {
        std::uint64_t length = 0;
        return number(length) && reader_.skip(length);
    }

    bool read_pair() {
        std::uint32_t type = 0;
        if (!name(key_) || !number(type)) return false;
        if (key_ != kAlignmentKey) return skip_value(type, 0);
        std::uint32_t alignment = 0;
        if (type != kU32 || !number(alignment) || !std::has_single_bit(alignment)) return false;
        alignment_ = alignment;
        return true;
    }

    bool skip_value(std::uint32_t type, std::size_t depth) {
        if (type == kText) return skip_text();
        if (type == kArray) return depth < kMaxGgufDepth && skip_array(depth + 1);
        return type < kValueBytes.size() && reader_.skip(kValueBytes[type]);
    }

    bool skip_array(std::size_t depth) {
        std::uint32_t type = 0;
        std::uint64_t count = 0, bytes = 0;
        if (!number(type) || !number(count) || type >= kValueBytes.size()) return false;
        if (type != kText && type != kArray) {
            return checked_mul<std::uint64_t>(count, kValueBytes[type], bytes) && reader_.skip(bytes);
        }
        for (std::uint64_t i = 0; i < count; ++i) {  // each takes bytes, so the file ends a lie
            if (!skip_value(type, depth)) return false;
        }
        return true;
    }

    // Offsets are still relative to the data, and unknown types without a length.
    bool read_tensor() {
        Tensor tensor;
        std::uint32_t rank = 0, type = 0;
        if (!name(tensor.name) || !number(rank) || rank > kMaxRank || !budget_.take_shape(rank)) return false;
        tensor.shape.resize(rank);
        // The file has the innermost dimension first.
        for (std::uint32_t i = rank; i-- > 0;) {
            if (!number(tensor.shape[i])) return false;
        }
        if (!number(type) || !number(tensor.offset) || !budget_.take_tensor()) return false;
        if (tensor.name.empty() || !budget_.take_name(tensor.name.size())) {
            tensor.name = "tensor:" + std::to_string(tensors_.size());
        }
        const TypeRow* row = find_type(type);
        if (row && !measure(*row, tensor)) return false;
        open_end_.push_back(!row);
        tensors_.push_back(std::move(tensor));
        return true;
    }

    // Blocks do not reach from one row into the next.
    bool measure(const TypeRow& row, Tensor& tensor) const {
        std::optional<std::uint64_t> count = element_count(tensor.shape);
        const std::uint64_t inner = tensor.shape.empty() ? 1 : tensor.shape.back();
        if (!count || inner % row.block != 0) return false;
        tensor.dtype = row.dtype;
        tensor.big_endian = big_endian_ && dtype_width(row.dtype) > 1;
        return checked_mul<std::uint64_t>(*count / row.block, row.bytes, tensor.length);
    }

    // The data starts at the next multiple of the alignment, as does each tensor in it. One of an unknown type goes on
    // to the next tensor.
    bool place(std::uint64_t file_size) {
        const std::uint64_t header = end_ - reader_.left();
        const std::uint64_t start = header + (alignment_ - header % alignment_) % alignment_;
        if (reader_.error() || (!tensors_.empty() && start > file_size)) return false;
        for (Tensor& tensor : tensors_) {
            if (tensor.offset % alignment_ != 0 || tensor.offset > file_size - start) return false;
            tensor.offset += start;
        }
        std::vector<std::uint64_t> begins;
        for (const Tensor& tensor : tensors_) begins.push_back(tensor.offset);
        begins.push_back(file_size);
        std::sort(begins.begin(), begins.end());
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            if (!open_end_[i]) continue;
            auto next = std::upper_bound(begins.begin(), begins.end(), tensors_[i].offset);
            if (next != begins.end()) tensors_[i].length = *next - tensors_[i].offset;
        }
        return true;
    }

    SourceReader& reader_;
    std::uint64_t end_;
    LayoutBudget budget_;
    std::vector<Tensor> tensors_;
    std::vector<bool> open_end_;  // for each tensor, whether its length is not known
    std::string key_;
    std::uint64_t alignment_ = kDefaultAlignment;
    bool big_endian_ = false;
};

}  // namespace

Result<std::optional<Layout>> parse_gguf(const ByteSource& source) {
    std::array<std::byte, 4> magic;
    if (source.size() < magic.size()) return std::optional<Layout>{};
    CORAL_CHECK(source.read_at(0, magic));
    if (load_le<std::uint32_t>(magic.data()) != kMagic) return std::optional<Layout>{};
    const std::uint64_t end = std::min(source.size(), kMaxGgufHeader);
    SourceReader reader(source, 0, end);
    HeaderParser parser(reader, end);
    const bool ok = parser.parse(source.size());
    if (reader.error()) return *reader.error();
    if (!ok) return std::optional<Layout>{};
    return finish_layout({Parser::kGguf, kVersion, std::move(parser.tensors())}, source.size());
}

}  // namespace coral::formats
