// SPDX-License-Identifier: Apache-2.0
// Builders of ONNX, GGUF and torch's old format.
#include <algorithm>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {

std::string varint(std::uint64_t value) {
    std::string out;
    for (; value > 0x7f; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7f));
    return out += static_cast<char>(value);
}

std::string proto(std::uint64_t number, std::uint64_t value) {
    return varint(number << 3) + varint(value);
}

std::string proto(std::uint64_t number, const std::string& payload, std::uint64_t length) {
    return varint(number << 3 | 2) + varint(length == ~0ULL ? payload.size() : length) + payload;
}

std::string onnx_tensor(const std::string& name, std::uint64_t type, const std::vector<std::uint64_t>& dims,
                        const std::string& raw) {
    std::string out;
    for (std::uint64_t dimension : dims) out += proto(1, dimension);
    return out + proto(2, type) + (name.empty() ? "" : proto(8, name)) + proto(9, raw);
}

std::string onnx_constant(const std::string& output, const std::string& tensor) {
    const std::string attribute = proto(1, std::string("value")) + proto(5, tensor) + proto(20, 4);
    return (output.empty() ? "" : proto(2, output)) + proto(4, std::string("Constant")) + proto(5, attribute);
}

std::string onnx(const std::string& graph) {
    return proto(1, 8) + proto(2, std::string("test")) + proto(7, graph) + proto(8, proto(2, 18));
}

std::string gguf_number(std::uint64_t value, std::size_t bytes, const GgufOptions& options) {
    std::string out = le(value, bytes);
    if (options.big_endian) std::reverse(out.begin(), out.end());
    return out;
}

std::string gguf_text(const std::string& text, const GgufOptions& options) {
    return gguf_number(text.size(), 8, options) + text;
}

std::string gguf_pair(const std::string& key, std::uint32_t type, const std::string& value,
                      const GgufOptions& options) {
    return gguf_text(key, options) + gguf_number(type, 4, options) + value;
}

std::string gguf(const std::vector<std::string>& pairs, const std::vector<GgufTensor>& tensors, const std::string& data,
                 const GgufOptions& options) {
    auto counted = [&](std::uint64_t lie, std::size_t truth) {
        return gguf_number(lie == ~0ULL ? truth : lie, 8, options);
    };
    std::string out = "GGUF" + gguf_number(options.version, 4, options);
    out += counted(options.tensors_lie, tensors.size()) + counted(options.pairs_lie, pairs.size());
    for (const std::string& pair : pairs) out += pair;
    for (const GgufTensor& tensor : tensors) {
        out += gguf_text(tensor.name, options) + gguf_number(tensor.dims.size(), 4, options);
        for (std::uint64_t dimension : tensor.dims) out += gguf_number(dimension, 8, options);
        out += gguf_number(tensor.type, 4, options) + gguf_number(tensor.offset, 8, options);
    }
    out.resize((out.size() + options.alignment - 1) / options.alignment * options.alignment, '\0');
    return out + data;
}

std::string torch_legacy(const std::string& pickle, const std::vector<LegacyStorage>& storages) {
    const std::string magic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    std::string out = Pickle().raw(magic).stop() + Pickle().raw("M\xe9\x03").stop();
    out += Pickle().raw("}(").text("protocol_version").raw("M\xe9\x03").text("little_endian").raw("\x88u").stop();
    Pickle keys;
    keys.raw("](");
    for (const LegacyStorage& storage : storages) keys.text(storage.key);
    out += pickle + keys.raw("e").stop();
    for (const LegacyStorage& storage : storages) out += le(storage.count, 8) + storage.data;
    return out;
}

}  // namespace coral::formats::test
