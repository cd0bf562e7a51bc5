// SPDX-License-Identifier: Apache-2.0
// What the names in a torch pickle mean, and what calling them would have given.
#include <algorithm>
#include <array>

#include "formats/limits.hpp"
#include "formats/pickle_machine.hpp"

namespace coral::formats {

namespace {

struct NamedGlobal {
    std::string_view module;
    std::string_view name;
    Global kind;
};
constexpr std::array kGlobals{
    NamedGlobal{"torch._utils", "_rebuild_tensor", Global::kRebuild},
    NamedGlobal{"torch._utils", "_rebuild_tensor_v2", Global::kRebuild},
    NamedGlobal{"torch._utils", "_rebuild_tensor_v3", Global::kRebuildV3},
    NamedGlobal{"torch._utils", "_rebuild_qtensor", Global::kRebuildQ},
    NamedGlobal{"torch._utils", "_rebuild_parameter", Global::kFirstArgument},
    NamedGlobal{"torch._utils", "_rebuild_parameter_with_state", Global::kFirstArgument},
    NamedGlobal{"torch._utils", "_rebuild_device_tensor_from_cpu_tensor", Global::kFirstArgument},
    NamedGlobal{"torch._tensor", "_rebuild_from_type", Global::kRebuildFrom},
    NamedGlobal{"torch._tensor", "_rebuild_from_type_v2", Global::kRebuildFrom},
    NamedGlobal{"torch.nn.parameter", "Parameter", Global::kFirstArgument},
    NamedGlobal{"torch.nn.parameter", "Buffer", Global::kFirstArgument},
    NamedGlobal{"torch", "Size", Global::kFirstArgument},
    NamedGlobal{"torch.jit._pickle", "restore_type_tag", Global::kFirstArgument},
    NamedGlobal{"torch.jit._pickle", "build_intlist", Global::kFirstArgument},
    NamedGlobal{"torch.jit._pickle", "build_doublelist", Global::kFirstArgument},
    NamedGlobal{"torch.jit._pickle", "build_boollist", Global::kFirstArgument},
    NamedGlobal{"torch.jit._pickle", "build_tensorlist", Global::kFirstArgument},
    NamedGlobal{"collections", "OrderedDict", Global::kDictType},
    NamedGlobal{"collections", "defaultdict", Global::kDictType},
    NamedGlobal{"collections", "Counter", Global::kDictType},
    NamedGlobal{"builtins", "dict", Global::kDictType},
    NamedGlobal{"builtins", "set", Global::kFirstArgument},
    NamedGlobal{"builtins", "frozenset", Global::kFirstArgument},
    NamedGlobal{"builtins", "list", Global::kFirstArgument},
    NamedGlobal{"builtins", "tuple", Global::kFirstArgument},
};

struct NamedDtype {
    std::string_view name;
    Dtype dtype;
};
// torch.<name>
constexpr std::array kTorchDtypes{
    NamedDtype{"bool", Dtype::kBool},
    NamedDtype{"uint8", Dtype::kU8},
    NamedDtype{"int8", Dtype::kI8},
    NamedDtype{"uint16", Dtype::kU16},
    NamedDtype{"int16", Dtype::kI16},
    NamedDtype{"short", Dtype::kI16},
    NamedDtype{"uint32", Dtype::kU32},
    NamedDtype{"int32", Dtype::kI32},
    NamedDtype{"int", Dtype::kI32},
    NamedDtype{"uint64", Dtype::kU64},
    NamedDtype{"int64", Dtype::kI64},
    NamedDtype{"long", Dtype::kI64},
    NamedDtype{"float16", Dtype::kF16},
    NamedDtype{"half", Dtype::kF16},
    NamedDtype{"bfloat16", Dtype::kBF16},
    NamedDtype{"float32", Dtype::kF32},
    NamedDtype{"float", Dtype::kF32},
    NamedDtype{"float64", Dtype::kF64},
    NamedDtype{"double", Dtype::kF64},
    NamedDtype{"complex64", Dtype::kC64},
    NamedDtype{"cfloat", Dtype::kC64},
    NamedDtype{"complex128", Dtype::kC128},
    NamedDtype{"cdouble", Dtype::kC128},
    NamedDtype{"float8_e4m3fn", Dtype::kF8E4M3},
    NamedDtype{"float8_e5m2", Dtype::kF8E5M2},
    NamedDtype{"float8_e8m0fnu", Dtype::kF8E8M0},
    NamedDtype{"float8_e4m3fnuz", Dtype::kF8E4M3Fnuz},
    NamedDtype{"float8_e5m2fnuz", Dtype::kF8E5M2Fnuz},
    NamedDtype{"float4_e2m1fn_x2", Dtype::kF4},
};
// torch.<name>Storage: the first block is what Python writes, the second what TorchScript adds (c10::toString).
constexpr std::array kStorageTypes{
    NamedDtype{"Double", Dtype::kF64},
    NamedDtype{"Float", Dtype::kF32},
    NamedDtype{"Half", Dtype::kF16},
    NamedDtype{"BFloat16", Dtype::kBF16},
    NamedDtype{"Long", Dtype::kI64},
    NamedDtype{"Int", Dtype::kI32},
    NamedDtype{"Short", Dtype::kI16},
    NamedDtype{"Char", Dtype::kI8},
    NamedDtype{"Byte", Dtype::kU8},
    NamedDtype{"Bool", Dtype::kBool},
    NamedDtype{"ComplexDouble", Dtype::kC128},
    NamedDtype{"ComplexFloat", Dtype::kC64},
    NamedDtype{"QInt8", Dtype::kQuantised},
    NamedDtype{"QUInt8", Dtype::kQuantised},
    NamedDtype{"QInt32", Dtype::kQuantised},
    NamedDtype{"QUInt4x2", Dtype::kQuantised},
    NamedDtype{"QUInt2x4", Dtype::kQuantised},

    NamedDtype{"UInt16", Dtype::kU16},
    NamedDtype{"UInt32", Dtype::kU32},
    NamedDtype{"UInt64", Dtype::kU64},
    NamedDtype{"Float8_e4m3fn", Dtype::kF8E4M3},
    NamedDtype{"Float8_e5m2", Dtype::kF8E5M2},
    NamedDtype{"Float8_e8m0fnu", Dtype::kF8E8M0},
    NamedDtype{"Float8_e4m3fnuz", Dtype::kF8E4M3Fnuz},
    NamedDtype{"Float8_e5m2fnuz", Dtype::kF8E5M2Fnuz},
};

template <class Table>
std::optional<Dtype> find_dtype(const Table& table, std::string_view name) {
    auto it = std::find_if(table.begin(), table.end(), [name](const NamedDtype& row) { return row.name == name; });
    if (it == table.end()) return std::nullopt;
    return it->dtype;
}

// In a file without sizes they decide where the next storage starts. 0: not known.
std::uint8_t element_bytes(std::string_view name, Dtype dtype) {
    if (dtype != Dtype::kQuantised) return static_cast<std::uint8_t>(dtype_bits(dtype) / 8);
    if (name == "QInt32") return 4;
    return find_dtype(kStorageTypes, name) ? 1 : 0;
}

// A storage type that we do not know still names bytes of the file: kQuantised, "bytes with a meaning we do not code".
Value storage_type(std::string_view name) {
    if (name == "Untyped" || name == "_Untyped" || name == "Typed" || name == "_Typed") {
        return Value::global(Global::kStorageType, Dtype::kUnknown, 1);
    }
    const Dtype dtype = find_dtype(kStorageTypes, name).value_or(Dtype::kQuantised);
    return Value::global(Global::kStorageType, dtype, element_bytes(name, dtype));
}

}  // namespace

Value resolve_global(std::string_view module, std::string_view name) {
    constexpr std::string_view kStorage = "Storage";
    if (module == "__builtin__") module = "builtins";  // Python 2, and Python 3 for protocols below 3
    if (module == "torch" || module == "torch.cuda" || module == "torch.storage") {
        if (name.ends_with(kStorage)) return storage_type(name.substr(0, name.size() - kStorage.size()));
        if (auto dtype = find_dtype(kTorchDtypes, name)) return Value::global(Global::kDtype, *dtype);
    }
    for (const NamedGlobal& row : kGlobals) {
        if (row.name == name && row.module == module) return Value::global(row.kind);
    }
    return Value::global(Global::kOther);
}

bool PickleMachine::push_persistent(Value id) {
    const Value type = heap_.item(id, 1), key = heap_.item(id, 2), count = heap_.item(id, 4);
    const bool is_storage = heap_.text(heap_.item(id, 0)) == "storage" && type.is_global(Global::kStorageType) &&
                            key.tag() == Tag::kText && count.tag() == Tag::kInt && count.as_int() >= 0;
    if (!is_storage) return push(Value());
    if (!heap_.charge(sizeof(PickledStorage))) return false;
    PickledStorage storage;
    storage.key = key;
    storage.dtype = type.global_dtype();
    storage.untyped = storage.dtype == Dtype::kUnknown;
    storage.count = static_cast<std::uint64_t>(count.as_int());
    storage.element_bytes = type.global_element_bytes();
    out_.storages_.push_back(storage);
    return push(Value::of(Tag::kStorage, out_.storages_.size() - 1));
}

bool PickleMachine::push_object(Value arguments, Value state) {
    Value object;
    if (!heap_.make_node(Tag::kObject, object)) return false;
    heap_.node(object).arguments = arguments;
    heap_.node(object).state = state;
    return push(object);
}

bool PickleMachine::push_call(Value callable, Value arguments) {
    Value state;
    if (callable.is_global(Global::kRebuildFrom)) {  // once: a nested one is as opaque as any other
        callable = heap_.item(arguments, 0);
        state = heap_.item(arguments, 3);
        arguments = heap_.item(arguments, 2);
    }
    const Global kind = callable.tag() == Tag::kGlobal ? callable.global_kind() : Global::kOther;
    switch (kind) {
        case Global::kRebuild:
        case Global::kRebuildV3:
        case Global::kRebuildQ:
            if (heap_.item(arguments, 0).tag() == Tag::kStorage) return push_tensor(kind, arguments);
            return push_object(arguments, state);
        case Global::kFirstArgument: {
            Value first = heap_.item(arguments, 0);
            return first.tag() == Tag::kOpaque ? push_object(arguments, state) : push(first);
        }
        case Global::kDictType:
            return push_container(Tag::kDict, 0);
        default:
            return push_object(arguments, state);
    }
}

bool PickleMachine::push_tensor(Global kind, Value arguments) {
    if (!heap_.charge(sizeof(PickledTensor))) return false;
    PickledTensor tensor;
    tensor.storage = heap_.item(arguments, 0).index();
    const Value offset = heap_.item(arguments, 1);
    tensor.offset = offset.tag() == Tag::kInt ? offset.as_int() : -1;
    tensor.size = heap_.item(arguments, 2);
    tensor.stride = heap_.item(arguments, 3);
    if (kind == Global::kRebuildQ) tensor.quantiser = heap_.item(arguments, 4);
    const Value dtype = kind == Global::kRebuildV3 ? heap_.item(arguments, 6) : Value();
    if (dtype.is_global(Global::kDtype)) tensor.dtype = dtype.global_dtype();
    out_.tensors_.push_back(tensor);
    return push(Value::of(Tag::kTensor, out_.tensors_.size() - 1));
}

bool TorchPickle::dense_shape(const PickledTensor& tensor, std::vector<std::uint64_t>& out) const {
    if (tensor.offset != 0 || tensor.size.tag() != Tag::kTuple || tensor.stride.tag() != Tag::kTuple) return false;
    const std::uint32_t rank = heap_.node(tensor.size).count;
    if (rank > kMaxRank || heap_.node(tensor.stride).count != rank) return false;
    out.assign(rank, 0);
    std::uint64_t step = 1;
    bool dense = true, empty = false;
    for (std::uint32_t i = rank; i-- > 0;) {
        const Value size = heap_.item(tensor.size, i), stride = heap_.item(tensor.stride, i);
        if (size.tag() != Tag::kInt || size.as_int() < 0 || stride.tag() != Tag::kInt) return false;
        out[i] = static_cast<std::uint64_t>(size.as_int());
        if (out[i] == 0) empty = true;
        if (out[i] != 1 && static_cast<std::uint64_t>(stride.as_int()) != step) dense = false;
        if (!empty && !checked_mul<std::uint64_t>(step, out[i], step)) return false;
    }
    return dense || empty;  // no stride is wrong for a tensor without elements
}

}  // namespace coral::formats
