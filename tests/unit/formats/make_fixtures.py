#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the small real files in fixtures/ and, beside each, what the real libraries say is in it.

    python3 -m venv VENV && VENV/bin/pip install torch==2.13.0 numpy safetensors onnx gguf
    VENV/bin/python make_fixtures.py

FILE.expected has one line per tensor that has bytes of its own in FILE, in any order:
name, dtype as safetensors spells it, shape ("2,3"), the bytes in hex. Names, dtypes and shapes come from torch, NumPy,
safetensors, onnx and gguf, not from our parser. A file without .expected must not get a layout.
"""
import collections
import io
import pathlib
import zipfile

import gguf
import numpy as np
import onnx
import safetensors.torch
import torch

OUT = pathlib.Path(__file__).parent / "fixtures"
DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float32: "F32", torch.float64: "F64", torch.complex64: "C64", torch.complex128: "C128",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.float4_e2m1fn_x2: "F4",
    torch.qint8: "QUANTISED", torch.quint8: "QUANTISED", torch.qint32: "QUANTISED",
}


def storage_bytes(tensor):
    storage = tensor.untyped_storage()
    return bytes(torch.empty(0, dtype=torch.uint8).set_(storage).tolist())


def line(name, tensor, shape):
    return "\t".join([name, DTYPES[tensor.dtype], ",".join(map(str, shape)), storage_bytes(tensor).hex()])


def write_expected(name, lines):
    (OUT / (name + ".expected")).write_text("".join(text + "\n" for text in lines))


def expect_storages(name, tensors):
    """tensors: (path, tensor) in the order of the file's pickle. One line per storage."""
    groups = collections.OrderedDict()
    for path, tensor in tensors:
        storage = tensor.untyped_storage()
        groups.setdefault(storage._cdata if storage.nbytes() == 0 else storage.data_ptr(), []).append((path, tensor))
    lines = []
    for group in groups.values():
        path, first = group[0]
        size = first.untyped_storage().nbytes()
        shape = [size // first.element_size()]
        for _, tensor in group:
            dense = tensor.storage_offset() == 0 and tensor.is_contiguous()
            if dense and tensor.numel() * tensor.element_size() == size:
                shape = list(tensor.shape)
                break
        if first.dtype == torch.float4_e2m1fn_x2:  # torch counts pairs, safetensors their halves
            shape[-1] *= 2
        lines.append(line(path, first, shape))
    write_expected(name, lines)


def save(name, obj, tensors, **options):
    torch.save(obj, OUT / name, **options)
    expect_storages(name, tensors)


def seeded(*shape):
    return torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float32).reshape(shape) / 7


def make_state_dict():
    base = seeded(4, 3)
    view = torch.zeros(10)
    state = collections.OrderedDict()
    state["embed.weight"] = base
    state["head.weight"] = base  # tied
    state["slice"] = view[2:6]  # part of a storage
    state["whole"] = view  # all of the same storage, seen second
    state["transposed"] = seeded(2, 3).t()
    state["half"] = seeded(2, 2).half()
    state["bf16"] = seeded(3).bfloat16()
    state["steps"] = torch.tensor(41)  # no dimensions
    state["mask"] = torch.tensor([True, False, True])
    state["empty"] = torch.zeros(0, 5)
    state["complex"] = torch.tensor([1 + 2j])
    state["u16"] = torch.tensor([1, 65535], dtype=torch.uint16)
    state["f8"] = seeded(4).to(torch.float8_e4m3fn)
    state["f4"] = torch.tensor([1, 2], dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    return state


def make_training():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(seeded(3, 2)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3, "lr": np.float64(1e-3), "array": np.arange(4), "seen": {1, 2}, "frozen": frozenset(["a"]),
        "raw": b"\x00\x01", "big": 2**200, "none": None, "pair": (torch.ones(1), [torch.zeros(2), "text"]),
        "size": torch.Size([2, 3]), "dtype": torch.float32, "device": torch.device("cpu"), "long": "x" * 300,
        "where": pathlib.PurePosixPath("a/b"), "default": collections.defaultdict(list, k=[torch.full((1,), 5.0)]),
    }


def walk(obj, path=""):
    if isinstance(obj, torch.Tensor):
        yield path, obj
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield from walk(value, f"{path}.{key}" if path else str(key))
    elif isinstance(obj, (list, tuple)):
        for i, value in enumerate(obj):
            yield from walk(value, f"{path}.{i}" if path else str(i))


def make_torch():
    state = make_state_dict()
    save("state_dict.pt", state, list(state.items()))
    for protocol in (3, 4, 5):
        small = {"a": seeded(2), "nested": {"b": [seeded(3), {"c": torch.ones(1)}]}}
        save(f"protocol{protocol}.pt", small, list(walk(small)), pickle_protocol=protocol)
    training = make_training()
    save("training.pt", training, list(walk(training)))
    module = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    save("module.pt", module, list(module.state_dict(keep_vars=True).items()))
    parameter = torch.nn.Parameter(seeded(2, 2))
    parameter.note = "attributes make it _rebuild_parameter_with_state"
    save("parameter.pt", {"p": parameter, "s": seeded(2).untyped_storage()}, [("p", parameter)])
    with (OUT / "parameter.pt.expected").open("a") as file:
        file.write("\t".join(["s", "U8", "8", storage_bytes(seeded(2)).hex()]) + "\n")
    sparse = torch.sparse_coo_tensor([[0, 2]], [3.0, 4.0], (5,)).coalesce()
    save("sparse.pt", {"x": sparse}, [("x.1.0", sparse._indices()), ("x.1.1", sparse._values())])
    quantised = torch.quantize_per_channel(seeded(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8)
    save("quantised.pt", {"q": quantised}, [("q", quantised), ("q.scale", quantised.q_per_channel_scales()),
                                           ("q.zero_point", quantised.q_per_channel_zero_points())])
    make_legacy(state)


def make_legacy(state):
    old = {"_use_new_zipfile_serialization": False}
    save("legacy.pt", {"legacy": seeded(2)}, [("legacy", seeded(2))], **old)
    # Of dtypes without a storage class of their own it keeps bytes.
    state = {k: v for k, v in state.items() if k not in ("u16", "f8", "f4", "empty")}
    save("legacy_state.pt", state, list(state.items()), **old)
    training = make_training()
    save("legacy_training.pt", training, list(walk(training)), pickle_protocol=4, **old)
    per_tensor = torch.quantize_per_tensor(seeded(3), 0.1, 2, torch.qint32)
    mixed = {"q": per_tensor, "p": torch.nn.Parameter(seeded(2, 2))}
    save("legacy_quantised.pt", mixed, list(mixed.items()), **old)
    with (OUT / "legacy_two.pt").open("wb") as file:  # two objects in one file: the first is found
        for value in (mixed, state):
            torch.save(value, file, **old)
    expect_storages("legacy_two.pt", list(mixed.items()))


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 2)
        self.tied = self.inner.weight
        self.register_buffer("counts", torch.arange(4))
        self.sizes = [1, 2, 3]
        self.table = {"x": seeded(2)}

    def forward(self, x):
        return self.inner(x)


def make_torchscript():
    module = Scripted().eval()
    scripted = torch.jit.script(module)
    scripted.save(str(OUT / "script.jit"))
    expect_storages("script.jit", [("counts", module.counts), ("table.x", module.table["x"]), ("tied", module.tied),
                                   ("inner.bias", module.inner.bias)])
    frozen = torch.jit.freeze(scripted)
    frozen.save(str(OUT / "frozen.jit"))
    constants = [("constants.0", module.inner.weight), ("constants.1", module.inner.bias)]
    expect_storages("frozen.jit", constants)


class Unseekable(io.RawIOBase):
    """Makes zipfile write data descriptors."""

    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


def make_repacked():
    """The same archive as other zip programs would write it."""
    state = {"w": seeded(3, 2), "b": torch.ones(3)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    members = [(info.filename, zipfile.ZipFile(buffer).read(info)) for info in zipfile.ZipFile(buffer).infolist()]
    with (OUT / "streamed.pt").open("wb") as file, zipfile.ZipFile(Unseekable(file), "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    expect_storages("streamed.pt", list(state.items()))
    with zipfile.ZipFile(OUT / "zip64.pt", "w") as archive:
        archive.comment = b"a comment"
        for name, data in members:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    expect_storages("zip64.pt", list(state.items()))
    with zipfile.ZipFile(OUT / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    write_expected("deflated.pt", [])
    with zipfile.ZipFile(OUT / "deflated_pickle.pt", "w") as archive:
        for name, data in members:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name.endswith(".pkl") else zipfile.ZIP_STORED)
    write_expected("deflated_pickle.pt", ["\t".join([f"storage:{i}", "UNKNOWN", str(t.nbytes), storage_bytes(t).hex()])
                                          for i, t in enumerate(state.values())])


def make_safetensors():
    state = {k: v for k, v in make_state_dict().items() if k not in ("head.weight", "slice", "transposed")}
    state["f8_e5m2"] = seeded(4).to(torch.float8_e5m2)
    state["f8_e8m0"] = seeded(4).to(torch.float8_e8m0fnu)
    safetensors.torch.save_file(state, OUT / "all.safetensors", metadata={"format": "pt", "note": "\u00e9 \"quoted\""})
    lines = []
    for name, tensor in state.items():
        shape = list(tensor.shape)
        if tensor.dtype == torch.float4_e2m1fn_x2:
            shape[-1] *= 2
        lines.append(line(name, tensor, shape))
    write_expected("all.safetensors", lines)
    safetensors.torch.save_file({}, OUT / "none.safetensors")
    write_expected("none.safetensors", [])


def save_npy(name, array, dtype, version=None):
    with (OUT / name).open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    if dtype:
        raw = array.tobytes("F" if np.isfortran(array) else "C")
        write_expected(name, ["\t".join(["npy", dtype, ",".join(map(str, array.shape)), raw.hex()])])


def make_npy():
    values = np.arange(6).reshape(2, 3)
    save_npy("f4.npy", values.astype("<f4"), "F32")
    save_npy("fortran.npy", np.asfortranarray(values.astype("<f8")), "F64")
    save_npy("big.npy", values.astype(">i4"), "I32")
    save_npy("v2.npy", values.astype("<u2"), "U16", (2, 0))
    save_npy("v3.npy", values.astype("?"), "BOOL", (3, 0))
    save_npy("scalar.npy", np.float16(1.5).reshape(()), "F16")
    save_npy("empty.npy", np.zeros((0, 3), "<c8"), "C64")
    save_npy("time.npy", np.array(["2024-01-01"], "M8[ns]"), "I64")
    save_npy("longdouble.npy", np.arange(2).astype(np.longdouble), "F80")
    save_npy("text.npy", np.array(["ab", "c"]), "UNKNOWN")
    save_npy("struct.npy", np.zeros(2, [("a", "<f4"), ("b", "<i4")]), None)
    with (OUT / "object.npy").open("wb") as file:
        np.save(file, np.array([{}, None]), allow_pickle=True)


def make_npz():
    arrays = {"a": np.arange(6).reshape(2, 3), "layer/b": np.arange(3).astype(">f4"), "empty": np.zeros((0, 2), "<f2")}
    rows = {"a": "I64", "layer/b": "F32", "empty": "F16"}
    np.savez(OUT / "two.npz", **arrays)
    write_expected("two.npz", ["\t".join([k, rows[k], ",".join(map(str, v.shape)), v.tobytes().hex()])
                               for k, v in arrays.items()])
    np.savez(OUT / "objects.npz", numbers=np.arange(2.0), things=np.array([{}, None]))
    write_expected("objects.npz", ["\t".join(["numbers", "F64", "2", np.arange(2.0).tobytes().hex()])])
    np.savez_compressed(OUT / "compressed.npz", a=np.arange(6))


ONNX_TYPES = {
    "FLOAT": "F32", "DOUBLE": "F64", "INT64": "I64", "INT8": "I8", "FLOAT16": "F16", "BFLOAT16": "BF16", "BOOL": "BOOL",
    "UINT4": "QUANTISED", "FLOAT8E4M3FN": "F8_E4M3",
}


def raw(name, array, data_type=None):
    """A TensorProto with raw_data."""
    made = onnx.numpy_helper.from_array(np.asarray(array), name)
    if data_type is not None:
        made.data_type = data_type
    return made


def onnx_line(path, tensor):
    data = tensor.raw_data or np.array(tensor.float_data or tensor.double_data,
                                       "<f4" if tensor.float_data else "<f8").tobytes()
    dtype = ONNX_TYPES[onnx.TensorProto.DataType.Name(tensor.data_type)]
    return "\t".join([path, dtype, ",".join(map(str, tensor.dims)), data.hex()])


def make_onnx():
    helper, kinds = onnx.helper, onnx.TensorProto
    arrays = {
        "conv.weight": np.arange(24, dtype="<f4").reshape(2, 3, 4), "conv.bias": np.ones(2, "<f4"),
        "half": np.arange(5).astype("<f2"), "long": np.arange(3), "mask": np.array([True, False]),
        "scalar": np.float64(2.5), "quantised": np.arange(-4, 4).astype("i1"),
    }
    initializers = [raw(name, array) for name, array in arrays.items()]
    initializers.append(raw("bf16", np.arange(4, dtype="<u2"), kinds.BFLOAT16))
    initializers.append(raw("f8", np.arange(7, dtype="u1"), kinds.FLOAT8E4M3FN))
    packed = kinds(name="u4", data_type=kinds.UINT4, dims=[3], raw_data=b"\x21\x03")
    initializers.append(packed)
    initializers.append(helper.make_tensor("typed", kinds.FLOAT, [3], [1.0, 2.0, 3.0]))  # float_data
    initializers.append(helper.make_tensor("typed64", kinds.DOUBLE, [2], [1.0, 2.0]))  # double_data
    lines = [onnx_line(t.name, t) for t in initializers]
    # Nothing to find: integers as varints, texts, elements in another file.
    initializers.append(helper.make_tensor("varints", kinds.INT64, [2], [1, 300]))
    initializers.append(helper.make_tensor("texts", kinds.STRING, [2], ["a", "b"]))
    external = kinds(name="outside", data_type=kinds.FLOAT, dims=[2], data_location=kinds.EXTERNAL)
    external.external_data.add(key="location", value="weights.bin")
    initializers.append(external)

    def constant(output, value, name=""):
        return helper.make_node("Constant", [], [output], name=name, value=value)

    branches = {}
    for branch, first in (("then_branch", 0), ("else_branch", 10)):
        inner = raw("inner.weight", np.arange(first, first + 4, dtype="<f4"))
        named, nameless = raw("decoder.bias", np.ones(3, "<f4") * first), raw("", np.arange(first, first + 2))
        nodes = [constant("c1", named), constant("c2", nameless, "other"), helper.make_node("Identity", ["c1"], ["y"])]
        out = helper.make_tensor_value_info("y", kinds.FLOAT, None)
        branches[branch] = helper.make_graph(nodes, branch, [], [out], [inner])
        lines += [onnx_line(f"pick.{branch}.{path}", tensor)
                  for path, tensor in (("inner.weight", inner), ("decoder.bias", named), ("c2", nameless))]
    fill = raw("", np.array([0.5], "<f4"))
    lines.append(onnx_line("filled", fill))
    nodes = [
        helper.make_node("If", ["mask"], ["picked"], name="pick", **branches),
        helper.make_node("ConstantOfShape", ["long"], ["filled"], value=fill),
    ]
    table = raw("", np.arange(3, dtype="<f8"))
    nodes.append(helper.make_node("TreeEnsemble", ["picked"], ["voted"], domain="ai.onnx.ml", leaf_weights=table))
    lines.append(onnx_line("voted.leaf_weights", table))
    picked = helper.make_tensor_value_info("picked", kinds.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [picked], initializers)
    body = raw("", np.arange(6, dtype="<f4"))
    function = helper.make_function("local", "Scale", [], ["z"], [constant("z", body)], [helper.make_opsetid("", 18)])
    lines.append(onnx_line("Scale.z", body))
    model = helper.make_model(graph, functions=[function], opset_imports=[helper.make_opsetid("", 18)])
    model.metadata_props.add(key="made by", value="make_fixtures.py")
    (OUT / "all.onnx").write_bytes(model.SerializeToString())
    write_expected("all.onnx", lines)


def make_gguf():
    values = {
        "token_embd.weight": np.arange(12, dtype="<f4").reshape(4, 3), "norm.bias": np.arange(3).astype("<f2"),
        "steps": np.arange(5).astype("<i8"), "small": np.arange(6).astype("i1").reshape(1, 2, 3),
        "double": np.arange(2).astype("<f8"),
    }
    dtypes = {"<f4": "F32", "<f2": "F16", "<i8": "I64", "|i1": "I8", "<f8": "F64"}
    quantised = np.arange(2 * 34 * 3, dtype="u1").reshape(3, 68)  # rows of two blocks of Q8_0: 64 elements
    for name, endian in (("little.gguf", gguf.GGUFEndian.LITTLE), ("big.gguf", gguf.GGUFEndian.BIG)):
        writer = gguf.GGUFWriter(OUT / name, "llama", endianess=endian)
        writer.add_block_count(1)
        writer.add_array("tokens", ["a", "bc", ""])
        writer.add_array("scores", [1.5, 2.5])
        writer.add_bool("flag", True)
        writer.add_uint64("many", 1 << 40)
        if endian == gguf.GGUFEndian.LITTLE:
            writer.add_custom_alignment(64)
        lines = []
        for key, value in values.items():
            order = ">" if endian == gguf.GGUFEndian.BIG else "<"
            lines.append("\t".join([key, dtypes[value.dtype.str], ",".join(map(str, value.shape)),
                                    value.astype(value.dtype.newbyteorder(order)).tobytes().hex()]))
            writer.add_tensor(key, value.copy())
        if endian == gguf.GGUFEndian.LITTLE:
            writer.add_tensor("q.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            lines.append("\t".join(["q.weight", "QUANTISED", "3,64", quantised.tobytes().hex()]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_expected(name, lines)


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(1)
    make_torch()
    make_torchscript()
    make_repacked()
    make_safetensors()
    make_npy()
    make_npz()
    make_onnx()
    make_gguf()
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:6} {path.name}")


if __name__ == "__main__":
    main()
