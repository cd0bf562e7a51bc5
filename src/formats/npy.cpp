// SPDX-License-Identifier: Apache-2.0
// .npy: magic, version, header length, a Python literal {'descr': …, 'fortran_order': …, 'shape': …}, the elements.
// Spec: numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1.0 to 3.0.
#include "formats/npy.hpp"

#include <array>
#include <string>

#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"
#include "formats/utf8.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::string_view kMagic = "\x93NUMPY";

struct Header {
    Dtype dtype = Dtype::kUnknown;
    std::uint64_t item_size = 0;
    bool big_endian = false;
    std::vector<std::uint64_t> shape;
};

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Digits from the front of `text`, without sign; false on none and on overflow.
bool take_number(std::string_view& text, std::uint64_t& out) {
    if (text.empty() || !is_digit(text.front())) return false;
    out = 0;
    for (; !text.empty() && is_digit(text.front()); text.remove_prefix(1)) {
        if (!checked_mul<std::uint64_t>(out, 10, out)) return false;
        if (!checked_add<std::uint64_t>(out, static_cast<std::uint64_t>(text.front() - '0'), out)) return false;
    }
    return true;
}

struct DescrRow {
    char kind;
    std::uint64_t size;
    Dtype dtype;
};
constexpr std::array kDescrs{
    DescrRow{'b', 1, Dtype::kBool}, DescrRow{'i', 1, Dtype::kI8},  DescrRow{'i', 2, Dtype::kI16},
    DescrRow{'i', 4, Dtype::kI32},  DescrRow{'i', 8, Dtype::kI64}, DescrRow{'u', 1, Dtype::kU8},
    DescrRow{'u', 2, Dtype::kU16},  DescrRow{'u', 4, Dtype::kU32}, DescrRow{'u', 8, Dtype::kU64},
    DescrRow{'f', 2, Dtype::kF16},  DescrRow{'f', 4, Dtype::kF32}, DescrRow{'f', 8, Dtype::kF64},
    DescrRow{'f', 16, Dtype::kF80}, DescrRow{'c', 8, Dtype::kC64}, DescrRow{'c', 16, Dtype::kC128},
    DescrRow{'M', 8, Dtype::kI64},  DescrRow{'m', 8, Dtype::kI64},
};

// "<f4", "|b1", ">i8", "<M8[ns]", "|S5", … False for objects, structures and what NumPy does not have.
bool parse_descr(std::string_view descr, Header& header) {
    if (descr.empty()) return false;
    if (descr.front() == '<' || descr.front() == '>' || descr.front() == '|') {
        header.big_endian = descr.front() == '>';
        descr.remove_prefix(1);
    }
    if (descr.empty()) return false;
    const char kind = descr.front();
    descr.remove_prefix(1);
    if (!take_number(descr, header.item_size)) return false;
    const bool has_unit =
        (kind == 'M' || kind == 'm') && descr.size() > 2 && descr.front() == '[' && descr.back() == ']';
    if (!descr.empty() && !has_unit) return false;
    for (const DescrRow& row : kDescrs) {
        if (row.kind == kind && row.size == header.item_size) {
            header.dtype = row.dtype;
            header.big_endian = header.big_endian && dtype_width(row.dtype) > 1;
            return true;
        }
    }
    header.big_endian = false;  // text and raw bytes have no order that a codec could use
    if (kind == 'U') return checked_mul<std::uint64_t>(header.item_size, 4, header.item_size);
    return kind == 'S' || kind == 'a' || kind == 'V' || kind == 'f' || kind == 'c';
}

// The literal that numpy.save writes, and the freedoms that Python's grammar gives other writers: white space, either
// quote, any order, Python 2's 3L. Escapes inside strings do not occur in what is accepted.
class HeaderParser {
  public:
    explicit HeaderParser(std::string_view text) : text_(text) {}

    std::optional<Header> parse() {
        if (!accept('{')) return std::nullopt;
        while (!accept('}')) {
            if (!read_entry()) return std::nullopt;
            if (accept(',')) continue;
            if (!accept('}')) return std::nullopt;
            break;
        }
        skip_space();
        if (!text_.empty() || seen_ != kAll) return std::nullopt;
        return std::move(header_);
    }

  private:
    static constexpr unsigned kDescr = 1, kOrder = 2, kShape = 4, kAll = 7;

    void skip_space() {
        while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n' || text_.front() == '\t' ||
                                  text_.front() == '\r' || text_.front() == '\f')) {
            text_.remove_prefix(1);
        }
    }

    bool accept(char c) {
        skip_space();
        if (text_.empty() || text_.front() != c) return false;
        text_.remove_prefix(1);
        return true;
    }

    bool accept_word(std::string_view word) {
        skip_space();
        if (!text_.starts_with(word)) return false;
        text_.remove_prefix(word.size());
        return true;
    }

    bool read_string(std::string_view& out) {
        skip_space();
        if (text_.empty() || (text_.front() != '\'' && text_.front() != '"')) return false;
        std::size_t end = text_.find(text_.front(), 1);
        if (end == std::string_view::npos) return false;
        out = text_.substr(1, end - 1);
        text_.remove_prefix(end + 1);
        return out.find_first_of("\\\n") == std::string_view::npos;
    }

    bool read_entry() {
        std::string_view key;
        if (!read_string(key) || !accept(':')) return false;
        const unsigned bit = key == "descr" ? kDescr : key == "fortran_order" ? kOrder : key == "shape" ? kShape : 0;
        if (bit == 0 || (seen_ & bit) != 0) return false;
        seen_ |= bit;
        if (bit == kOrder) return accept_word("False") || accept_word("True");
        if (bit == kShape) return read_shape();
        std::string_view descr;  // a list, which starts a structured type, is no string
        return read_string(descr) && parse_descr(descr, header_);
    }

    bool read_shape() {
        if (!accept('(')) return false;
        while (!accept(')')) {
            std::uint64_t dimension = 0;
            skip_space();
            if (header_.shape.size() == kMaxRank || !take_number(text_, dimension)) return false;
            if (!text_.empty() && text_.front() == 'L') text_.remove_prefix(1);
            header_.shape.push_back(dimension);
            if (accept(',')) continue;
            return header_.shape.size() > 1 && accept(')');  // (3) is a number, not a tuple
        }
        return true;
    }

    std::string_view text_;
    Header header_;
    unsigned seen_ = 0;
};

}  // namespace

Result<std::optional<Tensor>> read_npy(const ByteSource& source, std::uint64_t begin, std::uint64_t size) {
    std::array<std::byte, 12> start{};
    if (size < start.size()) return std::optional<Tensor>{};
    CORAL_CHECK(source.read_at(begin, start));
    if (as_text(start).substr(0, kMagic.size()) != kMagic) return std::optional<Tensor>{};
    const auto major = static_cast<unsigned>(start[6]);
    if (major < 1 || major > 3 || start[7] != std::byte{0}) return std::optional<Tensor>{};
    const std::uint64_t fixed = major == 1 ? 10 : 12;
    const std::uint64_t length = major == 1 ? load_le<std::uint16_t>(&start[8]) : load_le<std::uint32_t>(&start[8]);
    if (length > kMaxNpyHeader || length > size - fixed) return std::optional<Tensor>{};

    Buffer text(static_cast<std::size_t>(length));
    CORAL_CHECK(source.read_at(begin + fixed, text));
    if (!is_utf8(as_text(text))) return std::optional<Tensor>{};
    std::optional<Header> header = HeaderParser(as_text(text)).parse();
    if (!header) return std::optional<Tensor>{};

    Tensor tensor;
    tensor.dtype = header->dtype;
    tensor.big_endian = header->big_endian;
    tensor.offset = begin + fixed + length;
    std::optional<std::uint64_t> count = element_count(header->shape);
    if (!count || !checked_mul<std::uint64_t>(*count, header->item_size, tensor.length)) return std::optional<Tensor>{};
    if (tensor.length > size - fixed - length) return std::optional<Tensor>{};
    tensor.shape = std::move(header->shape);
    return std::optional<Tensor>(std::move(tensor));
}

Result<std::optional<Layout>> parse_npy(const ByteSource& source) {
    CORAL_TRY(std::optional<Tensor> tensor, read_npy(source, 0, source.size()));
    if (!tensor) return std::optional<Layout>{};
    tensor->name = "npy";
    Layout layout{Parser::kNpy, kVersion, {}};
    layout.tensors.push_back(std::move(*tensor));
    return finish_layout(std::move(layout), source.size());
}

}  // namespace coral::formats
