"""What an adapter adds, by having tried it: low-rank changes (LoRA) of layers of a small ViT.

To train little beside frozen weights, these are written, and nothing else is touched:

- ``finetuning/adapters.py``: the adapter (here `LowRank`), what puts it into a backbone and says which stage its
  parameters belong to (`adapt`), and what merges it (`merge`);
- ``tasks/base.py``: one argument (here of `Adapted`, a task named by its class path) and two lines that call `adapt`;
- ``finetuning/selection.py``: a word for ``train: "regex:..."``, which names the parameters of the adapters here.

Freezing, optimizer groups, the table of stages, the audit, exact resume and prediction go by the stages' names of
parameters, so that they take the adapters as they are.

Not tried: ``model.weights`` of a run with adapters, whose names would have to be merged first, and a cut below the
adapted layers, for the feature cache.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning import Callback
from tiny import TINY, write_tiny
from torch import nn
from torch.nn.utils import parametrize

from tl_lightning import load
from tl_lightning.backbones import build_backbone
from tl_lightning.cli import main
from tl_lightning.tasks import ClassificationTask

TRAIN = r"regex:\.(down|up)$"

# finetuning/adapters.py


class LowRank(nn.Module):
    """Adds the product of two thin matrices to a weight, at first 0 (Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, weight, rank):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight[0].numel()) / weight[0].numel() ** 0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight):
        return weight + (self.up @ self.down).view_as(weight)


def adapt(backbone, pattern, rank):
    """Puts an adapter on each layer whose name matches; their parameters belong to the stage of the layer."""
    stages = list(backbone.stages)
    for name, layer in list(backbone.module.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and re.search(pattern, name):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
            old, inside = f"{name}.weight", f"{name}.parametrizations.weight"
            new = (f"{inside}.original", f"{inside}.0.down", f"{inside}.0.up")
            for number, stage in enumerate(stages):
                if old in stage.parameters:
                    kept = tuple(parameter for parameter in stage.parameters if parameter != old)
                    stages[number] = replace(stage, parameters=kept + new)
    return replace(backbone, stages=tuple(stages))


def merge(module):
    """Has the weights hold what the adapters add, under the names of the library again."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


# tasks/base.py


class Adapted(ClassificationTask):
    def __init__(self, backbone: str, classes: list[str], *, rank: int = 2, **shared: Any) -> None:
        super().__init__(backbone, classes, **shared)
        self.transferred = adapt(self.transferred, r"attn\.(qkv|proj)$|^patch_embed\.proj$", rank)
        self.stages = self.transferred.stages


class Stop(Callback):
    """Presses Ctrl-C once, in the middle of an epoch, and remembers the groups of the optimizer."""

    at: ClassVar[tuple[int, int] | None] = None
    groups: ClassVar[dict] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        Stop.groups = {
            group["name"]: [names[id(parameter)] for parameter in group["params"]]
            for group in trainer.optimizers[0].param_groups
        }
        if (trainer.current_epoch, batch_idx) == Stop.at:
            Stop.at = None
            raise KeyboardInterrupt


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    torch.manual_seed(0)
    torch.save(build_backbone("timm/test_vit", "none").module.state_dict(), "vit.pth")
    Stop.at, Stop.groups = None, {}


OPTIONS = [
    *(*TINY, "--model", f"{__name__}.Adapted", "--model.backbone", "timm/test_vit", "--model.weights", "vit.pth"),
    *("--data.image_size", "160", "--model.backbone_lr_scale", "1.0", "--data.num_workers", "0"),
    *("--phases", f"[{{epochs: 2, train: '{TRAIN}'}}]", "--trainer.max_epochs", "2"),
    f"--trainer.callbacks+={__name__}.Stop",
]


def state(run, name="last"):
    return torch.load(f"{run}/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def test_only_adapters_and_head_train_and_a_killed_run_ends_with_the_same_weights(here, capsys):
    assert main(["fit", *OPTIONS, "--run_dir", "whole"]) == 0
    shown = capsys.readouterr().out
    start, end = torch.load("vit.pth", weights_only=True), state("whole")
    moved = 0
    for name, tensor in end.items():
        own = name.removeprefix("backbone.").replace("parametrizations.weight.original", "weight")
        if name.startswith("backbone.") and own in start:
            assert torch.equal(tensor, start[own]), name
        moved += name.endswith(".up") and bool(tensor.any())
    layers = sum(name.endswith(".up") for name in end)
    assert layers > 1 and moved == layers
    assert "backbone.patch_embed.proj.parametrizations.weight.0.up" in end  # a convolution
    task = load("whole").task
    adapters = sum(tensor.numel() for name, tensor in end.items() if name.endswith((".up", ".down")))
    head = sum(parameter.numel() for parameter in task.head.parameters())
    (total,) = [line for line in shown.splitlines() if line.startswith("│ total")]
    assert f"{adapters + head:,}" in total
    every = [name for names in Stop.groups.values() for name in names]
    assert sorted(every) == sorted(name for name, _ in task.named_parameters())
    assert all("/no_decay" not in group for group, names in Stop.groups.items() if any(".up" in n for n in names))

    Stop.at = (1, 1)
    assert main(["fit", *OPTIONS, "--run_dir", "killed"]) == 130
    assert main(["resume", "--run_dir", "killed"]) == 0
    again = state("killed")
    assert again.keys() == end.keys() and all(torch.equal(tensor, end[name]) for name, tensor in again.items())


def test_merged_it_predicts_the_same_under_the_names_of_the_library(here):
    assert main(["fit", *OPTIONS, "--run_dir", "run"]) == 0
    assert main(["predict", "--run_dir", "run", "--input", "images", "--output", "all.csv"]) == 0
    assert len(Path("all.csv").read_text().splitlines()) == 25
    task = load("run").task
    images = torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = task(images)
        merge(task.backbone)
        torch.testing.assert_close(task(images), before)
    assert task.backbone.state_dict().keys() == torch.load("vit.pth", weights_only=True).keys()
