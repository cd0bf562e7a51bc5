// SPDX-License-Identifier: Apache-2.0
// What a parser finds in a checkpoint: where its tensors lie. A layout never changes a byte and never fails a write: a
// file without one is stored as plain bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/result.hpp"

namespace coral::formats {

// Numbers are on-disk facts (docs/format.md, "Dtypes"); append only.
enum class Dtype : std::uint8_t {
    kUnknown = 0,
    kBool = 1,
    kU8 = 2,
    kI8 = 3,
    kU16 = 4,
    kI16 = 5,
    kU32 = 6,
    kI32 = 7,
    kU64 = 8,
    kI64 = 9,
    kF16 = 10,
    kBF16 = 11,
    kF32 = 12,
    kF64 = 13,
    kC64 = 14,
    kC128 = 15,
    kF8E4M3 = 16,
    kF8E5M2 = 17,
    kF8E8M0 = 18,
    kF8E4M3Fnuz = 19,
    kF8E5M2Fnuz = 20,
    kF4 = 21,
    kF6E2M3 = 22,
    kF6E3M2 = 23,
    kQuantised = 24,  // torch qint*, block formats: bytes with a meaning we do not code
    kF80 = 25,
};

std::string_view dtype_name(Dtype dtype);  // as safetensors spells it: "F32", "BF16", …
std::optional<Dtype> dtype_from_name(std::string_view name);
std::uint32_t dtype_bits(Dtype dtype);  // per element; 0 when unknown
// Width in bytes of the unit that codecs work on: 1, 2, 4 or 8 (complex: of one part).
std::uint32_t dtype_width(Dtype dtype);
bool dtype_is_float(Dtype dtype);

// Numbers are on-disk facts; append only.
enum class Parser : std::uint16_t {
    kNone = 0,
    kSafetensors = 1,
    kTorchZip = 2,
    kNpy = 3,
    kOnnx = 4,
    kNpz = 5,
    kGguf = 6,
    kTorchLegacy = 7,
};

struct Tensor {
    std::string
        name;  // tensor name; for torch the parameter path of the first tensor that shows the storage, else its key
    Dtype dtype = Dtype::kUnknown;
    bool big_endian = false;
    std::vector<std::uint64_t>
        shape;                 // as the file says; a torch storage: of the first tensor that covers it, else {n}
    std::uint64_t offset = 0;  // of its first byte in the file
    std::uint64_t length = 0;  // bytes; 0 is legal
};

// Tensors sorted by offset; ranges lie inside the file and do not overlap.
struct Layout {
    Parser parser = Parser::kNone;
    std::uint16_t version = 0;  // of the parser that made it
    std::vector<Tensor> tensors;
};

// The file being parsed. Reads may come from a staging file that is still changing: a parser copies what it checks.
class ByteSource {
  public:
    virtual ~ByteSource() = default;
    virtual std::uint64_t size() const = 0;
    // Exactly out.size() bytes or an error.
    virtual Status read_at(std::uint64_t offset, MutableBytes out) const = 0;
    // From `offset` to here all is zeros, known without reading it (a hole); at most size().
    virtual std::uint64_t next_data(std::uint64_t offset) const { return offset; }
};

class MemorySource final : public ByteSource {
  public:
    explicit MemorySource(Bytes bytes) : bytes_(bytes) {}
    std::uint64_t size() const override { return bytes_.size(); }
    Status read_at(std::uint64_t offset, MutableBytes out) const override;

  private:
    Bytes bytes_;
};

// Finds the format by content, never by name. No layout: unknown or malformed (then the bytes are simply opaque). An
// error only when the source itself fails to read. Work and memory are bounded by the input's size and fixed limits.
Result<std::optional<Layout>> parse_layout(const ByteSource& source);

// The parsers one by one; each returns nothing for what is not its format or breaks its rules.
Result<std::optional<Layout>> parse_safetensors(const ByteSource& source);
Result<std::optional<Layout>> parse_torch_zip(const ByteSource& source);
Result<std::optional<Layout>> parse_npy(const ByteSource& source);
Result<std::optional<Layout>> parse_onnx(const ByteSource& source);
Result<std::optional<Layout>> parse_npz(const ByteSource& source);
Result<std::optional<Layout>> parse_gguf(const ByteSource& source);
Result<std::optional<Layout>> parse_torch_legacy(const ByteSource& source);

}  // namespace coral::formats
