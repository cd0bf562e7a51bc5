// SPDX-License-Identifier: Apache-2.0
#include "unit/formats/builders.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <tuple>

namespace coral::formats {

bool operator==(const Tensor& a, const Tensor& b) {
    return std::tie(a.name, a.dtype, a.big_endian, a.shape, a.offset, a.length) ==
           std::tie(b.name, b.dtype, b.big_endian, b.shape, b.offset, b.length);
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
    out << tensor.name << ' ' << dtype_name(tensor.dtype) << (tensor.big_endian ? " big (" : " (");
    for (std::uint64_t dimension : tensor.shape) out << dimension << ',';
    return out << ") at " << tensor.offset << '+' << tensor.length;
}

namespace test {

std::string le(std::uint64_t value, std::size_t bytes) {
    std::string out(bytes, '\0');
    for (std::size_t i = 0; i < bytes && i < 8; ++i) out[i] = static_cast<char>(value >> (8 * i));
    return out;
}

void expect_invariants(const Layout& layout, std::uint64_t file_size) {
    EXPECT_NE(layout.parser, Parser::kNone);
    EXPECT_NE(layout.version, 0);
    std::uint64_t end = 0;
    const Tensor* before = nullptr;
    for (const Tensor& tensor : layout.tensors) {
        ASSERT_GE(tensor.offset, end) << tensor;
        ASSERT_LE(tensor.offset, file_size) << tensor;
        ASSERT_LE(tensor.length, file_size - tensor.offset) << tensor;
        ASSERT_LE(tensor.name.size(), 1024U);
        ASSERT_LE(tensor.shape.size(), 64U);
        ASSERT_LE(static_cast<int>(tensor.dtype), static_cast<int>(Dtype::kF80));
        if (before && before->offset == tensor.offset) {
            ASSERT_LE(before->length, tensor.length) << tensor;
        }
        if (dtype_width(tensor.dtype) == 1) {
            ASSERT_FALSE(tensor.big_endian) << tensor;
        }
        if (dtype_bits(tensor.dtype) != 0) {
            std::uint64_t count = 1;
            for (std::uint64_t dimension : tensor.shape) count *= dimension;
            ASSERT_EQ(count * dtype_bits(tensor.dtype), tensor.length * 8) << tensor;
        }
        end = tensor.offset + tensor.length;
        before = &tensor;
    }
}

std::optional<Layout> parse(const std::string& file) {
    MemorySource source(as_bytes(file));
    Result<std::optional<Layout>> layout = parse_layout(source);
    EXPECT_TRUE(layout.ok());
    if (!layout) return std::nullopt;
    if (*layout) expect_invariants(**layout, file.size());
    return *layout;
}

Tensor find(const std::optional<Layout>& layout, std::string_view name) {
    EXPECT_TRUE(layout.has_value());
    if (!layout) return {};
    for (const Tensor& tensor : layout->tensors) {
        if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << "no tensor named " << name;
    return {};
}

std::string bytes_of(const std::string& file, const Tensor& tensor) {
    return file.substr(tensor.offset, tensor.length);
}

std::string safetensors(const std::string& header, const std::string& data) {
    return safetensors(header, data, header.size());
}

std::string safetensors(const std::string& header, const std::string& data, std::uint64_t header_length) {
    return le(header_length, 8) + header + data;
}

namespace {

constexpr std::uint64_t kTrue = ~0ULL;
std::uint64_t lie_or(std::uint64_t lie, std::uint64_t truth) {
    return lie == kTrue ? truth : lie;
}

std::string end_records(std::uint64_t count, std::uint64_t size, std::uint64_t offset, std::uint64_t at,
                        const ZipOptions& options) {
    std::string out;
    if (options.zip64_end) {
        out += le(0x06064b50, 4) + le(44, 8) + le(45, 2) + le(45, 2) + le(0, 4) + le(0, 4);
        out += le(count, 8) + le(count, 8) + le(size, 8) + le(offset, 8);
        out += le(0x07064b50, 4) + le(0, 4) + le(at, 8) + le(1, 4);
        count = 0xffff;
        size = offset = 0xffffffff;
    }
    out += le(0x06054b50, 4) + le(0, 2) + le(0, 2) + le(count, 2) + le(count, 2) + le(size, 4) + le(offset, 4);
    return out + le(options.comment.size(), 2) + options.comment;
}

}  // namespace

std::string zip(const std::vector<Member>& members, const ZipOptions& options) {
    std::string out, directory;
    for (const Member& member : members) {
        const std::string& local_name = member.local_name.empty() ? member.name : member.local_name;
        const std::uint64_t offset = out.size(), size = member.data.size();
        std::string extra;
        if (options.align) {
            std::size_t used = offset + 30 + local_name.size() + 4;
            std::size_t padding = (64 - used % 64) % 64;
            extra = "FB" + le(padding, 2) + std::string(padding, 'Z');
        }
        const std::uint16_t flags = member.flags | (options.descriptors ? 8 : 0);
        const std::uint64_t local_size = options.descriptors ? 0 : size;
        out += le(0x04034b50, 4) + le(20, 2) + le(flags, 2) + le(member.method, 2) + le(0, 8);
        out += le(local_size, 4) + le(local_size, 4) + le(local_name.size(), 2) + le(extra.size(), 2);
        out += local_name + extra + member.data;
        if (options.descriptors) out += le(0x08074b50, 4) + le(0, 4) + le(size, 4) + le(size, 4);

        const std::uint64_t claimed = lie_or(member.claimed_size, size), where = lie_or(member.claimed_offset, offset);
        std::string zip64;
        if (options.zip64_members) zip64 = le(1, 2) + le(24, 2) + le(claimed, 8) + le(claimed, 8) + le(where, 8);
        directory += le(0x02014b50, 4) + le(20, 2) + le(20, 2) + le(flags, 2) + le(member.method, 2) + le(0, 8);
        const std::uint64_t none = 0xffffffff;
        directory += le(zip64.empty() ? claimed : none, 4) + le(zip64.empty() ? claimed : none, 4);
        directory += le(member.name.size(), 2) + le(zip64.size(), 2) + le(0, 2) + le(0, 8);
        directory += le(zip64.empty() ? where : none, 4) + member.name + zip64;
    }
    const std::uint64_t offset = out.size(), at = offset + directory.size();
    return out + directory +
           end_records(lie_or(options.count_lie, members.size()), lie_or(options.size_lie, directory.size()),
                       lie_or(options.offset_lie, offset), at, options);
}

Pickle& Pickle::integer(std::int64_t v) {
    if (v >= 0 && v < 256) return raw("K").raw(le(static_cast<std::uint64_t>(v), 1));
    return raw("\x8a").raw(le(8, 1)).raw(le(static_cast<std::uint64_t>(v), 8));
}

Pickle& Pickle::tuple(const std::vector<std::uint64_t>& values) {
    raw("(");
    for (std::uint64_t v : values) integer(static_cast<std::int64_t>(v));
    return raw("t");
}

Pickle& Pickle::storage(std::string_view type, std::string_view key, std::uint64_t count) {
    raw("(").text("storage").global("torch", type).text(key).text("cpu");
    return integer(static_cast<std::int64_t>(count)).raw("tQ");
}

Pickle& Pickle::tensor(std::string_view type, std::string_view key, std::uint64_t count,
                       const std::vector<std::uint64_t>& shape, std::uint64_t offset,
                       std::vector<std::uint64_t> stride) {
    if (stride.empty()) {
        stride.assign(shape.size(), 1);
        for (std::size_t i = shape.size(); i-- > 1;) stride[i - 1] = stride[i] * shape[i];
    }
    global("torch._utils", "_rebuild_tensor_v2").raw("(").storage(type, key, count);
    integer(static_cast<std::int64_t>(offset)).tuple(shape).tuple(stride);
    return raw("\x89").global("collections", "OrderedDict").raw(")RtR");
}

std::string torch_zip(const std::string& pickle, const std::vector<Member>& members, const ZipOptions& options) {
    std::vector<Member> all{{"archive/data.pkl", pickle}};
    for (Member member : members) {
        member.name.insert(0, "archive/");
        all.push_back(std::move(member));
    }
    all.push_back({"archive/version", "3\n"});
    return zip(all, options);
}

std::string npy(const std::string& header, const std::string& data, int major, std::uint64_t length) {
    std::string out = "\x93NUMPY" + le(static_cast<std::uint64_t>(major), 1) + le(0, 1);
    return out + le(lie_or(length, header.size()), major == 1 ? 2 : 4) + header + data;
}

std::optional<std::string> read_fixture(const std::string& name) {
    const std::string here = __FILE__;
    std::ifstream file(here.substr(0, here.find_last_of('/') + 1) + "fixtures/" + name, std::ios::binary);
    if (!file) return std::nullopt;
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

}  // namespace test
}  // namespace coral::formats
