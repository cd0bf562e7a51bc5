// SPDX-License-Identifier: Apache-2.0
// Writers of the formats that src/formats reads, free to lie: every length and offset can be set to what it is not.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "coral/formats/layout.hpp"

namespace coral::formats {

// For GoogleTest's messages and comparisons.
bool operator==(const Tensor& a, const Tensor& b);
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

namespace test {

std::string le(std::uint64_t value, std::size_t bytes);

// parse_layout on bytes in memory; checks the invariants of what comes out (through EXPECT).
std::optional<Layout> parse(const std::string& file);
void expect_invariants(const Layout& layout, std::uint64_t file_size);
// The tensor of that name; a failed EXPECT and an empty one when there is none.
Tensor find(const std::optional<Layout>& layout, std::string_view name);
std::string bytes_of(const std::string& file, const Tensor& tensor);

// header, then data; the header's true length unless another is given.
std::string safetensors(const std::string& header, const std::string& data);
std::string safetensors(const std::string& header, const std::string& data, std::uint64_t header_length);

struct Member {
    std::string name;
    std::string data;
    std::uint16_t method = 0;
    std::uint16_t flags = 0;
    std::string local_name = {};         // if it differs
    std::uint64_t claimed_size = ~0ULL;  // in the directory, if it differs
    std::uint64_t claimed_offset = ~0ULL;
};

struct ZipOptions {
    bool zip64_members = false;  // sizes and offsets in the extra field
    bool zip64_end = false;
    bool descriptors = false;
    bool align = true;  // torch's padding: 64 bytes, in the extra field "FB"
    std::string comment = {};
    std::uint64_t count_lie = ~0ULL, size_lie = ~0ULL, offset_lie = ~0ULL;  // in the end record
};

std::string zip(const std::vector<Member>& members, const ZipOptions& options = {});

// Opcodes of protocol 2 as torch's pickler emits them.
class Pickle {
  public:
    Pickle() : bytes_("\x80\x02") {}

    Pickle& raw(std::string_view bytes) {
        bytes_ += bytes;
        return *this;
    }
    Pickle& text(std::string_view t) { return raw("X").raw(le(t.size(), 4)).raw(t); }
    Pickle& integer(std::int64_t v);
    Pickle& global(std::string_view module, std::string_view name) {
        return raw("c").raw(module).raw("\n").raw(name).raw("\n");
    }
    Pickle& tuple(const std::vector<std::uint64_t>& values);
    Pickle& storage(std::string_view type, std::string_view key, std::uint64_t count);
    // _rebuild_tensor_v2 over a storage; row-major strides unless given.
    Pickle& tensor(std::string_view type, std::string_view key, std::uint64_t count,
                   const std::vector<std::uint64_t>& shape, std::uint64_t offset = 0,
                   std::vector<std::uint64_t> stride = {});
    std::string stop() const { return bytes_ + "."; }
    const std::string& bytes() const { return bytes_; }

  private:
    std::string bytes_;
};

// A torch archive: "archive/data.pkl", the given members of it, "archive/version".
std::string torch_zip(const std::string& pickle, const std::vector<Member>& members, const ZipOptions& options = {});

// With version major.0; the length of the header unless another is given.
std::string npy(const std::string& header, const std::string& data, int major = 1, std::uint64_t length = ~0ULL);

// ---- ONNX

std::string varint(std::uint64_t value);
// One field of a protobuf message: a varint, or a payload with its length (the true one unless another is given).
std::string proto(std::uint64_t number, std::uint64_t value);
std::string proto(std::uint64_t number, const std::string& payload, std::uint64_t length = ~0ULL);
// A TensorProto with raw_data.
std::string onnx_tensor(const std::string& name, std::uint64_t type, const std::vector<std::uint64_t>& dims,
                        const std::string& raw);
// A Constant with that tensor.
std::string onnx_constant(const std::string& output, const std::string& tensor);
// The smallest ModelProto around the fields of a graph.
std::string onnx(const std::string& graph);

// ---- GGUF

struct GgufTensor {
    std::string name;
    std::vector<std::uint64_t> dims;  // innermost first
    std::uint32_t type = 0;
    std::uint64_t offset = 0;
};

struct GgufOptions {
    std::uint32_t version = 3;
    bool big_endian = false;
    std::uint64_t alignment = 32;  // of the data; the pair that says so is the caller's
    std::uint64_t tensors_lie = ~0ULL, pairs_lie = ~0ULL;
};

// A number as the options order its bytes.
std::string gguf_number(std::uint64_t value, std::size_t bytes, const GgufOptions& options = {});
std::string gguf_text(const std::string& text, const GgufOptions& options = {});
std::string gguf_pair(const std::string& key, std::uint32_t type, const std::string& value,
                      const GgufOptions& options = {});
std::string gguf(const std::vector<std::string>& pairs, const std::vector<GgufTensor>& tensors, const std::string& data,
                 const GgufOptions& options = {});

// ---- torch before 1.6

struct LegacyStorage {
    std::string key;
    std::string data;
    std::uint64_t count = 0;  // elements
};

// `pickle`: the object, as Pickle gives it.
std::string torch_legacy(const std::string& pickle, const std::vector<LegacyStorage>& storages);

// A file beside this one in fixtures/; nothing when it cannot be read.
std::optional<std::string> read_fixture(const std::string& name);

}  // namespace test
}  // namespace coral::formats
