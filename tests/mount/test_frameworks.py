# SPDX-License-Identifier: Apache-2.0
"""Unmodified transformers and lightning, with their output in the mount: saving, rotating, resuming, loading."""

from __future__ import annotations

import json
import os
from pathlib import Path

import lightning
import pytest
import torch
import transformers
from lightning.pytorch.callbacks import ModelCheckpoint

import material
import tensors
from driver import Repo, assert_same_tree, cp, tree_sums

pytestmark = pytest.mark.framework

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def tiny_gpt(seed: int = 0) -> transformers.GPT2LMHeadModel:
    torch.manual_seed(seed)
    shape = {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 32, "vocab_size": 300}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0))


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    difference = tensors.differ(dict(a.state_dict()), dict(b.state_dict()))
    assert not difference, difference


def assert_different_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert tensors.differ(dict(a.state_dict()), dict(b.state_dict()))


# --- transformers: saving and loading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [None, "20KB"], ids=["whole", "sharded"])
def test_save_and_load(mounted: Repo, source: Path, shard: str | None) -> None:
    options = {"max_shard_size": shard} if shard else {}
    first, second = tiny_gpt(1), tiny_gpt(2)
    folder = mounted.main / "model"
    first.save_pretrained(source, **options)
    first.save_pretrained(folder, **options)
    assert_same_tree(folder, source)
    assert len(list(folder.glob("*.safetensors"))) == (1 if not shard else len(list(source.glob("*.safetensors"))))
    assert not shard or len(list(folder.glob("*.safetensors"))) > 3
    mounted.commit("first")
    mounted.run("tag", "v1")
    second.save_pretrained(folder, **options)
    commit = mounted.commit("second")
    for again in (False, True):
        if again:
            mounted.remount()
        for where, model in (
            (mounted.main, second),
            (mounted.commit_dir(commit), second),
            (mounted.mnt / "HEAD", second),
            (mounted.tag_dir("v1"), first),
            (mounted.mnt / "at" / "main~1", first),
        ):
            # Not kept in a variable: its weights are mapped, and a file in use would keep the mount from going away.
            assert_same_weights(transformers.GPT2LMHeadModel.from_pretrained(where / "model"), model)
    assert_different_weights(first, second)


def test_a_real_model_works_from_a_tag(mounted: Repo) -> None:
    """The sentence encoder computes the same vectors, wherever its folder lies."""
    original = material.minilm()
    cp("-r", original, mounted.main / "encoder")
    mounted.commit("MiniLM")
    mounted.run("tag", "v1")
    mounted.remount()

    def vectors(folder: Path) -> torch.Tensor:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModel.from_pretrained(folder).eval()
        tokens = tokenizer(["a filesystem for checkpoints", "with history"], padding=True, return_tensors="pt")
        with torch.no_grad():
            return model(**tokens).last_hidden_state

    wanted = vectors(original)
    for folder in (mounted.main, mounted.tag_dir("v1"), mounted.mnt / "at" / "main"):
        assert tensors.differ(wanted, vectors(folder / "encoder")) == ""


def test_sharded_real_model(mounted: Repo) -> None:
    model = transformers.AutoModel.from_pretrained(material.minilm())
    model.save_pretrained(mounted.main / "sharded", max_shard_size="20MB")
    model.save_pretrained(
        mounted.main / "bf16", max_shard_size="20MB", state_dict=model.to(torch.bfloat16).state_dict()
    )
    index = json.loads((mounted.main / "sharded" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) >= 4
    commit = mounted.commit("sharded")
    mounted.remount()
    model = transformers.AutoModel.from_pretrained(material.minilm())
    loaded = transformers.AutoModel.from_pretrained(mounted.commit_dir(commit) / "sharded")
    assert_same_weights(loaded, model)
    half = transformers.AutoModel.from_pretrained(mounted.commit_dir(commit) / "bf16", dtype=torch.bfloat16)
    assert_same_weights(half, model.to(torch.bfloat16))


# --- transformers: Trainer --------------------------------------------------------------------------------------------


class Numbers(torch.utils.data.Dataset):
    """Counting, so that there is something to learn."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(24) * (index % 7 + 1) + index) % 300
        return {"input_ids": ids, "labels": ids}


class StopAt(transformers.TrainerCallback):
    """Ends the run early, as a time limit of a cluster does; the schedule is that of the whole run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):  # noqa: ANN001, ANN201 (transformers' own signature)
        if state.global_step >= self.step:
            control.should_training_stop = True
        return control


def hf_trainer(output: Path, callbacks: tuple[transformers.TrainerCallback, ...] = ()) -> transformers.Trainer:
    options = transformers.TrainingArguments(
        output_dir=str(output),
        max_steps=12,
        save_steps=3,
        save_total_limit=2,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        logging_steps=100,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    return transformers.Trainer(model=tiny_gpt(5), args=options, train_dataset=Numbers(), callbacks=list(callbacks))


@pytest.mark.heavy
def test_trainer_rotates_and_resumes(mounted: Repo, source: Path) -> None:
    """A run that is interrupted, committed, remounted and resumed ends with the weights of one that never stopped."""
    whole = hf_trainer(source / "run")
    whole.train()
    output = mounted.main / "run"
    hf_trainer(output, (StopAt(6),)).train()
    assert sorted(p.name for p in output.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    mounted.commit("interrupted")
    before = tree_sums(output)
    mounted.remount()
    assert_same_tree(output, before)
    resumed = hf_trainer(output)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 12
    # save_total_limit: the older ones were removed, by a recursive delete in the mount.
    assert sorted(p.name for p in output.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-9"]
    assert not [p for p in output.iterdir() if p.name.startswith("tmp-")]
    assert_same_weights(resumed.model, whole.model)
    commit = mounted.commit("finished")
    loaded = transformers.GPT2LMHeadModel.from_pretrained(mounted.commit_dir(commit) / "run" / "checkpoint-12")
    assert_same_weights(loaded, whole.model)
    early = mounted.mnt / "at" / "main~1" / "run"
    assert_same_tree(early, before)
    # And once more from what is only in history now: the checkpoint of step 6, read from a read-only folder.
    assert not (output / "checkpoint-6").exists()
    again = hf_trainer(mounted.main / "again")
    again.train(resume_from_checkpoint=str(early / "checkpoint-6"))
    assert_same_weights(again.model, whole.model)
    mounted.commit("resumed from history")
    assert mounted.status() == {}


# --- lightning --------------------------------------------------------------------------------------------------------


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 32), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(32, 1)
        )

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        loss = (self.net(x) - y).square().mean()
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def run_lightning(output: Path, epochs: int, resume: Path | None = None) -> Regression:
    lightning.seed_everything(11, workers=True, verbose=False)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    model = Regression()
    keep = ModelCheckpoint(dirpath=output, filename="{epoch}", monitor="loss", save_top_k=2, save_last=True)
    trainer = lightning.Trainer(
        default_root_dir=output,
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keep],
        deterministic=True,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    trainer.fit(model, loader, ckpt_path=str(resume) if resume else None)
    assert keep.best_model_path and os.path.exists(keep.best_model_path)
    return model


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_lightning_checkpoints_and_resumes(mounted: Repo, source: Path) -> None:
    run_lightning(source, epochs=3)
    output = mounted.main / "lightning"
    run_lightning(output, epochs=3)
    names = sorted(os.listdir(output))
    assert names == sorted(os.listdir(source)) and "last.ckpt" in names and len(names) == 3, "two best and the last"
    mounted.commit("three epochs")
    mounted.run("tag", "epoch-3")
    mounted.remount()
    for name in names:
        kept = tensors.load_torch(mounted.tag_dir("epoch-3") / "lightning" / name)
        wanted = tensors.load_torch(source / name)
        for part in ("state_dict", "optimizer_states", "epoch", "global_step"):
            assert tensors.differ(wanted[part], kept[part]) == "", (name, part)
    disk = run_lightning(source, epochs=6, resume=source / "last.ckpt")
    here = run_lightning(output, epochs=6, resume=output / "last.ckpt")
    tagged = run_lightning(
        mounted.main / "from-tag", epochs=6, resume=mounted.tag_dir("epoch-3") / "lightning" / "last.ckpt"
    )
    assert_same_weights(disk, here)
    assert_same_weights(disk, tagged)
    mounted.commit("six epochs")
    loaded = Regression.load_from_checkpoint(mounted.mnt / "at" / "main" / "lightning" / "last.ckpt")
    assert_same_weights(disk, loaded)
    assert mounted.status() == {}
