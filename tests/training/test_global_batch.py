"""The same batch and the same rates, whatever the number of processes."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.training.global_batch import GlobalBatch, lr_factor, share_out


def shared_by(processes, accumulate=1):
    return {"processes": processes, "accumulate": accumulate}


def data(batch_size=32, **options):
    module = ImageDataModule.__new__(ImageDataModule)
    module.mixup, module.cutmix = options.get("mixup", 0.0), 0.0
    module.batch_size, module.micro_batch_size = batch_size, options.get("parts")
    return module


@pytest.mark.parametrize(("processes", "accumulate", "share"), [(1, 1, 64), (2, 1, 32), (8, 1, 8), (4, 2, 8)])
def test_every_process_gets_its_share_of_the_global_batch(processes, accumulate, share):
    images = data()
    batch = share_out(64, images, **shared_by(processes, accumulate))
    assert images.batch_size == share
    assert batch == GlobalBatch(64, share, processes, accumulate)


def test_without_a_global_batch_each_process_keeps_its_batch_size():
    assert share_out(None, data(4), **shared_by(3, 2)) == GlobalBatch(24, 4, 3, 2)


@pytest.mark.parametrize(
    ("asked", "processes", "accumulate", "words"),
    [
        (30, 4, 1, "global_batch is 30, which 4 processes cannot share evenly; 28 or 32 would do"),
        (3, 4, 1, "global_batch is 3, which 4 processes cannot share evenly; 4 would do"),
        (0, 1, 1, "global_batch is 0, which 1 process cannot share evenly; 1 would do"),
        (
            *(10, 2, 2),
            "global_batch is 10, which 2 processes x trainer.accumulate_grad_batches 2 cannot share evenly; 8 or 12",
        ),
    ],
)
def test_what_cannot_be_shared_evenly_is_said_with_what_could(asked, processes, accumulate, words):
    with pytest.raises(UserError) as error:
        share_out(asked, data(), **shared_by(processes, accumulate))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"parts": 8}, "data.micro_batch_size is 8; it must divide data.batch_size 5"), ({"mixup": 0.2}, "use an even")],
)
def test_a_share_that_the_data_cannot_have_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        share_out(10, data(**options), **shared_by(2))


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", 2.0), ("linear", 4.0)])
def test_learning_rates_follow_the_batch_by_the_rule_that_was_asked_for(rule, factor):
    assert lr_factor(rule, GlobalBatch(128, 32, 4, 1), 32) == factor


def test_a_rule_needs_the_batch_that_the_learning_rates_are_for():
    with pytest.raises(UserError, match="lr_scaling sqrt needs --lr_scaling_batch"):
        lr_factor("sqrt", GlobalBatch(1, 1, 1, 1), None)
    with pytest.raises(UserError, match="lr_scaling_batch is 0; it must be 1 or more"):
        lr_factor("none", GlobalBatch(1, 1, 1, 1), 0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    return tmp_path


FIT = [
    *("fit", *TINY, "--trainer.precision", "64-true", "--trainer.max_epochs", "2", "--phases", "full"),
    *("--data.val_fraction", "0.1"),  # which leaves 16 images to train on
]


def state(run):
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)


def summary(run):
    return json.loads(Path(run, "summary.json").read_text())


def test_a_global_batch_in_smaller_batches_trains_what_one_batch_trains(here, capsys):
    added = ["--global_batch", "8", "--trainer.accumulate_grad_batches", "2"]
    assert main([*FIT, "--run_dir", "parts", *added]) == 0
    assert "batch      8 images a step: 4, 2 times" in capsys.readouterr().out
    assert main([*FIT, "--run_dir", "whole", "--global_batch", "8"]) == 0
    parts, whole = state("parts"), state("whole")
    assert parts["global_step"] == whole["global_step"] == 2 * 2
    difference = max(float((parts["state_dict"][k] - whole["state_dict"][k]).abs().max()) for k in whole["state_dict"])
    assert difference < 1e-10
    assert summary("whole")["batch"] == {
        **{"images": 8, "batch_size": 8, "processes": 1, "accumulate": 1, "lr_factor": 1.0}
    }


def test_rates_are_scaled_once_also_when_the_run_is_repeated_or_resumed(here, capsys):
    scaled = ["--global_batch", "8", "--lr_scaling", "linear", "--lr_scaling_batch", "2"]
    assert main([*FIT, "--run_dir", "first", *scaled]) == 0
    assert "lr         x 4: 8 images a step over the 2 that model.lr is for" in capsys.readouterr().out
    assert summary("first")["batch"]["lr_factor"] == 4.0
    assert summary("first")["phases"][0]["learning_rates"]["head"] == pytest.approx(0.04)
    assert yaml.safe_load(Path("first/config.yaml").read_text())["model"]["init_args"]["lr"] == 0.01
    assert main(["fit", "--config", "first/config.yaml", "--run_dir", "again"]) == 0
    first, again = state("first")["state_dict"], state("again")["state_dict"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = summary("first") | {"status": "interrupted"}
    Path("first/summary.json").write_text(json.dumps(changed))
    assert main(["resume", "--run_dir", "first"]) == 0
    assert summary("first")["phases"][0]["learning_rates"]["head"] == pytest.approx(0.04)


def test_a_mistake_is_said_before_anything_is_made(here, capsys):
    assert main([*FIT, "--global_batch", "7", "--trainer.accumulate_grad_batches", "2"]) == 2
    assert capsys.readouterr().err == (
        "tl fit: global_batch is 7, which 1 process x trainer.accumulate_grad_batches 2 cannot share evenly; "
        "6 or 8 would do\n"
    )
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
