# SPDX-License-Identifier: Apache-2.0
"""Short, real series of checkpoints, trained on a CPU and saved the way training scripts save. Run by scripts/data,
with the Python of its environment. Every value comes from gradients on text that each Python brings along: the
definitions and docstrings of its standard library. Seeds are fixed: one machine and one set of versions give the same
bytes again.

A recipe fills OUT/.NAME.partial, which becomes OUT/NAME when it is complete, with a series.json that lists its files.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

Weights = dict[str, Tensor]
BEGAN = time.monotonic()


def sources() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
    return sorted(p for p in root.rglob("*.py") if not left_out.intersection(p.relative_to(root).parts))


def definitions(limit: int = 4000) -> list[tuple[str, str]]:
    """(name and arguments of a definition, first line of its docstring)."""
    pairs = []
    for path in sources():
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            said = (ast.get_docstring(node) or "").strip().partition("\n")[0]
            if len(said) >= 20:
                names = [a.arg for a in node.args.args] if isinstance(node, ast.FunctionDef) else []
                pairs.append((" ".join([path.stem, node.name, *names]).replace("_", " "), said))
    random.Random(1).shuffle(pairs)
    return pairs[:limit]


class Folder:
    """Where one recipe writes."""

    def __init__(self, out: Path, name: str) -> None:
        self.name, self.final, self.path = name, out / name, out / f".{name}.partial"
        self.files: list[dict[str, object]] = []
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)

    def listed(self, name: str, **facts: object) -> None:
        size = (self.path / name).stat().st_size
        self.files.append({"file": name, "bytes": size, **facts})
        seconds = time.monotonic() - BEGAN
        print(f"[{seconds:6.1f} s] {self.name}: {name}, {size / 1e6:.1f} MB", file=sys.stderr, flush=True)

    def safetensors(self, name: str, weights: Weights, **facts: object) -> None:
        """safetensors refuses tensors that share memory, so of tied ones the first name is saved."""
        first: dict[int, str] = {}
        for key, value in weights.items():
            first.setdefault(value.data_ptr(), key)
        kept = {key: weights[key].detach().contiguous() for key in first.values()}
        save_file(kept, self.path / f"{name}.safetensors", metadata={"format": "pt"})
        self.listed(f"{name}.safetensors", **facts)

    def torch(self, name: str, thing: object, **facts: object) -> None:
        (self.path / name).parent.mkdir(exist_ok=True)
        torch.save(thing, self.path / f"{name}.pth")
        self.listed(f"{name}.pth", **facts)

    def finish(self, seed: int, seconds: float) -> None:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        about = {
            "name": self.name,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "seconds": round(seconds),
            **versions,
        }
        (self.path / "series.json").write_text(json.dumps({**about, "files": self.files}, indent=1) + "\n")
        shutil.rmtree(self.final, ignore_errors=True)
        self.path.rename(self.final)


class Run:
    """A model, its AdamW and its schedule. Iterating trains; each step yields (number, loss)."""

    def __init__(
        self, model: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float, decay: float = 0.01
    ) -> None:
        self.model, self.loss, self.steps, self.done = model, loss, steps, 0
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=rate)
        self.scheduler = transformers.get_cosine_schedule_with_warmup(
            self.optimizer, max(1, steps // 8), round(steps * 1.1)
        )

    def __iter__(self) -> Iterator[tuple[int, float]]:
        self.model.train()
        while self.done < self.steps:
            loss = self.loss()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.done += 1
            yield self.done, round(float(loss.detach()), 4)

    def state(self) -> dict[str, object]:
        """What a training script saves to be able to go on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "step": self.done,
            "rng": torch.get_rng_state(),
        }


class Encoder:
    """The packaged sentence encoder, and its task: find a definition's docstring among those of a batch."""

    def __init__(self, base: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = transformers.AutoModel.from_pretrained(base, dtype=torch.float32)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        self.pairs, self.choice = definitions(), random.Random(seed)

    def vectors(self, texts: tuple[str, ...]) -> Tensor:
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=32, return_tensors="pt")
        hidden = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def loss(self, batch: int = 16) -> Tensor:
        names, texts = zip(*self.choice.sample(self.pairs, batch), strict=True)
        alike = self.vectors(names) @ self.vectors(texts).T
        return functional.cross_entropy(20 * alike.float(), torch.arange(batch))

    def run(self, steps: int, rate: float, decay: float = 0.01) -> Run:
        return Run(self.model, self.loss, steps, rate, decay)

    def weights(self) -> Weights:
        return self.model.state_dict()


def rounded(weights: Weights) -> Weights:
    return {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in weights.items()}


# --- the recipes ------------------------------------------------------------------------------------------------------


def quick(to: Folder, base: Path, seed: int) -> None:
    encoder = Encoder(base, seed)
    *_, (step, loss) = encoder.run(12, 2e-5)
    to.safetensors("finetuned", encoder.weights(), step=step, loss=loss)


def short(to: Folder, base: Path, seed: int) -> None:
    """A little of everything: neighbours, Adam state, the other container, BF16, appended rows, an adapter."""
    encoder = Encoder(base, seed)
    run = encoder.run(15, 2e-5)
    for step, loss in run:
        if step % 5 == 0:
            to.safetensors(f"step-{step:04d}", encoder.weights(), step=step, loss=loss)
        if step in (10, 15):
            to.safetensors(f"step-{step:04d}-bf16", rounded(encoder.weights()), step=step)
    to.torch(f"step-{step:04d}", encoder.weights(), step=step)
    to.torch(f"training-step-{step:04d}", run.state(), step=step)
    grow(encoder, 64)
    to.safetensors(f"step-{step:04d}-grown", encoder.weights(), step=step)
    adapted(to, base, seed, steps=6, saves=2, merge=False)


def finetune_fp32(to: Folder, base: Path, seed: int) -> None:
    encoder = Encoder(base, seed)
    run = encoder.run(80, 2e-5)
    for step, loss in run:
        if step % 20 == 0:
            to.safetensors(f"step-{step:04d}", encoder.weights(), step=step, loss=loss)
        if step in (20, 60):
            to.torch(f"step-{step:04d}", encoder.weights(), step=step, loss=loss)
    to.torch(f"training-step-{step:04d}", run.state(), step=step)


def finetune_bf16(to: Folder, base: Path, seed: int) -> None:
    encoder = Encoder(base, seed + 1)
    for step, loss in encoder.run(45, 3e-5, decay=0.0):
        if step % 15 == 0:
            to.safetensors(f"step-{step:04d}-bf16", rounded(encoder.weights()), step=step, loss=loss)
    to.torch(f"step-{step:04d}-bf16-torch", rounded(encoder.weights()), step=step)
    to.safetensors(f"step-{step:04d}-fp32-master", encoder.weights(), step=step)
    # BF16 in training too: most updates round to nothing, so few weights change.
    encoder = Encoder(base, seed)
    encoder.model.to(torch.bfloat16)
    for step, loss in encoder.run(21, 2e-5, decay=0.0):
        if step % 7 == 0:
            to.safetensors(f"pure-step-{step:04d}-bf16", encoder.weights(), step=step, loss=loss)


def byte_gpt(seed: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A byte-level GPT from nothing, and its loss: no value survives a step, and output layer and embedding are one storage."""
    torch.manual_seed(seed)
    shape = {"n_embd": 320, "n_layer": 8, "n_head": 5, "n_positions": 128, "vocab_size": 256}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = transformers.GPT2Config(**shape, **quiet, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)
    text = b"\n".join(p.read_bytes() for p in sources())[: 8 << 20]
    data, choice = torch.frombuffer(bytearray(text), dtype=torch.uint8), random.Random(seed)

    def loss() -> Tensor:
        starts = [choice.randrange(len(data) - 128) for _ in range(4)]
        ids = torch.stack([data[s : s + 128] for s in starts]).long()
        return model(input_ids=ids, labels=ids).loss

    return model, loss


def gpt_scratch(to: Folder, base: Path, seed: int) -> None:
    model, loss = byte_gpt(seed)
    run = Run(model, loss, 250, 6e-4, decay=0.1)
    for step, value in run:
        if step in (62, 125, 188, 250):
            to.safetensors(f"step-{step:04d}", model.state_dict(), step=step, loss=value)
            to.torch(f"training-step-{step:04d}", run.state(), step=step, loss=value)


def adam_gaps(to: Folder, base: Path, seed: int) -> None:
    """Weights and both moments of AdamW, saved after every step, and then after every tenth."""
    model, loss = byte_gpt(seed)
    run = Run(model, loss, 160, 6e-4, decay=0.1)
    for step, value in run:
        if 100 < step <= 106:
            to.torch(f"gap-1/step-{step:04d}", run.state(), step=step, loss=value)
        elif step > 106 and step % 10 == 0:
            to.torch(f"gap-10/step-{step:04d}", run.state(), step=step, loss=value)


def rl_step(to: Folder, base: Path, seed: int) -> None:
    """BF16 copies after each step at the rate of reinforcement learning: FP32 masters move, hardly a copy does."""
    encoder = Encoder(base, seed + 2)
    for step, loss in encoder.run(8, 1e-6, decay=0.0):
        if step > 5:
            to.safetensors(f"step-{step:04d}-bf16", rounded(encoder.weights()), step=step, loss=loss)


class Adapter(nn.Module):
    """A linear layer plus a low-rank step beside it; only the step is trained."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * self.lora_B(self.lora_A(x))


def adapted(to: Folder, base: Path, seed: int, steps: int, saves: int, merge: bool, rank: int = 8) -> None:
    encoder = Encoder(base, seed)
    plain = copy.deepcopy(encoder.weights())
    encoder.model.requires_grad_(False)
    adapters: dict[str, Adapter] = {}
    for number, layer in enumerate(encoder.model.encoder.layer):
        for name in ("query", "value"):
            adapter = Adapter(getattr(layer.attention.self, name), rank, 2.0)
            setattr(layer.attention.self, name, adapter)
            adapters[f"encoder.layer.{number}.attention.self.{name}"] = adapter
    for step, loss in encoder.run(steps, 5e-4):
        if step % (steps // saves) == 0:
            weights = {
                f"base_model.model.{name}.{part}.weight": getattr(adapter, part).weight
                for name, adapter in adapters.items()
                for part in ("lora_A", "lora_B")
            }
            to.safetensors(f"adapter-step-{step:04d}", weights, step=step, loss=loss)
            to.torch(f"adapter-step-{step:04d}", {k: v.detach() for k, v in weights.items()}, step=step)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["query", "value"]}
    (to.path / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    to.listed("adapter_config.json")
    if merge:
        for name, adapter in adapters.items():
            plain[f"{name}.weight"] += adapter.scale * (adapter.lora_B.weight @ adapter.lora_A.weight).detach()
        to.safetensors(f"merged-step-{step:04d}", plain, step=step)


def lora(to: Folder, base: Path, seed: int) -> None:
    adapted(to, base, seed, steps=30, saves=3, merge=True)


def grow(encoder: Encoder, rows: int) -> None:
    """New words get rows at the end of the embedding."""
    words = Counter(w for pair in encoder.pairs for text in pair for w in text.lower().split() if w.isalpha())
    fresh = [w for w, _ in words.most_common() if len(encoder.tokenizer.tokenize(w)) > 1][:rows]
    encoder.tokenizer.add_tokens(fresh)
    encoder.model.resize_token_embeddings(len(encoder.tokenizer))


def vocab_grow(to: Folder, base: Path, seed: int) -> None:
    encoder = Encoder(base, seed)
    grow(encoder, 512)
    to.safetensors("step-0000-grown", encoder.weights(), step=0, rows=len(encoder.tokenizer))
    for step, loss in encoder.run(30, 2e-5, decay=0.0):  # no decay: rows of words that were not seen stay as they are
        if step % 15 == 0:
            to.safetensors(f"step-{step:04d}", encoder.weights(), step=step, loss=loss)


def soup(to: Folder, base: Path, seed: int) -> None:
    members = []
    for number, rate in enumerate((1e-5, 2e-5, 4e-5)):
        encoder = Encoder(base, seed + 10 + number)
        *_, (_, loss) = encoder.run(20, rate, decay=0.0)
        members.append(encoder.weights())
        to.safetensors(f"member-{number}", members[-1], loss=loss, rate=rate)
    mean = {k: torch.stack([m[k] for m in members]).mean(0) for k, v in members[0].items() if v.is_floating_point()}
    to.safetensors("soup", {**members[0], **mean})


def prune(to: Folder, base: Path, seed: int) -> None:
    """Half of every linear layer set to zero by magnitude, then recovery under that mask."""
    encoder = Encoder(base, seed)
    layers = [m.weight for m in encoder.model.encoder.modules() if isinstance(m, nn.Linear)]
    masks = [w.abs() > w.abs().flatten().kthvalue(w.numel() // 2).values for w in layers]

    def apply() -> None:
        with torch.no_grad():
            for weight, mask in zip(layers, masks, strict=True):
                weight.mul_(mask)

    apply()
    to.safetensors("pruned-50", encoder.weights(), step=0)
    for step, loss in encoder.run(15, 2e-5):  # noqa: B007
        apply()
    to.safetensors(f"pruned-50-step-{step:04d}", encoder.weights(), step=step, loss=loss)


def int8(to: Folder, base: Path, seed: int) -> None:
    """Symmetric INT8 with one FP32 scale per row of every matrix; no training."""
    weights: Weights = {}
    for name, value in Encoder(base, seed).weights().items():
        if value.dim() == 2 and value.is_floating_point():
            scale = value.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            weights[f"{name}_scale"] = scale
            value = torch.round(value / scale).to(torch.int8)
        weights[name] = value
    to.safetensors("int8-per-channel", weights)
    to.torch("int8-per-channel", weights)


def sharded(to: Folder, base: Path, seed: int) -> None:
    encoder = Encoder(base, seed)
    *_, (step, loss) = encoder.run(10, 2e-5)
    encoder.model.save_pretrained(to.path / f"checkpoint-{step}", max_shard_size="20MB")
    for path in sorted((to.path / f"checkpoint-{step}").iterdir()):
        to.listed(f"checkpoint-{step}/{path.name}", step=step, loss=loss)


RECIPES: dict[str, Callable[[Folder, Path, int], None]] = {
    "quick": quick,
    "short": short,
    "minilm-finetune-fp32": finetune_fp32,
    "minilm-finetune-bf16": finetune_bf16,
    "gpt-scratch-adamw": gpt_scratch,
    "adam-gaps": adam_gaps,
    "rl-step": rl_step,
    "lora": lora,
    "vocab-grow": vocab_grow,
    "soup": soup,
    "prune": prune,
    "int8": int8,
    "sharded": sharded,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="folder of the sentence encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("names", nargs="+", choices=RECIPES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.utils.logging.disable_progress_bar()
    for name in options.names:
        began, folder = time.monotonic(), Folder(options.out, name)
        RECIPES[name](folder, options.base, options.seed)
        folder.finish(options.seed, time.monotonic() - began)


if __name__ == "__main__":
    main()
