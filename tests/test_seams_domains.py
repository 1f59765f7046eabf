"""What a method for two domains adds, by having tried it: CORAL, which makes two domains look alike.

To learn from a labelled domain for one without labels, this is written, and nothing else is touched:

- ``tasks/METHOD.py``: a task (here `Coral`) that says ``uses_unlabelled`` and has a `training_step` of its own, named
  in ``tasks.TASKS`` or, as here, by its class path.

The table says which domain a sample is of, ``--data.unlabelled keep`` keeps those without a label, and batches say
``domain`` and ``labelled``. Splits, validation, test, exact resume, prediction and the folder of the run are as ever;
the phases train on images, as the task's own step cannot do with activations of labelled samples alone.

Mended for it: the experiment tells the data that the task uses unlabelled samples before anything trains; the data
found it out from the trainer, too late for what a run says first.
"""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning import Callback
from PIL import Image
from tiny import TINY, write_tiny

from tl_lightning import load
from tl_lightning.cli import main
from tl_lightning.tasks import ClassificationTask

# tasks/coral.py


class Coral(ClassificationTask):
    """Makes the moments of the features of two domains alike (after Sun and Saenko 2016, arXiv:1607.01719)."""

    uses_unlabelled: ClassVar[bool] = True

    def __init__(self, backbone: str, classes: list[str], *, coral: float = 1.0, **shared: Any) -> None:
        super().__init__(backbone, classes, **shared)
        self.coral = coral

    def training_step(self, batch, batch_idx):
        features, labelled = self.features(batch), batch["labelled"]
        targets = self._by_name(batch["label"][labelled])
        losses = self.losses(self.outputs(features[labelled]), targets) if labelled.any() else features.new_zeros(1)
        one, other = (features[batch["domain"] == number] for number in (0, 1))
        distance = features.new_zeros(())
        if len(one) > 1 and len(other) > 1:
            distance = (moments(one) - moments(other)).square().sum() / moments(features.detach()).square().sum()
        self.log("train/coral", distance, on_step=False, on_epoch=True, batch_size=len(features))
        return losses.mean() + self.coral * distance + self.penalty()


def moments(features):
    """The mean and the covariance, as one vector."""
    return torch.cat([features.mean(0), torch.cov(features.T).flatten()])


class Seen(Callback):
    """Remembers what training batches held, and presses Ctrl-C once where that is asked for."""

    batches: ClassVar[list] = []
    stop: ClassVar[tuple[int, int] | None] = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        Seen.batches.append({name: batch[name].tolist() for name in ("index", "domain", "labelled", "label")})
        if (trainer.current_epoch, batch_idx) == Seen.stop:
            Seen.stop = None
            raise KeyboardInterrupt


ROWS = [  # split, domain, how many of each class, whether they have labels
    ("train", "day", 8, True),
    ("val", "day", 3, True),
    ("train", "night", 8, False),
    ("test", "night", 4, True),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A table of images by day, all with labels, and darker ones by night, of which only those of the test have any."""
    monkeypatch.chdir(write_tiny(tmp_path))
    Seen.batches, Seen.stop = [], None
    rng = np.random.default_rng(0)
    Path("drawn").mkdir()
    table = [("image", "label", "domain", "split")]
    for split, domain, count, labelled in ROWS:
        for number in range(2 * count):
            name, brightness = ("dark", "light")[number % 2], (60, 160)[number % 2]
            pixels = rng.normal(brightness, 30, (32, 32, 3)) - (50 if domain == "night" else 0)
            path = f"drawn/{split}-{domain}-{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            table.append((path, name if labelled else "", domain, split))
    with Path("table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)


OPTIONS = [
    *(*TINY, "--data.source", "table.csv", "--data.batch_size", "8", "--data.unlabelled", "keep"),
    *("--phases", "[{epochs: 3, train: all}]", "--trainer.max_epochs", "3", "--data.num_workers", "0"),
    f"--trainer.callbacks+={__name__}.Seen",
]
CORAL = ["--model", f"{__name__}.Coral"]


def rows(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def distances(run):
    return [float(row["train/coral"]) for row in rows(f"{run}/metrics.csv") if row.get("train/coral")]


def test_batches_mix_labelled_samples_of_one_domain_with_unlabelled_ones_of_the_other(here, capsys):
    assert main(["fit", *OPTIONS, *CORAL, "--run_dir", "run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "16 images without a label train too" in said
    epoch = Seen.batches[:4]  # 32 samples in batches of 8
    assert sorted(index for batch in epoch for index in batch["index"]) == [*range(16), *range(22, 38)]
    assert any(set(batch["domain"]) == {0, 1} for batch in epoch)
    for batch in epoch:
        for domain, labelled, label in zip(batch["domain"], batch["labelled"], batch["label"], strict=True):
            assert (domain, labelled) in ((0, True), (1, False))
            assert (label >= 0) is labelled
    told = json.loads(Path("run/summary.json").read_text())
    assert {name: told["data"][name] for name in ("train", "validation", "test", "unlabelled")} == {
        "train": 16,
        "validation": 6,
        "test": 8,
        "unlabelled": 16,
    }
    assert told["test"]["accuracy"] >= 0
    assert main(["predict", "--run_dir", "run", "--input", "drawn", "--output", "all.csv"]) == 0
    assert len(rows("all.csv")) == sum(2 * count for _, _, count, _ in ROWS)
    assert load("run").task.uses_unlabelled


def test_the_penalty_makes_the_domains_alike(here):
    for strength in (0.0, 1.0):
        assert main(["fit", *OPTIONS, *CORAL, "--model.coral", str(strength), "--run_dir", f"run-{strength:g}"]) == 0
    without, with_it = distances("run-0"), distances("run-1")
    assert len(without) == len(with_it) == 3
    assert with_it[-1] < 0.1 * without[-1]


def test_a_task_that_does_not_use_them_trains_on_labelled_samples_alone(here, capsys):
    assert main(["fit", *OPTIONS, "--run_dir", "run"]) == 0
    assert "16 images without a label are left out by this task" in " ".join(capsys.readouterr().out.split())
    assert all(all(batch["labelled"]) for batch in Seen.batches)


def test_a_killed_run_ends_with_the_same_weights(here):
    assert main(["fit", *OPTIONS, *CORAL, "--run_dir", "whole"]) == 0
    Seen.stop = (1, 1)
    assert main(["fit", *OPTIONS, *CORAL, "--run_dir", "killed"]) == 130
    assert main(["resume", "--run_dir", "killed"]) == 0
    one, other = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("killed", "whole")
    )
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert distances("killed") == distances("whole")
