# SPDX-License-Identifier: Apache-2.0
"""The first promise: the bytes read are the bytes written. Each file goes in with an ordinary tool and is read back
from branch, commit, tag and at/, before and after a remount, by sha256sum and by its format's own library."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import material
import tensors
from driver import Repo, assert_same_tree, cp, sha256sum, tree_sums
from small_files import noise


def commit_everywhere(repo: Repo, message: str) -> dict[str, Path]:
    """Commits and tags; the places where the same content must now be seen."""
    commit = repo.commit(message)
    repo.run("tag", "v1.0")
    return {
        "branch": repo.main,
        "commit": repo.commit_dir(commit),
        "tag": repo.tag_dir("v1.0"),
        "at/tag": repo.mnt / "at" / "v1.0",
        "HEAD": repo.mnt / "HEAD",
    }


def check_everywhere(repo: Repo, source: Path, load: bool) -> None:
    wanted = tree_sums(source)
    assert_same_tree(repo.main, wanted, "branch, just written")
    places = commit_everywhere(repo, "checkpoints")
    for name, where in places.items():
        assert_same_tree(where, wanted, f"{name}, before remount")
    if load:
        tensors.assert_loads_alike([places["branch"], places["commit"]], source)
    repo.remount()
    for name, where in places.items():
        assert_same_tree(where, wanted, f"{name}, after remount")
    if load:
        tensors.assert_loads_alike([places["branch"], places["tag"]], source)
    assert repo.status() == {}, "a remount alone changed something"
    repo.run("fsck")


@pytest.mark.heavy
@pytest.mark.parametrize("name", material.FOLDERS)
def test_real_checkpoints(mounted: Repo, name: str) -> None:
    source = material.folder(name)
    cp("-r", f"{source}/.", mounted.main)
    check_everywhere(mounted, source, load=True)


def test_edge_cases(mounted: Repo, source: Path) -> None:
    material.make_edge_cases(source)
    cp("-r", f"{source}/.", mounted.main)
    check_everywhere(mounted, source, load=True)


@pytest.mark.parametrize(
    "copy",
    [
        "cp -a SRC/. DST",
        "cp -a --sparse=always SRC/. DST",
        "cp -a --sparse=always --reflink=never SRC/. DST",
        "tar -C SRC -cf - . | tar -C DST -xf -",
        "rsync -a SRC/ DST",
        "cd SRC && find . -type f -exec install -D -m 644 {} DST/{} ';'",
        "cd SRC && for f in *; do dd if=$f of=DST/$f bs=37773 status=none; done",
        "cd SRC && for f in *; do cat $f > DST/$f; done",
    ],
)
def test_copying_tools_in_and_out(mounted: Repo, source: Path, place: Path, copy: str) -> None:
    material.make_edge_cases(source)
    back = place / "back"
    for number, (a, b) in enumerate([(source, mounted.main), (mounted.main, back)]):
        if number:
            mounted.commit(copy)
            back.mkdir()
        command = copy.replace("SRC", str(a)).replace("DST", str(b))
        done = subprocess.run(["bash", "-o", "pipefail", "-ec", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert_same_tree(mounted.mnt / "at" / "main", source)
    assert_same_tree(back, source)


def test_metadata_survives_cp_a(mounted: Repo, source: Path) -> None:
    (source / "inner").mkdir()
    (source / "inner" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "inner" / "run.sh").chmod(0o750)
    (source / "plain").write_bytes(b"x" * 1000)
    (source / "plain").chmod(0o604)
    (source / "latest").symlink_to("inner/run.sh")
    for path in (source / "plain", source / "inner" / "run.sh"):
        subprocess.run(["touch", "-d", "2024-02-29 12:34:56.123456789 UTC", str(path)], check=True)
    cp("-a", f"{source}/.", mounted.main)
    commit = mounted.commit("with modes")
    for where in (mounted.main, mounted.commit_dir(commit)):
        for name in ("plain", "inner/run.sh"):
            got, wanted = (where / name).stat(), (source / name).stat()
            assert (got.st_mode, got.st_mtime_ns, got.st_size) == (
                wanted.st_mode,
                wanted.st_mtime_ns,
                wanted.st_size,
            ), name
            assert got.st_blocks == (got.st_size + 511) // 512, "fewer blocks make cp write sparse copies"
        assert (where / "latest").readlink() == Path("inner/run.sh")


# --- written by the libraries themselves, straight into the mount -----------------------------------------------------


def some_state(seed: int = 0) -> dict[str, torch.Tensor]:
    state = safetensors.torch.load_file(material.minilm() / "model.safetensors")
    kept = {name: value for number, (name, value) in enumerate(sorted(state.items())) if number % 9 == 0}
    extra = {"extra.bf16": material.weights(700, 300, seed=seed).bfloat16(), "extra.scalar": torch.tensor(seed)}
    return {**kept, **extra}


def adam_state() -> dict[str, object]:
    model = torch.nn.Sequential(torch.nn.Linear(300, 500), torch.nn.Linear(500, 200))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for seed in range(3):
        optimizer.zero_grad()
        model(material.weights(16, 300, seed=seed)).square().mean().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}


def write_mapped_array(path: Path) -> None:
    """numpy's own way of writing a file larger than memory: a shared writable mapping."""
    grid = material.weights(900, 700, seed=3).numpy()
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=grid.dtype, shape=grid.shape)
    mapped[:450] = grid[:450]
    mapped.flush()
    mapped[450:] = grid[450:]
    mapped.flush()
    mapped._mmap.close()


WRITERS: dict[str, Callable[[Path], None]] = {
    "model.safetensors": lambda path: safetensors.torch.save_file(some_state(), path, metadata={"format": "pt"}),
    "model.pth": lambda path: torch.save(some_state(), path),
    "legacy.pth": lambda path: torch.save(some_state(), path, _use_new_zipfile_serialization=False),
    "adam.pth": lambda path: torch.save(adam_state(), path),
    "array.npy": lambda path: np.save(path, material.weights(800, 600).numpy()),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(material.weights(800, 600).numpy())),
    "arrays.npz": lambda path: np.savez(path, a=material.weights(800, 600).numpy(), b=np.arange(9)),
    "mapped.npy": write_mapped_array,
}


def write_all(to: Path, seed: int) -> None:
    for name, write in WRITERS.items():
        torch.manual_seed(seed)
        write(to / name)


def test_libraries_write_and_read(mounted: Repo, source: Path) -> None:
    """The same calls, to the disk and to the mount, make the same bytes; also when they overwrite what is there."""
    versions = []
    for seed in (1, 2):
        write_all(source, seed)
        write_all(mounted.main, seed)
        # safetensors renames before it flushes, so this looks while files are perhaps still being taken in.
        written, wanted = tree_sums(mounted.main), tree_sums(source)
        different = {name for name in wanted if written.get(name) != wanted[name]}
        assert different <= {b"legacy.pth"}, "only the old format writes memory addresses into its files"
        assert tensors.assert_loads_alike([mounted.main], source) >= len(WRITERS)
        versions.append(written)
        mounted.commit(f"written {seed}")
    mounted.run("tag", "both")
    mounted.remount()
    places = [mounted.main, mounted.mnt / "at" / "main", mounted.tag_dir("both")]
    for where in places:
        assert_same_tree(where, versions[1], str(where))
    assert tensors.assert_loads_alike(places, source) >= len(WRITERS)
    assert_same_tree(mounted.mnt / "at" / "main~1", versions[0], "the first version")


def test_libraries_write_many_times(mounted: Repo, source: Path) -> None:
    """A training loop that saves over the same name; each save is read back at once and committed now and then."""
    kept = {}
    for step in range(12):
        state = {"step": torch.tensor(step), "w": material.weights(400, 300, seed=step)}
        torch.save(state, mounted.main / "last.pth")
        safetensors.torch.save_file(state, mounted.main / "last.safetensors")
        for name, load in (("last.pth", tensors.load_torch), ("last.safetensors", safetensors.torch.load_file)):
            assert tensors.differ(state, load(mounted.main / name)) == "", (name, step)
        if step % 4 == 3:
            kept[mounted.commit(f"step {step}")] = sha256sum(
                [mounted.main / "last.pth", mounted.main / "last.safetensors"]
            )
    mounted.remount()
    for commit, sums in kept.items():
        folder = mounted.commit_dir(commit)
        assert sha256sum([folder / "last.pth", folder / "last.safetensors"]) == sums


def test_an_old_mapping_keeps_its_bytes(mounted: Repo) -> None:
    """torch.load(mmap=True) holds tensors in a mapped file; a save over that name must not change them."""
    first = {"w": material.weights(2000, 1000)}
    path = mounted.main / "model.pth"
    torch.save(first, path)
    mounted.commit("first")
    held = torch.load(path, mmap=True, weights_only=True)
    again = material.weights(2000, 1000, seed=1)
    safetensors.torch.save_file({"w": again}, mounted.main / "other.safetensors")
    torch.save({"w": again}, mounted.main / "model.tmp")
    (mounted.main / "model.tmp").rename(path)
    mounted.commit("second")
    assert tensors.differ(first["w"], held["w"]) == ""
    assert tensors.differ(again, torch.load(path, mmap=True, weights_only=True)["w"]) == ""


def test_writes_while_an_earlier_version_is_read(mounted: Repo) -> None:
    payloads = [noise(3_000_000, seed) for seed in range(6)]
    path = mounted.main / "model.bin"
    path.write_bytes(payloads[0])
    with path.open("rb", buffering=0) as reader:
        for payload in payloads[1:]:
            (mounted.main / "next").write_bytes(payload)
            (mounted.main / "next").rename(path)
            assert path.read_bytes() == payload
        assert reader.read() == payloads[0], "an open file must go on showing what was opened"


def test_commits_stay_what_they_were(mounted: Repo) -> None:
    """Changing a file in place, growing, cutting and deleting it never reaches into a commit."""
    path = mounted.main / "weights.bin"
    versions: dict[str, str] = {}

    def keep(message: str) -> None:
        versions[mounted.commit(message)] = hashlib.sha256(path.read_bytes()).hexdigest()

    path.write_bytes(noise(2_500_000))
    keep("whole")
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
    keep("in place")
    with path.open("ab") as file:
        file.write(noise(400_000, 1))
    keep("longer")
    with path.open("r+b") as file:
        file.truncate(1_234_567)
    keep("shorter")
    path.unlink()
    mounted.commit("gone")
    assert not path.exists()
    for again in (False, True):
        if again:
            mounted.remount()
        found = {c: sha256sum([mounted.commit_dir(c) / "weights.bin"])[0] for c in versions}
        assert found == versions
    assert len(set(versions.values())) == 4
