import csv
import json
from pathlib import Path

import pytest
import torch
from tiny import write_images
from torch import nn

from tl_lightning.cli import main
from tl_lightning.training.micro_batches import MARGIN, cached_bytes, free_bytes, largest_part


def test_kept_bytes_are_those_of_the_tensors_that_the_backward_pass_needs():
    # ReLU keeps its output, which is the second layer's input; the first layer keeps its own. float32: 4 bytes.
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    assert cached_bytes(module, [torch.zeros(5, 10)]) == 4 * 5 * (10 + 20)
    module.requires_grad_(False)
    assert cached_bytes(module, [torch.zeros(5, 10)]) == 0


def test_a_frozen_part_keeps_nothing():
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    module[0].requires_grad_(False)
    assert cached_bytes(module, [torch.zeros(5, 10)]) == 4 * 5 * 20


@pytest.mark.parametrize(
    ("free", "even", "part"),
    [(32, False, 12), (11.9, False, 6), (5, False, 4), (3.5, False, 3), (0, False, 1), (3.5, True, 2), (0, True, 2)],
)
def test_the_largest_part_divides_the_batch_and_fits(free, even, part):
    assert largest_part(12, bytes_per_image=MARGIN, bytes_free=free, even=even) == part


def test_free_bytes_are_a_plausible_number():
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", size=(48, 40))
    return tmp_path


FIT = [
    *("fit", "--data.source", "images", "--data.image_size", "32", "--data.batch_size", "8", "--phases", "full"),
    *("--model.backbone", "timm/test_efficientnet", "--model.weights", "none", "--trainer.max_epochs", "2"),
    *("--trainer.precision", "64-true", "--trainer.enable_progress_bar", "false"),
]


def weights(run):
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("weights_of_classes", ["none", "balanced"])
def test_a_batch_in_parts_trains_what_the_whole_batch_trains(here, weights_of_classes):
    for number in range(7):  # so that the classes differ in size
        Path("images", "cat", f"{number}.png").unlink()
    options = ["--model.class_weights", weights_of_classes]
    assert main([*FIT, *options, "--run_dir", "whole"]) == 0
    assert main([*FIT, *options, "--run_dir", "parts", "--data.micro_batch_size", "2"]) == 0
    whole, parts = weights("whole"), weights("parts")
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-12
    figures = [json.loads(Path(run, "summary.json").read_text())["test"] for run in ("whole", "parts")]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)


def test_a_limit_counts_batches_not_their_parts(here):
    limits = ["--trainer.limit_train_batches", "2", "--trainer.val_check_interval", "1"]
    assert main([*FIT, "--run_dir", "parts", "--data.micro_batch_size", "2", *limits]) == 0
    assert torch.load("parts/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4  # 2 epochs of 2 batches
    with Path("parts/metrics.csv").open() as file:
        validated = [row["epoch"] for row in csv.DictReader(file) if row["val/loss"]]
    assert validated == ["0", "0", "1", "1", "2"]  # the last one is of the best weights, at the end


def test_auto_divides_a_batch_that_does_not_fit(here, monkeypatch, capsys):
    monkeypatch.setattr("tl_lightning.training.micro_batches.free_bytes", lambda device: 2_000_000)
    assert main([*FIT, "--run_dir", "parts", "--data.micro_batch_size", "auto"]) == 0
    assert "batches of 8 go in parts of 4" in capsys.readouterr().out
    assert torch.load("parts/checkpoints/last.ckpt", weights_only=True)["run"]["micro_batch_size"] == 4


def test_a_part_that_does_not_divide_the_batch_is_refused(here, capsys):
    assert main([*FIT, "--data.micro_batch_size", "3"]) == 2
    assert "it must divide data.batch_size 8" in capsys.readouterr().err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
