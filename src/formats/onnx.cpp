// SPDX-License-Identifier: Apache-2.0
// ONNX: a protobuf message ModelProto. Tensors are the initializers of its graph, of the graphs inside nodes (If, Loop,
// Scan), and the tensors that nodes have as attributes (Constant). Spec: github.com/onnx/onnx, onnx/onnx.proto.
//
// Protobuf has no magic and will make something of many files. So all of the structure must be there and parse to the
// last byte, and every field that the spec knows must be of the spec's wire type.
#include <array>
#include <string>
#include <utility>

#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"
#include "formats/proto_reader.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::uint64_t kLastIrVersion = 1000;  // 13 was the last one when this was written
constexpr std::uint64_t kFirstIrWithOpsets = 3;

// What each field of a message looks like, by number: b bytes, v a varint, 4 four bytes; of a repeated number, packed
// or not: V varints, F and D four and eight bytes each; a point: the spec has no such field.
constexpr std::string_view kModelFields = ".vbbbvbbb.....b.....b....bb";
constexpr std::string_view kGraphFields = ".bb..b....bbbbbbb";
constexpr std::string_view kNodeFields = ".bbbbbbbbbb";
constexpr std::string_view kAttributeFields = ".b4vbbbFVbbb.bbb....vbbb";
constexpr std::string_view kTensorFields = ".VvbFVbVbbDVbbv.b";
constexpr std::string_view kFunctionFields = ".b..bbbbbbbbbbb";
constexpr std::string_view kSparseFields = ".bbV";
constexpr std::string_view kTrainingFields = ".bbbb";

// A field of a later version may be anything.
bool fits(std::string_view fields, const ProtoField& field) {
    const char want = field.number < fields.size() ? fields[field.number] : '.';
    switch (want) {
        case 'b':
            return field.wire == Wire::kBytes;
        case 'v':
            return field.wire == Wire::kVarint;
        case '4':
            return field.wire == Wire::kFixed32;
        case 'V':
            return field.wire == Wire::kVarint || field.wire == Wire::kBytes;
        case 'F':
            return field.wire == Wire::kFixed32 || (field.wire == Wire::kBytes && field.length % 4 == 0);
        case 'D':
            return field.wire == Wire::kFixed64 || (field.wire == Wire::kBytes && field.length % 8 == 0);
        default:
            return true;
    }
}

// TensorProto.DataType. Those of less than a byte fill the last one up.
struct TypeRow {
    Dtype dtype;
    std::uint32_t bits;  // 0: unknown
};
constexpr std::array kTypes{
    TypeRow{Dtype::kUnknown, 0},    TypeRow{Dtype::kF32, 32},      TypeRow{Dtype::kU8, 8},
    TypeRow{Dtype::kI8, 8},         TypeRow{Dtype::kU16, 16},      TypeRow{Dtype::kI16, 16},
    TypeRow{Dtype::kI32, 32},       TypeRow{Dtype::kI64, 64},      TypeRow{Dtype::kUnknown, 0},  // text
    TypeRow{Dtype::kBool, 8},       TypeRow{Dtype::kF16, 16},      TypeRow{Dtype::kF64, 64},
    TypeRow{Dtype::kU32, 32},       TypeRow{Dtype::kU64, 64},      TypeRow{Dtype::kC64, 64},
    TypeRow{Dtype::kC128, 128},     TypeRow{Dtype::kBF16, 16},     TypeRow{Dtype::kF8E4M3, 8},
    TypeRow{Dtype::kF8E4M3Fnuz, 8}, TypeRow{Dtype::kF8E5M2, 8},    TypeRow{Dtype::kF8E5M2Fnuz, 8},
    TypeRow{Dtype::kQuantised, 4},  TypeRow{Dtype::kQuantised, 4},  // UINT4, INT4
    TypeRow{Dtype::kF4, 4},         TypeRow{Dtype::kF8E8M0, 8},    TypeRow{Dtype::kQuantised, 2},
    TypeRow{Dtype::kQuantised, 2},  // UINT2, INT2
};

// A TensorProto as far as it matters.
struct Found {
    std::string name;
    std::uint64_t type = 0;
    std::vector<std::uint64_t> shape;
    bool elsewhere = false;            // in a file of their own, or in more than one piece
    std::optional<ProtoField> raw;     // raw_data
    std::optional<ProtoField> packed;  // float_data, double_data
};

// Where a node stands and what it is known by. A value is named by the output that computes it; a node's own name is
// for people, and often missing.
struct OnnxNode {
    std::string prefix;  // of the graph around it
    std::string output, name;

    std::string path() const { return prefix + (name.empty() ? output : name); }
};

class OnnxParser {
  public:
    explicit OnnxParser(ProtoReader& proto) : proto_(proto) {}

    std::optional<std::vector<Tensor>> parse() {
        const bool ok = proto_.whole([this](const ProtoField& field) { return read_model(field); });
        const bool complete = graphs_ == 1 && ir_version_ >= 1 && ir_version_ <= kLastIrVersion &&
                              (opsets_ || ir_version_ < kFirstIrWithOpsets);
        if (!ok || !complete) return std::nullopt;
        return std::move(tensors_);
    }

  private:
    bool read_model(const ProtoField& field) {
        if (!fits(kModelFields, field)) return false;
        switch (field.number) {
            case 1:
                ir_version_ = field.value;
                return true;
            case 7:
                return ++graphs_ == 1 && read_graph(field, "");
            case 8:
                opsets_ = true;
                return true;
            case 20:
                return read_training(field);
            case 25:
                return read_function(field);
            default:
                return true;
        }
    }

    bool read_training(const ProtoField& training) {
        return proto_.message(training, [&](const ProtoField& field) {
            if (!fits(kTrainingFields, field)) return false;
            if (field.number == 1) return read_graph(field, "initialization.");
            return field.number != 2 || read_graph(field, "algorithm.");
        });
    }

    bool read_function(const ProtoField& function) {
        std::string name;
        return proto_.message(function, [&](const ProtoField& field) {
            if (!fits(kFunctionFields, field)) return false;
            if (field.number == 1) return proto_.text(field, name);
            if (field.number == 7) return read_node(field, name + '.');
            return field.number != 11 || read_attribute(field, OnnxNode{name + '.', "", ""});
        });
    }

    bool read_graph(const ProtoField& graph, const std::string& prefix) {
        return proto_.message(graph, [&](const ProtoField& field) {
            if (!fits(kGraphFields, field)) return false;
            if (field.number == 1) return read_node(field, prefix);
            if (field.number == 5) return read_tensor(field, prefix, "");
            return field.number != 15 || read_sparse(field, prefix, "");
        });
    }

    bool read_node(const ProtoField& field_of_node, const std::string& prefix) {
        OnnxNode node{prefix, "", ""};
        return proto_.message(field_of_node, [&](const ProtoField& field) {
            if (!fits(kNodeFields, field)) return false;
            if (field.number == 2 && node.output.empty()) return proto_.text(field, node.output);
            if (field.number == 3) return proto_.text(field, node.name);
            return field.number != 5 || read_attribute(field, node);
        });
    }

    bool read_attribute(const ProtoField& attribute, const OnnxNode& node) {
        std::string name;
        std::uint64_t index = 0;  // in a list
        return proto_.message(attribute, [&](const ProtoField& field) {
            if (!fits(kAttributeFields, field)) return false;
            switch (field.number) {
                case 1:
                    return proto_.text(field, name);
                case 5:
                    return read_tensor(field, node.prefix, value_name(node, name));
                case 6:
                    return read_graph(field, joined(node.path(), name));
                case 10:
                    return read_tensor(field, node.prefix, value_name(node, name) + '.' + std::to_string(index++));
                case 11:
                    return read_graph(field, joined(node.path(), name + '.' + std::to_string(index++)));
                case 22:
                    return read_sparse(field, node.prefix, value_name(node, name));
                case 23:
                    return read_sparse(field, node.prefix, value_name(node, name) + '.' + std::to_string(index++));
                default:
                    return true;
            }
        });
    }

    // A Constant's tensor is its output; any other node's goes by the attribute as well.
    static std::string value_name(const OnnxNode& node, const std::string& attribute) {
        const std::string& owner = node.output.empty() ? node.name : node.output;
        return attribute == "value" || attribute == "sparse_value" ? owner : owner + '.' + attribute;
    }

    // The prefix of a graph in a node. Beyond the length of a name it only has to stay too long for one.
    static std::string joined(std::string path, const std::string& attribute) {
        path.append(1, '.').append(attribute).append(1, '.');
        if (path.size() > kMaxNameLength) path.resize(kMaxNameLength);
        return path;
    }

    bool read_sparse(const ProtoField& sparse, const std::string& prefix, const std::string& fallback) {
        return proto_.message(sparse, [&](const ProtoField& field) {
            if (!fits(kSparseFields, field)) return false;
            if (field.number == 1) return read_tensor(field, prefix, fallback);
            return field.number != 2 || read_tensor(field, prefix, fallback.empty() ? "" : fallback + ".indices");
        });
    }

    bool read_tensor(const ProtoField& tensor, const std::string& prefix, const std::string& fallback) {
        Found found;
        const bool ok = proto_.message(tensor, [&](const ProtoField& field) {
            return fits(kTensorFields, field) && read_tensor_field(field, found);
        });
        if (ok) add(found, prefix, found.name.empty() ? fallback : found.name);
        return ok;
    }

    bool read_tensor_field(const ProtoField& field, Found& found) {
        switch (field.number) {
            case 1:
                return proto_.numbers(field, [&](std::uint64_t dimension) {
                    found.shape.push_back(dimension);
                    return found.shape.size() <= kMaxRank;
                });
            case 2:
                found.type = field.value;
                return true;
            case 3:
                found.elsewhere = true;
                return true;
            case 4:
            case 10:
                // One by one they have a tag between them.
                if (field.wire != Wire::kBytes || found.packed) found.elsewhere = true;
                found.packed = field;
                return true;
            case 8:
                return proto_.text(field, found.name);
            case 9:
                return !std::exchange(found.raw, field);
            case 14:
                found.elsewhere = found.elsewhere || field.value != 0;
                return true;
            default:
                return true;
        }
    }

    // Where the elements of a tensor lie; nothing where they are no plain numbers.
    static std::optional<ProtoField> elements(const Found& found, Dtype dtype) {
        if (found.elsewhere) return std::nullopt;
        if (found.raw) return found.packed ? std::nullopt : found.raw;
        if (!found.packed) return std::nullopt;
        const bool floats = dtype == Dtype::kF32 || dtype == Dtype::kC64;
        const bool doubles = dtype == Dtype::kF64 || dtype == Dtype::kC128;
        return (found.packed->number == 4 ? floats : doubles) ? found.packed : std::nullopt;
    }

    // A tensor that is not as long as it says is left out, as one of a torch zip is.
    void add(Found& found, const std::string& prefix, const std::string& name) {
        const TypeRow type = found.type < kTypes.size() ? kTypes[static_cast<std::size_t>(found.type)] : kTypes[0];
        const std::optional<ProtoField> where = elements(found, type.dtype);
        const std::optional<std::uint64_t> count = element_count(found.shape);
        std::uint64_t bits = 0;
        if (!where || !count || !checked_mul<std::uint64_t>(*count, type.bits, bits)) return;
        if (type.bits != 0 && where->length != bits / 8 + (bits % 8 != 0)) return;
        if (!budget_.take_shape(found.shape.size()) || !budget_.take_tensor()) return;
        Tensor tensor;
        tensor.dtype = type.dtype == Dtype::kF4 && bits % 8 != 0 ? Dtype::kQuantised : type.dtype;
        tensor.shape = std::move(found.shape);
        tensor.offset = where->offset;
        tensor.length = where->length;
        tensor.name = prefix + name;
        if (name.empty() || !budget_.take_name(tensor.name.size()))
            tensor.name = "tensor:" + std::to_string(unnamed_++);
        tensors_.push_back(std::move(tensor));
    }

    ProtoReader& proto_;
    LayoutBudget budget_;
    std::vector<Tensor> tensors_;
    std::uint64_t ir_version_ = 0;
    std::uint64_t graphs_ = 0;
    std::uint64_t unnamed_ = 0;
    bool opsets_ = false;
};

}  // namespace

Result<std::optional<Layout>> parse_onnx(const ByteSource& source) {
    // Fields are written in the order of their numbers, so that the first is ir_version.
    constexpr std::byte kIrVersion{1 << 3 | static_cast<int>(Wire::kVarint)};
    const std::uint64_t size = source.size();
    std::array<std::byte, 1> start;
    if (size < start.size()) return std::optional<Layout>{};
    CORAL_CHECK(source.read_at(0, start));
    if (start[0] != kIrVersion) return std::optional<Layout>{};
    SourceReader reader(source, 0, size);
    ProtoReader proto(reader, size);
    std::optional<std::vector<Tensor>> tensors = OnnxParser(proto).parse();
    if (reader.error()) return *reader.error();
    if (!tensors) return std::optional<Layout>{};
    return finish_layout({Parser::kOnnx, kVersion, std::move(*tensors)}, size);
}

}  // namespace coral::formats
