# SPDX-License-Identifier: Apache-2.0
"""What a save costs, asserted on the bytes in the packs: nothing is stored twice, under whatever name or container."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

import material
from driver import Repo, assert_same_tree, cp, sha256sum


@contextmanager
def costs_at_most(repo: Repo, size: int, count: int) -> Iterator[None]:
    """The commits inside may cost 1 % of `size` and 200 bytes for each of `count` tensors."""
    before = repo.stored_bytes()
    yield
    spent = repo.stored_bytes() - before
    limit = size // 100 + 200 * count
    assert 0 < spent <= limit, f"{spent} bytes stored for {size} bytes with {count} tensors; at most {limit}"


def tensor_count(path: Path) -> int:
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, framework="pt") as file:
            return len(file.keys())
    loaded = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    return sum(isinstance(v, torch.Tensor) for v in loaded.values())


def store(repo: Repo, source: Path, name: str) -> None:
    (repo.main / name).parent.mkdir(parents=True, exist_ok=True)
    cp(source, repo.main / name)
    repo.commit(name)


@pytest.mark.parametrize(
    "file",
    [
        f"{material.MODELS[0]}/model.safetensors",
        "short/step-0015.pth",
        "short/step-0015-bf16.safetensors",
        "silero-vad-6.2.3/silero_vad.onnx",
        "chgnet-0.1.4/e30f77s348m32.pth.tar",
    ],
)
def test_second_copy_costs_next_to_nothing(mounted: Repo, file: str) -> None:
    source = material.folder(file.partition("/")[0]) / file.partition("/")[2]
    size = source.stat().st_size
    count = tensor_count(source) if source.suffix in (".safetensors", ".pth") else 400
    store(mounted, source, "first.bin")
    # The first copy costs at most what it is; anything else would be a leak that the difference below cannot show.
    assert mounted.stored_bytes() <= size * 1.01 + 300 * count + 65536
    with costs_at_most(mounted, size, count):
        store(mounted, source, "again/under another name.safetensors")
    with costs_at_most(mounted, size, count):  # out of a commit, through the mount
        cp(mounted.mnt / "at" / "main" / "first.bin", mounted.main / "third.bin")
        mounted.commit("third")
    mounted.remount()
    names = ["first.bin", "again/under another name.safetensors", "third.bin"]
    assert len(set(sha256sum([source, *(mounted.main / n for n in names)]))) == 1


def test_same_model_from_two_publishers(mounted: Repo) -> None:
    first, second = material.folder(material.MODELS[0]), material.folder(material.MODELS[1])
    cp("-r", first, mounted.main / "one")
    mounted.commit("one")
    model = second / "model.safetensors"
    extra = sum(p.stat().st_size for p in second.rglob("*") if p.is_file() and p != model)
    with costs_at_most(mounted, model.stat().st_size + 100 * extra, tensor_count(model)):
        cp("-r", second, mounted.main / "two")
        mounted.commit("two")
    assert_same_tree(mounted.main / "two", second)


def test_same_tensors_in_the_other_container(mounted: Repo, source: Path) -> None:
    """.pth after .safetensors, and back, and the same tensors in another order, and with an optimizer beside them."""
    model = material.folder("short") / "step-0015.safetensors"
    state = safetensors.torch.load_file(model)
    size, count = model.stat().st_size, len(state)
    store(mounted, model, "model.safetensors")
    with costs_at_most(mounted, size, count):
        store(mounted, material.folder("short") / "step-0015.pth", "model.pth")
    with costs_at_most(mounted, size, count):
        torch.save({"state_dict": state, "epoch": 7}, mounted.main / "inner.pth")
        mounted.commit("nested in a dict")
    backwards = [
        (f"module.{name}", {torch.float32: "F32", torch.int64: "I64"}[value.dtype], list(value.shape), value)
        for name, value in reversed(state.items())
    ]
    payload = material.safetensors_bytes([(n, d, s, v.numpy().tobytes()) for n, d, s, v in backwards], {"by": "hand"})
    with costs_at_most(mounted, size, count):
        (mounted.main / "renamed.safetensors").write_bytes(payload)
        mounted.commit("other order, other names")
    mounted.remount()
    loaded = torch.load(mounted.main / "inner.pth", weights_only=True, mmap=True)["state_dict"]
    again = safetensors.torch.load_file(mounted.main / "renamed.safetensors")
    assert all(torch.equal(loaded[k], v) and torch.equal(again[f"module.{k}"], v) for k, v in state.items())


def test_safetensors_after_torch(mounted: Repo) -> None:
    trained = material.folder("short") / "step-0015.pth"
    store(mounted, trained, "model.pth")
    state = torch.load(trained, weights_only=True, map_location="cpu")
    with costs_at_most(mounted, trained.stat().st_size, len(state)):
        safetensors.torch.save_file(state, mounted.main / "model.safetensors")
        mounted.commit("other container")


def test_training_checkpoint_shares_its_weights(mounted: Repo) -> None:
    """{model, optimizer, …}: the weights are stored already; only moments and small things are new."""
    short = material.folder("short")
    store(mounted, short / "step-0015.safetensors", "model.safetensors")
    weights, training = ((short / n).stat().st_size for n in ("step-0015.safetensors", "training-step-0015.pth"))
    with costs_at_most(mounted, 100 * (training - weights) + training, 3 * 103):
        store(mounted, short / "training-step-0015.pth", "training.pth")


def test_appended_rows_share_the_rest(mounted: Repo) -> None:
    """A grown embedding keeps its offset and has more rows: only what is new, and the tail of its last part, costs."""
    short = material.folder("short")
    store(mounted, short / "step-0015.safetensors", "model.safetensors")
    grown = short / "step-0015-grown.safetensors"
    rows = 64 * 384 * 4
    with costs_at_most(mounted, grown.stat().st_size + 100 * (rows + (512 << 10)), tensor_count(grown)):
        store(mounted, grown, "model.safetensors")
    mounted.remount()
    assert sha256sum([mounted.main / "model.safetensors"]) == sha256sum([grown])


def test_rewriting_the_same_bytes_is_no_change(mounted: Repo) -> None:
    model = material.folder("silero-vad-6.2.3") / "silero_vad_16k.safetensors"
    store(mounted, model, "model.safetensors")
    before = mounted.stored_bytes()
    cp(model, mounted.main / "model.safetensors")
    os.utime(mounted.main / "model.safetensors")
    assert mounted.status() == {}
    mounted.coral.run("commit", "-m", "nothing", cwd=mounted.main, expect=1)
    # Hints for recovery may be written; contents are not.
    assert mounted.stored_bytes() - before < 4096


def test_zeros_cost_nothing(mounted: Repo) -> None:
    with (mounted.main / "zeros").open("wb") as file:
        file.truncate(256 << 20)
    with costs_at_most(mounted, 0, 2000):
        mounted.commit("zeros")
    assert (mounted.main / "zeros").stat().st_size == 256 << 20


def test_stored_bytes_are_the_packs_bytes(mounted: Repo) -> None:
    store(mounted, material.folder("silero-vad-5.1.2") / "silero_vad.jit", "vad.jit")
    on_disk = sum(p.stat().st_size for p in mounted.packs())
    assert mounted.stored_bytes() == on_disk
    told = int(os.getxattr(mounted.mnt / "at" / "main" / "vad.jit", "user.coral.stored"))
    assert 0 < told <= on_disk


def rewritten(
    source: Path, target: Path, change: Callable[[int, str, torch.Tensor], tuple[str, torch.Tensor]]
) -> None:
    """The tensors of `source`, each as `change(number, name, tensor)` makes a name and a tensor of it."""
    tensors = safetensors.torch.load_file(source)
    safetensors.torch.save_file(dict(change(i, n, t) for i, (n, t) in enumerate(tensors.items())), target)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_copy_in_another_type(mounted: Repo, tmp_path: Path, dtype: torch.dtype) -> None:
    source = material.folder("short") / "step-0015.safetensors"
    copy = tmp_path / "copy.safetensors"
    rewritten(source, copy, lambda _, name, t: (name, t.to(dtype)))
    store(mounted, source, "model.safetensors")
    with costs_at_most(mounted, copy.stat().st_size, tensor_count(copy)):
        store(mounted, copy, "copy.safetensors")
    mounted.remount()
    assert len(set(sha256sum([copy, mounted.main / "copy.safetensors"]))) == 1


def test_a_master_after_its_copy(mounted: Repo, tmp_path: Path) -> None:
    source = material.folder("short") / "step-0015.safetensors"
    copy = tmp_path / "copy.safetensors"
    rewritten(source, copy, lambda _, name, t: (name, t.to(torch.bfloat16)))
    store(mounted, copy, "copy.safetensors")
    before = mounted.stored_bytes()
    store(mounted, source, "master.safetensors")
    assert mounted.stored_bytes() - before < 0.53 * source.stat().st_size, "the 16 bits that the copy lacks, of 32"
    mounted.remount()
    assert len(set(sha256sum([source, mounted.main / "master.safetensors"]))) == 1


def test_a_fine_tune_under_names_of_its_own(mounted: Repo, tmp_path: Path) -> None:
    base = material.folder("short") / "step-0005.safetensors"
    tuned = material.folder("short") / "step-0010.safetensors"
    strange = tmp_path / "strange.safetensors"
    rewritten(tuned, strange, lambda i, _, t: (f"parameter.{i:04d}.of.somebody", t))
    store(mounted, base, "base.safetensors")
    between = mounted.stored_bytes()
    store(mounted, strange, "elsewhere/weights.bin")
    spent = mounted.stored_bytes() - between
    assert spent < 0.45 * strange.stat().st_size, "found by what it looks like, not by its names"
    mounted.remount()
    assert len(set(sha256sum([strange, mounted.main / "elsewhere" / "weights.bin"]))) == 1


def test_parts_joined_and_a_whole_in_parts(mounted: Repo, tmp_path: Path) -> None:
    """Queries, keys and values in one tensor and apart; a matrix and its shards by rows: stored once."""
    torch.manual_seed(1)
    apart = {f"layer.{i}.{part}": torch.randn(384, 384) * 0.05 for i in range(4) for part in "qkv"}
    fused = {f"h.{i}.qkv": torch.cat([apart[f"layer.{i}.{part}"] for part in "qkv"]) for i in range(4)}
    wide = torch.randn(6000, 384) * 0.05
    files = {"apart": apart, "fused": fused, "wide": {"table": wide}}
    files |= {f"shard-{i}": {f"table.{i}": wide[1500 * i : 1500 * (i + 1)].contiguous()} for i in range(4)}
    for name, tensors in files.items():
        safetensors.torch.save_file(tensors, tmp_path / f"{name}.safetensors")

    def costs(name: str) -> float:
        source, before = tmp_path / f"{name}.safetensors", mounted.stored_bytes()
        store(mounted, source, f"{name}/model.safetensors")
        return (mounted.stored_bytes() - before) / source.stat().st_size

    assert costs("apart") > 0.7
    assert costs("fused") < 0.01
    assert costs("wide") > 0.7
    for i in range(4):
        assert costs(f"shard-{i}") < 0.01
    # The next state of what was cut by its parts refers to those parts.
    tuned = {name: t + torch.randn_like(t) * 1e-5 for name, t in fused.items()}
    safetensors.torch.save_file(tuned, tmp_path / "tuned.safetensors")
    assert costs("tuned") < 0.6
    mounted.remount()
    for name in [*files, "tuned"]:
        assert (mounted.main / name / "model.safetensors").read_bytes() == (tmp_path / f"{name}.safetensors").read_bytes()


def test_known_tensors_in_unknown_containers(mounted: Repo, tmp_path: Path) -> None:
    source = material.folder("short") / "step-0015.safetensors"
    store(mounted, source, "model.safetensors")
    tensors = safetensors.torch.load_file(source)
    dump, strange = tmp_path / "weights.raw", tmp_path / "weights.pickle"
    dump.write_bytes(b"\x07strange header" + b"".join(t.numpy().tobytes() for t in tensors.values()))
    strange.write_bytes(pickle.dumps({name: t.numpy() for name, t in tensors.items()}))
    for file in (dump, strange):
        before = mounted.stored_bytes()
        store(mounted, file, file.name)
        spent = mounted.stored_bytes() - before
        # What is smaller than 32 KiB is not looked for.
        small = sum(t.nbytes for t in tensors.values() if t.nbytes < 32768)
        assert spent < small + 0.01 * file.stat().st_size, file.name
    mounted.remount()
    for file in (dump, strange):
        assert (mounted.main / file.name).read_bytes() == file.read_bytes()
