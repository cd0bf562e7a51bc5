# SPDX-License-Identifier: Apache-2.0
"""Files of every format, as their own libraries write them: the bytes read are the bytes written, and the tensors are
found, under the names and with the shapes that the library says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import material
from driver import Repo, assert_same_tree, cp, tree_sums

Tensors = dict[str, tuple[str, list[int], int]]  # name: dtype, shape, bytes

NUMPY_DTYPES = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64", "i1": "I8", "b1": "BOOL"}
TORCH_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def told(array: np.ndarray) -> tuple[str, list[int], int]:
    return NUMPY_DTYPES[array.dtype.str[1:]], list(array.shape), array.nbytes


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Some too small to be a segment of their own, some of more than one chunk."""
    return {
        "conv.weight": material.weights(64, 300, 5, seed=seed).numpy(),
        "conv.bias": material.weights(300, seed=seed + 1).numpy(),
        "half": material.weights(333, 7, seed=seed + 2).numpy().astype("<f2"),
        "steps": np.arange(5),
        "mask": np.arange(100) % 3 == 0,
        "empty": np.zeros((0, 3), "<f4"),
    }


def write_npz(path: Path) -> Tensors:
    np.savez(path, **arrays())
    return {name: told(array) for name, array in arrays().items()}


def write_compressed_npz(path: Path) -> Tensors:
    np.savez_compressed(path, **arrays())
    return {}


def write_legacy(path: Path) -> Tensors:
    state = {
        "layer.weight": material.weights(300, 200),
        "layer.bias": material.weights(200, seed=1).bfloat16(),
        "step": torch.tensor(7),
    }
    state["tied"] = state["layer.weight"]  # one storage, called by the name that comes first
    torch.save(state, path, _use_new_zipfile_serialization=False)
    del state["tied"]
    return {name: (TORCH_DTYPES[t.dtype], list(t.shape), t.nbytes) for name, t in state.items()}


def write_onnx(path: Path) -> Tensors:
    """Initializers, a Constant, and graphs inside an If; one tensor as numbers of the protobuf and not as raw bytes."""
    inner = {
        "then_branch": material.weights(90, 90, seed=5).numpy(),
        "else_branch": material.weights(9, seed=6).numpy(),
    }
    branches = {}
    for branch, array in inner.items():
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
        nodes = [helper.make_node("Identity", ["w"], ["y"])]
        branches[branch] = helper.make_graph(nodes, branch, [], [output], [numpy_helper.from_array(array, "w")])
    constant = material.weights(40, 50, seed=7).numpy()
    nodes = [
        helper.make_node("If", ["which"], ["chosen"], name="pick", **branches),
        helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(constant)),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays().items()]
    typed = material.weights(70, seed=8).numpy()
    initializers.append(helper.make_tensor("typed", TensorProto.FLOAT, typed.shape, typed))
    inputs = [helper.make_tensor_value_info("which", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["n"])]
    model = helper.make_model(helper.make_graph(nodes, "graph", inputs, outputs, initializers))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    found = {name: told(array) for name, array in arrays().items()}
    found |= {f"pick.{branch}.w": told(array) for branch, array in inner.items()}
    return found | {"table": told(constant), "typed": told(typed)}


def write_gguf(path: Path, endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> Tensors:
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    writer.add_name("a model")
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(2000)])
    writer.add_array("tokenizer.ggml.scores", [float(i) for i in range(2000)])
    found: Tensors = {}
    for name, array in arrays().items():
        if array.dtype.str[1:] in ("b1", "i8") or array.size == 0:
            continue
        writer.add_tensor(name, array)
        found[name] = told(array)
    if endian == gguf.GGUFEndian.LITTLE:
        weights = material.weights(96, 512, seed=9).numpy()
        for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
            blocks = gguf.quants.quantize(weights, kind)
            writer.add_tensor(kind.name, blocks, raw_dtype=kind)
            found[kind.name] = ("QUANTISED", [96, 512], blocks.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def write_big_gguf(path: Path) -> Tensors:
    return write_gguf(path, gguf.GGUFEndian.BIG)


WRITERS: dict[str, tuple[str, Callable[[Path], Tensors]]] = {
    "arrays.npz": ("npz", write_npz),
    "compressed.npz": ("none", write_compressed_npz),
    "legacy.pth": ("torch-legacy", write_legacy),
    "model.onnx": ("onnx", write_onnx),
    "little.gguf": ("gguf", write_gguf),
    "big.gguf": ("gguf", write_big_gguf),
}


def shown_tensors(repo: Repo, what: str) -> tuple[str, Tensors]:
    shown = repo.json("show", what)
    return shown["parser"], {t["name"]: (t["dtype"], t["shape"], t["bytes"]) for t in shown["tensors"]}


def parts(repo: Repo, what: str) -> Iterator[tuple[str, int]]:
    for part in repo.json("show", "--storage", what)["parts"]:
        yield part["name"], part["bytes"]


@pytest.mark.parametrize("name", WRITERS)
def test_tensors_are_found(mounted: Repo, source: Path, name: str) -> None:
    """By `coral add`, then by a copy into the mount: the same record, the same bytes, before and after a remount."""
    parser, write = WRITERS[name]
    wanted = write(source / name)
    mounted.umount()
    mounted.run("add", source / name, "--as", f"added/{name}")
    mounted.run("commit", "-q", "-m", "added")
    assert shown_tensors(mounted, f"main:added/{name}") == (parser, wanted)
    mounted.mount()
    (mounted.main / "copied").mkdir()
    cp(source / name, mounted.main / "copied" / name)
    before = mounted.stored_bytes()
    mounted.commit("copied")
    assert mounted.stored_bytes() - before < 20_000, "the same bytes are stored once"
    assert shown_tensors(mounted, f"main:copied/{name}") == (parser, wanted)
    stored = dict(parts(mounted, f"main:copied/{name}"))
    for tensor, (_, _, length) in wanted.items():
        assert stored[tensor] == length
    assert sum(stored.values()) == (source / name).stat().st_size
    mounted.remount()
    for folder in ("added", "copied"):
        assert_same_tree(mounted.main / folder, tree_sums(source))
    mounted.run("fsck")


def test_one_weight_in_many_containers_is_stored_once(mounted: Repo, source: Path) -> None:
    weight = material.weights(512, 512).numpy()  # 1 MiB
    np.save(source / "w.npy", weight)
    np.savez(source / "w.npz", w=weight)
    torch.save({"w": torch.from_numpy(weight)}, source / "zip.pt")
    torch.save({"w": torch.from_numpy(weight)}, source / "legacy.pt", _use_new_zipfile_serialization=False)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph), source / "w.onnx")
    writer = gguf.GGUFWriter(source / "w.gguf", "llama")
    writer.add_tensor("w", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    cp("-r", f"{source}/.", mounted.main)
    mounted.commit("six containers")
    segments = set()
    for path in source.iterdir():
        storage = mounted.json("show", "--storage", f"main:{path.name}")["parts"]
        part = next(p for p in storage if p["bytes"] == weight.nbytes)
        assert part["name"] == ("npy" if path.suffix == ".npy" else "w")
        segments.add(tuple(segment["id"] for segment in part["segments"]))
    assert len(segments) == 1
    assert_same_tree(mounted.main, tree_sums(source))


def test_a_real_model_as_torchscript_and_onnx(mounted: Repo) -> None:
    """Silero's voice detector: parameters go by their paths in both, and those that were not changed by the export are
    stored once."""
    folder = material.folder("silero-vad-6.2.3")
    script, exported = folder / "silero_vad.jit", folder / "silero_vad_op18_ifless.onnx"
    for path in (script, exported):
        cp(path, mounted.main / path.name)
    mounted.commit("silero")
    parser, found = shown_tensors(mounted, f"main:{script.name}")
    state = torch.jit.load(str(script), map_location="cpu").state_dict()
    assert parser == "torch-zip" and len(state) == 30
    for name, tensor in state.items():
        assert found[name] == (TORCH_DTYPES[tensor.dtype], list(tensor.shape), tensor.nbytes)
    parser, found = shown_tensors(mounted, f"main:{exported.name}")
    arrays_of = {t.name: numpy_helper.to_array(t) for t in onnx.load(exported).graph.initializer}
    assert parser == "onnx" and {name: found[name] for name in arrays_of} == {n: told(a) for n, a in arrays_of.items()}
    parts = {
        path: {p["name"]: p["segments"] for p in mounted.json("show", "--storage", f"main:{path.name}")["parts"]}
        for path in (script, exported)
    }
    # The models for 8 kHz are not the same in the two files. A file record holds up to 64 bytes itself.
    same = [n for n, t in state.items() if t.nbytes > 64 and np.array_equal(arrays_of.get(n.removeprefix("_")), t)]
    assert len(same) > 10
    for name in same:
        assert parts[script][name] == parts[exported][name.removeprefix("_")]


def test_what_only_looks_like_a_format(mounted: Repo, source: Path) -> None:
    """Damaged in the places that parsers read: stored as they are, with or without a layout."""
    for name, (_, write) in WRITERS.items():
        write(source / name)
        whole = (source / name).read_bytes()
        for at in (0, 1, 4, 8, 12, 20, 30, 64, 200, len(whole) // 2, len(whole) - 30):
            damaged = bytearray(whole)
            damaged[at : at + 4] = b"\xff\xff\xff\x7f"
            (source / f"{name}-at-{at}").write_bytes(damaged)
        (source / f"{name}-cut").write_bytes(whole[: len(whole) // 2])
    cp("-r", f"{source}/.", mounted.main)
    mounted.commit("damaged")
    mounted.remount()
    assert_same_tree(mounted.main, tree_sums(source))
