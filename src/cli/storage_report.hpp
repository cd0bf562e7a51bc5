// SPDX-License-Identifier: Apache-2.0
// How a file lies in the packs: for each tensor and the bytes between them, which segments, in which modes, at what
// cost.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/json.hpp"
#include "coral/repo/repository.hpp"

namespace coral::cli {

// "F32", "BF16"; "?" for a number that is none of formats::Dtype.
std::string dtype_text(std::uint8_t dtype);
std::string shape_text(const std::vector<std::uint64_t>& shape);  // "[4096, 4096]"
const char* parser_text(std::uint16_t parser);

struct PartStorage {
    std::string name;  // tensor; "(rest of the file)" for all bytes that are in no tensor
    const store::TensorEntry* tensor = nullptr;
    std::uint64_t bytes = 0, inline_bytes = 0, stored_bytes = 0;
    std::uint8_t depth = 0;
    std::vector<store::SegmentInfo> segments;  // each once
    std::map<codec::Mode, std::uint64_t> chunks;
    double bits_per_weight() const;  // 0 when the part has no elements of a known width
};
// The rest of the file first, then the tensors in file order.
Result<std::vector<PartStorage>> storage_of(repo::Repository& repository, const store::FileRecord& record);

void print_storage(Output& out, const std::vector<PartStorage>& parts, std::uint64_t size);
Json json_of(const PartStorage& part);

}  // namespace coral::cli
