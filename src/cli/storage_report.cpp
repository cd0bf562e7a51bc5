// SPDX-License-Identifier: Apache-2.0
#include "cli/storage_report.hpp"

#include <fmt/format.h>

#include <unordered_set>

#include "cli/text.hpp"
#include "coral/formats/layout.hpp"

namespace coral::cli {
namespace {

const char* mode_word(codec::Mode mode) {
    switch (mode) {
        case codec::Mode::kRaw:
            return "raw";
        case codec::Mode::kZstd:
            return "zstd";
        case codec::Mode::kCopy:
            return "copy";
        case codec::Mode::kSolo:
            return "solo";
        case codec::Mode::kDelta:
            return "delta";
        case codec::Mode::kPalette:
            return "palette";
    }
    return "other";
}

// Collects segments part by part.
class Report {
  public:
    Report(repo::Repository& repository, const store::FileRecord& record) : repository_(repository), record_(record) {
        parts_.emplace_back().name = "(rest of the file)";
        seen_.emplace_back();
        for (const store::TensorEntry& tensor : record.tensors) {
            PartStorage& part = parts_.emplace_back();
            part.name = tensor.name;
            part.tensor = &tensor;
            seen_.emplace_back();
        }
    }

    Result<std::vector<PartStorage>> run() {
        std::uint64_t position = 0;
        std::size_t next = 0;  // the first tensor that does not end before `position`
        for (const store::Extent& extent : record_.extents) {
            while (next < record_.tensors.size() &&
                   record_.tensors[next].offset + record_.tensors[next].length <= position)
                ++next;
            bool inside = next < record_.tensors.size() && record_.tensors[next].offset <= position;
            CORAL_CHECK(add(inside ? next + 1 : 0, extent));
            position += extent.length;
        }
        return std::move(parts_);
    }

  private:
    Status add(std::size_t index, const store::Extent& extent) {
        PartStorage& part = parts_[index];
        part.bytes += extent.length;
        if (extent.segment == store::Extent::kInline) {
            part.inline_bytes += extent.length;
            part.stored_bytes += extent.length;
            return {};
        }
        const SegmentId& id = record_.segments[extent.segment];
        if (!seen_[index].insert(id).second) return {};
        CORAL_TRY(store::SegmentInfo info, repository_.store().segment_info(id));
        part.stored_bytes += info.stored_bytes;
        part.depth = std::max(part.depth, info.depth);
        for (const auto& [mode, count] : info.chunks_by_mode) part.chunks[mode] += count;
        part.segments.push_back(std::move(info));
        return {};
    }

    repo::Repository& repository_;
    const store::FileRecord& record_;
    std::vector<PartStorage> parts_;
    std::vector<std::unordered_set<SegmentId>> seen_;
};

std::string modes_text(const PartStorage& part) {
    std::vector<std::string> words;
    for (const auto& [mode, count] : part.chunks) words.push_back(fmt::format("{} {}", mode_word(mode), count));
    if (words.empty() && part.inline_bytes) return "inline";
    return fmt::format("{}", fmt::join(words, ", "));
}

std::string base_text(const PartStorage& part) {
    for (const store::SegmentInfo& segment : part.segments) {
        if (!segment.bases.empty()) return segment.bases.front().id.hex().substr(0, 12);
    }
    return "-";
}

}  // namespace

std::string dtype_text(std::uint8_t dtype) {
    std::string_view name = formats::dtype_name(static_cast<formats::Dtype>(dtype));
    return name.empty() ? "?" : std::string(name);
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

const char* parser_text(std::uint16_t parser) {
    switch (static_cast<formats::Parser>(parser)) {
        case formats::Parser::kNone:
            return "none";
        case formats::Parser::kSafetensors:
            return "safetensors";
        case formats::Parser::kTorchZip:
            return "torch-zip";
        case formats::Parser::kNpy:
            return "npy";
        case formats::Parser::kOnnx:
            return "onnx";
        case formats::Parser::kNpz:
            return "npz";
        case formats::Parser::kGguf:
            return "gguf";
        case formats::Parser::kTorchLegacy:
            return "torch-legacy";
    }
    return "other";
}

double PartStorage::bits_per_weight() const {
    std::uint32_t bits = tensor ? formats::dtype_bits(static_cast<formats::Dtype>(tensor->dtype)) : 0;
    if (bits == 0 || bytes == 0) return 0;
    return static_cast<double>(stored_bytes) * bits / static_cast<double>(bytes);
}

Result<std::vector<PartStorage>> storage_of(repo::Repository& repository, const store::FileRecord& record) {
    return Report(repository, record).run();
}

void print_storage(Output& out, const std::vector<PartStorage>& parts, std::uint64_t size) {
    Table table({false, false, true, true, true, true, true});
    table.row({"PART", "DTYPE", "BYTES", "STORED", "BITS/WEIGHT", "SEGMENTS", "DEPTH", "BASE", "CHUNKS"});
    std::uint64_t stored = 0;
    for (const PartStorage& part : parts) {
        stored += part.stored_bytes;
        double bits = part.bits_per_weight();
        table.row({quote_name(part.name), part.tensor ? dtype_text(part.tensor->dtype) : "-", size_text(part.bytes),
                   size_text(part.stored_bytes), bits > 0 ? fmt::format("{:.2f}", bits) : "-",
                   fmt::format("{}", part.segments.size()), fmt::format("{}", part.depth), base_text(part),
                   modes_text(part)});
    }
    out.write(table.text());
    double share = size ? 100.0 * static_cast<double>(stored) / static_cast<double>(size) : 0;
    out.print("\n{} in {} of packs ({:.1f} %); segments that other files share are counted here as well\n",
              size_text(size), size_text(stored), share);
}

Json json_of(const PartStorage& part) {
    Json out;
    put_text(out, "name", part.name);
    out["tensor"] = part.tensor != nullptr;
    if (part.tensor) {
        out["dtype"] = dtype_text(part.tensor->dtype);
        out["shape"] = part.tensor->shape;
    }
    out["bytes"] = part.bytes;
    out["stored_bytes"] = part.stored_bytes;
    out["inline_bytes"] = part.inline_bytes;
    out["bits_per_weight"] = part.bits_per_weight() > 0 ? Json(part.bits_per_weight()) : Json(nullptr);
    out["depth"] = part.depth;
    out["chunks"] = Json::object();
    for (const auto& [mode, count] : part.chunks) out["chunks"][mode_word(mode)] = count;
    out["segments"] = Json::array();
    for (const store::SegmentInfo& segment : part.segments) {
        Json element{{"id", segment.id.hex()},
                     {"bytes", segment.raw_length},
                     {"stored_bytes", segment.stored_bytes},
                     {"depth", segment.depth},
                     {"grouped", segment.grouped},
                     {"pack", segment.pack.text()},
                     {"pack_offset", segment.pack_offset},
                     {"bases", Json::array()}};
        for (const codec::BaseRef& base : segment.bases) {
            element["bases"].push_back({{"id", base.id.hex()}, {"offset", base.offset}});
        }
        out["segments"].push_back(std::move(element));
    }
    return out;
}

}  // namespace coral::cli
