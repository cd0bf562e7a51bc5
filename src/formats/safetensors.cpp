// SPDX-License-Identifier: Apache-2.0
// safetensors: u64 header length (little-endian), a JSON object that maps names to {dtype, shape, data_offsets}, the
// data. Spec: github.com/huggingface/safetensors, README.md "Format" and safetensors/src/tensor.rs
// (SafeTensors::read_metadata, Metadata::validate), whose rules are kept: tensors cover the data without gap or
// overlap, to the last byte.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "formats/json_reader.hpp"
#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kMaxDtypeName = 32;

class HeaderParser {
  public:
    explicit HeaderParser(SourceReader& reader) : json_(reader) {}

    // Offsets are still relative to the data.
    std::optional<std::vector<Tensor>> parse() {
        bool ok = json_.read_object(kMaxNameLength, [this](const std::string& key) { return read_entry(key); });
        if (!ok || !json_.at_end() || has_duplicate_names()) return std::nullopt;
        return std::move(tensors_);
    }

  private:
    bool read_entry(const std::string& key) {
        if (key == "__metadata__") {
            if (seen_metadata_) return false;
            seen_metadata_ = true;
            return json_.skip_value();
        }
        if (!budget_.take_tensor() || !budget_.take_name(key.size())) return false;
        Tensor tensor;
        tensor.name = key;
        if (!read_tensor(tensor)) return false;
        tensors_.push_back(std::move(tensor));
        return true;
    }

    bool read_tensor(Tensor& tensor) {
        bool dtype = false, shape = false, offsets = false;
        std::uint64_t end = 0;
        bool ok = json_.read_object(kMaxNameLength, [&](const std::string& key) {
            if (key == "dtype") return !std::exchange(dtype, true) && read_dtype(tensor.dtype);
            if (key == "shape") return !std::exchange(shape, true) && read_shape(tensor.shape);
            if (key == "data_offsets") return !std::exchange(offsets, true) && read_offsets(tensor.offset, end);
            return json_.skip_value();
        });
        if (!ok || !dtype || !shape || !offsets || end < tensor.offset) return false;
        tensor.length = end - tensor.offset;
        return size_matches(tensor);
    }

    // A dtype of a later safetensors still has a place in the file.
    bool read_dtype(Dtype& dtype) {
        std::string name;
        if (!json_.read_string(name, kMaxDtypeName)) return false;
        dtype = dtype_from_name(name).value_or(Dtype::kUnknown);
        if (dtype_bits(dtype) == 0) dtype = Dtype::kUnknown;
        return true;
    }

    bool read_shape(std::vector<std::uint64_t>& shape) {
        std::array<std::uint64_t, kMaxRank> dimensions;
        std::size_t rank = 0;
        if (!json_.accept('[')) return false;
        if (!json_.accept(']')) {
            do {
                if (rank == dimensions.size() || !json_.read_unsigned(dimensions[rank++])) return false;
            } while (json_.accept(','));
            if (!json_.accept(']')) return false;
        }
        shape.assign(dimensions.begin(), dimensions.begin() + static_cast<std::ptrdiff_t>(rank));
        return budget_.take_shape(rank);
    }

    bool read_offsets(std::uint64_t& begin, std::uint64_t& end) {
        return json_.accept('[') && json_.read_unsigned(begin) && json_.accept(',') && json_.read_unsigned(end) &&
               json_.accept(']');
    }

    static bool size_matches(const Tensor& tensor) {
        std::optional<std::uint64_t> count = element_count(tensor.shape);
        if (!count) return false;
        if (tensor.dtype == Dtype::kUnknown) return true;
        return packed_bytes(*count, dtype_bits(tensor.dtype)) == tensor.length;
    }

    bool has_duplicate_names() const {
        std::vector<std::uint32_t> order(tensors_.size());
        for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
        auto name = [this](std::uint32_t i) -> const std::string& { return tensors_[i].name; };
        std::sort(order.begin(), order.end(), [&](auto a, auto b) { return name(a) < name(b); });
        return std::adjacent_find(order.begin(), order.end(), [&](auto a, auto b) { return name(a) == name(b); }) !=
               order.end();
    }

    JsonReader json_;
    LayoutBudget budget_;
    std::vector<Tensor> tensors_;
    bool seen_metadata_ = false;
};

// Every byte of the data belongs to exactly one tensor.
bool covers(const std::vector<Tensor>& sorted, std::uint64_t data_start, std::uint64_t file_size) {
    std::uint64_t expected = data_start;
    for (const Tensor& tensor : sorted) {
        if (tensor.offset != expected) return false;
        expected += tensor.length;
    }
    return expected == file_size;
}

}  // namespace

Result<std::optional<Layout>> parse_safetensors(const ByteSource& source) {
    const std::uint64_t size = source.size();
    std::array<std::byte, 9> start;
    if (size < start.size()) return std::optional<Layout>{};
    CORAL_CHECK(source.read_at(0, start));
    const auto header_size = load_le<std::uint64_t>(start.data());
    if (header_size > kMaxSafetensorsHeader || header_size > size - 8 || start[8] != std::byte{'{'}) {
        return std::optional<Layout>{};
    }
    const std::uint64_t data_start = 8 + header_size;
    SourceReader reader(source, 8, data_start);
    std::optional<std::vector<Tensor>> tensors = HeaderParser(reader).parse();
    if (reader.error()) return *reader.error();
    if (!tensors) return std::optional<Layout>{};

    for (Tensor& tensor : *tensors) {
        if (tensor.offset > size - data_start) return std::optional<Layout>{};
        tensor.offset += data_start;
    }
    std::optional<Layout> layout = finish_layout({Parser::kSafetensors, kVersion, std::move(*tensors)}, size);
    if (layout && !covers(layout->tensors, data_start, size)) layout.reset();
    return layout;
}

}  // namespace coral::formats
