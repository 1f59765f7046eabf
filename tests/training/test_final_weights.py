import json
from pathlib import Path

import pytest
import timm
import torch
from tiny import write_images

from tl_lightning.cli import main

FIT = [
    *("fit", "--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4"),
    *("--model.backbone", "timm/test_efficientnet", "--checkpoint.monitor", "val/loss"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
]
WEIGHTS = ["--model.weights", "start.pth"]
FOLDER = Path("runs/run-1/checkpoints")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", count=12)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "start.pth")
    return tmp_path


def confuse(folder, count):
    """Exchanges every third image of the two classes, so that there is something to overfit to."""
    for k in range(0, count, 3):
        first, second = (Path(folder, name, f"{k}.png") for name in ("cat", "dog"))
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)


def state(name):
    return torch.load(FOLDER / f"{name}.ckpt", weights_only=True)["state_dict"]


def summary():
    return json.loads(Path("runs/run-1/summary.json").read_text())


def validated(name):
    """The monitored figure of a checkpoint, as `tl validate` gives it."""
    path = str(FOLDER / f"{name}.ckpt")
    assert main(["validate", "--run_dir", "runs/run-1", "--ckpt_path", path, "--output", "figures.json"]) == 0
    return json.loads(Path("figures.json").read_text())["validation"]["loss"]


def by_hand(start, ingredients, alpha):
    """(1 - alpha) start + alpha mean(ingredients), one tensor after the other."""
    mixed = {}
    for name, first in ingredients[0].items():
        mixed[name] = first
        if first.is_floating_point():
            average = sum(ingredient[name].double() for ingredient in ingredients) / len(ingredients)
            begin = start[name].double() if name in start else average
            mixed[name] = ((1 - alpha) * begin + alpha * average).float()
    return mixed


def test_a_soup_then_wise_ft_choose_the_weights_and_keep_the_best_single_ones(here):
    # The head is trained with everything's augmentation, not solved: the best head would leave a soup nothing to gain.
    confuse(write_images(here / "confused", count=20), 20)
    data = ["--data.source", "confused", "--data.val_fraction", "0.4"]
    phases = "[{train: head, epochs: 1, augmentation: flips}, {train: all, schedule: constant}]"
    phases = ["--phases", phases, "--trainer.max_epochs", "6"]
    rates = ["--model.lr", "0.01", "--model.backbone_lr_scale", "1.0"]
    assert main([*FIT, *WEIGHTS, *data, *phases, *rates, "--cache", "off", "--wise_ft", "true", "--soup", "3"]) == 0
    told = summary()["averages"]
    epochs, alpha = told["soup"]["epochs"], told["wise_ft"]["alpha"]
    assert list(told["wise_ft"]["scores"]) == [f"{step / 10:g}" for step in range(11)]
    assert len(epochs) > 1  # else nothing below shows anything
    assert 0 < alpha < 1
    assert len(list(FOLDER.glob("soup-*.ckpt"))) == 3

    scores = told["wise_ft"]["scores"]
    assert scores[f"{alpha:g}"] == min(scores.values()) == validated("best")
    assert summary()["validation"]["loss"] == validated("best")
    assert scores["1"] == told["soup"]["score"] <= summary()["monitor"]["best"]

    assert validated("trained") == summary()["monitor"]["best"]
    best_epoch = torch.load(FOLDER / "trained.ckpt", weights_only=True)["epoch"]
    assert epochs[0] == best_epoch + 1
    ingredients = [state("trained"), *(state(f"soup-{epoch - 1}") for epoch in epochs[1:])]
    start = state("start")
    assert start.keys() == state("trained").keys()
    best = state("best")
    for name, value in by_hand(start, ingredients, alpha).items():
        torch.testing.assert_close(best[name], value, rtol=1e-5, atol=1e-6)

    # The line begins where the backbone began to train: the pretrained one, under the head of the first phase.
    source = torch.load("start.pth", weights_only=True)
    assert all(torch.equal(value, source[name.removeprefix("backbone.")]) for name, value in backbone(start).items())
    assert "heads.target.1.weight" in start


def backbone(weights):
    return {name: value for name, value in weights.items() if name.startswith("backbone.")}


def test_without_a_gain_nothing_is_written(here):
    still = ["--phases", "[{train: all}]", "--trainer.max_epochs", "1", "--model.lr", "1e-30"]
    assert main([*FIT, *WEIGHTS, *still, "--wise_ft", "true", "--soup", "2"]) == 0
    told = summary()["averages"]
    assert told["soup"]["epochs"] == [1]
    assert told["wise_ft"]["alpha"] == 1.0
    assert len(set(told["wise_ft"]["scores"].values())) == 1
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        *("best.ckpt", "last.ckpt", "previous.ckpt", "soup-0.ckpt", "start.ckpt")
    ]
    assert "callbacks" in torch.load(FOLDER / "best.ckpt", weights_only=True)
    assert validated("best") == summary()["monitor"]["best"]


def test_a_head_that_was_random_at_the_start_is_not_interpolated(here):
    full = ["--phases", "full", "--trainer.max_epochs", "1", "--model.lr", "0.02", "--model.backbone_lr_scale", "10"]
    assert main([*FIT, *WEIGHTS, *full, "--wise_ft", "true", "--silence", "[backbone_lr]"]) == 0
    alpha = summary()["averages"]["wise_ft"]["alpha"]
    assert alpha < 1  # such rates destroy what was pretrained
    start, best, trained = state("start"), state("best"), state("trained")
    assert not [name for name in start if name.startswith("heads.")]
    assert torch.equal(best["heads.target.1.weight"], trained["heads.target.1.weight"])
    assert not torch.equal(best["backbone.conv_stem.weight"], trained["backbone.conv_stem.weight"])
    for name, value in by_hand(start, [trained], alpha).items():
        torch.testing.assert_close(best[name], value, rtol=1e-5, atol=1e-6)
    assert "soup" not in summary()["averages"]


@pytest.mark.parametrize(
    ("phases", "weights", "why"),
    [
        ("feature_extraction", "start.pth", "no phase trains the backbone"),
        ("scratch", "start.pth", "model.weights is none"),
        ("full", "none", "model.weights is none"),
    ],
)
def test_without_two_ends_there_is_no_line(here, capsys, phases, weights, why):
    args = ["--phases", phases, "--trainer.max_epochs", "1", "--wise_ft", "true", "--model.weights", weights]
    assert main([*FIT, *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tl fit: wise_ft ")
    assert line.endswith(f", but {why}")
    assert not Path("runs").exists()


def test_a_given_alpha_is_taken_whatever_validation_says(here, capsys):
    phases = ["--phases", "[{train: head, epochs: 1}, {train: all}]", "--trainer.max_epochs", "2"]
    assert main([*FIT, *WEIGHTS, *phases, "--model.lr", "0.01", "--wise_ft", "0.25"]) == 0
    told = summary()["averages"]["wise_ft"]
    assert told["alpha"] == 0.25
    assert list(told["scores"]) == ["0", "0.25", "1"]
    start, trained, best = (state(name) for name in ("start", "trained", "best"))
    mixed = by_hand(start, [trained], 0.25)
    assert all(torch.allclose(best[name], mixed[name].to(best[name].dtype), atol=1e-6) for name in best)
    assert main([*FIT, *WEIGHTS, *phases, "--wise_ft", "1.5"]) == 2
    assert "an alpha from 0 to 1" in capsys.readouterr().err
