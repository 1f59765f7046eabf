"""The head alone: solved where it can be, trained where it cannot, and the same for every later step of the run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, write_tiny

from tl_lightning import load
from tl_lightning.cli import main
from tl_lightning.feature_cache.head_solver import Stacked
from tl_lightning.probe import STRENGTHS, heads, logistic_path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    for k in range(3):  # wrongly labelled, or any strength would do
        cat, dog = Path(f"images/cat/{4 * k}.png"), Path(f"images/dog/{4 * k}.png")
        pixels = cat.read_bytes()
        cat.write_bytes(dog.read_bytes())
        dog.write_bytes(pixels)
    return tmp_path


def fit(*options, run="run", epochs=2, phases="feature_extraction"):
    return main(["fit", *TINY, "--phases", phases, "--trainer.max_epochs", str(epochs), "--run_dir", run, *options])


def summary(run="run"):
    return json.loads(Path(run, "summary.json").read_text())


def head(run="run", name="best"):
    state = torch.load(f"{run}/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
    return state["heads.target.1.weight"], state["heads.target.1.bias"]


def path_of(run="run", number=1):
    with Path(run, f"head-{number}.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


class Spy:
    """Notes what a function of the solver was given and gave."""

    def __init__(self, monkeypatch, name):
        self.calls = []
        real = getattr(heads, name)

        def noting(*args, **options):
            result = real(*args, **options)
            self.calls.append((args, options, result))
            return result

        monkeypatch.setattr(heads, name, noting)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_head_is_the_optimum_for_the_strength_that_validation_chose(here, monkeypatch, precision):
    spy = Spy(monkeypatch, "path_until_it_rises")
    assert fit("--trainer.precision", precision) == 0
    (((features, labels, held_out, _), options, (path, _)),) = spy.calls
    assert options == {"classes": 2, "class_weights": None, "row_weights": None}
    assert (features.shape, held_out.shape) == ((15, 256), (3, 256))
    rows = path_of()
    assert [row["strength"] for row in rows] == list(path.strengths) == list(STRENGTHS[: len(rows)])
    chosen = min(range(len(rows)), key=lambda k: rows[k]["validation_loss"])
    solved = summary()["phases"][0]["head"]
    assert solved.pop("seconds") > 0
    assert solved == {"solver": "lbfgs", **rows[chosen]}
    weight, bias = head()
    assert torch.equal(weight, path.weights[chosen].float())
    assert torch.equal(bias, path.biases[chosen].float())
    again = logistic_path(features[0:15].double(), labels, classes=2, strengths=(path.strengths[chosen],))
    assert float(again.objectives[0]) == pytest.approx(float(path.objectives[chosen]), abs=1e-8)
    # What was read are the features of the training images: the model gives them the same answers.
    logits = features[0:15].double() @ path.weights[chosen].T + path.biases[chosen]
    loss = torch.nn.functional.cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(rows[chosen]["training_loss"], rel=1e-6)
    assert summary()["validation"]["loss"] == pytest.approx(
        rows[chosen]["validation_loss"], rel=1e-4 if precision == "32-true" else 0.05
    )


def test_a_solved_phase_takes_one_epoch_and_moves_nothing_else(here, capsys):
    assert fit(epochs=5) == 0
    shown = capsys.readouterr().out
    assert "phase 1/1: head, solved" in shown
    assert f"head       solved for {len(path_of())} strengths in" in shown
    (phase,) = summary()["phases"]
    assert (phase["solved"], phase["epochs"], phase["learning_rates"]) == (True, 1, {})
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    start = torch.load("start.pth", weights_only=True)
    assert all(torch.equal(state[f"backbone.{name}"], tensor) for name, tensor in start.items())
    assert torch.equal(head(name="last")[0], head()[0])


def test_balanced_class_weights_reach_the_solver(here, monkeypatch):
    for k in range(6):
        Path(f"images/dog/{k}.png").unlink()
    spy = Spy(monkeypatch, "path_until_it_rises")
    assert fit("--model.class_weights", "balanced") == 0
    counts = torch.tensor(list(summary()["data"]["class_counts"]["train"].values()), dtype=torch.float64)
    for _, options, _ in spy.calls:
        torch.testing.assert_close(options["class_weights"], counts.sum() / (2 * counts), rtol=1e-6, atol=0)
    # Validation, weighted as the loss of the run is, chooses what the run then reports.
    assert len(set(counts.tolist())) == 2


def test_ridge_is_solved_too(here):
    assert fit("--model.head_solver", "ridge") == 0
    solved, rows = summary()["phases"][0]["head"], path_of()
    assert set(rows[0]) == {"strength", "leave_one_out_error"}
    best = min(rows, key=lambda row: row["leave_one_out_error"])
    assert (solved["solver"], solved["strength"]) == ("ridge", best["strength"])
    assert solved["leave_one_out_error"] == best["leave_one_out_error"]
    answers = load("run").predict(sorted(map(str, Path("images").rglob("*.png"))))
    # Dogs are the bright ones, whatever the wrong labels say.
    expected = ["dog" if np.asarray(Image.open(answer.path)).mean() > 120 else "cat" for answer in answers]
    assert np.mean([answer.label == name for answer, name in zip(answers, expected, strict=True)]) > 0.8


def test_ridge_does_not_leave_out_one_version_of_a_image_while_others_stay(here, capsys):
    phases = "[{train: head, augmentation: flips}]"
    assert fit("--model.head_solver", "ridge", phases=phases, epochs=3) == 0
    assert "not solved ridge leaves one row out" in capsys.readouterr().out
    assert summary()["phases"][0]["epochs"] == 3


def test_all_versions_of_the_images_are_rows_of_the_problem(here, monkeypatch):
    spy = Spy(monkeypatch, "path_until_it_rises")
    assert fit(phases="[{train: head, augmentation: dihedral}]") == 0
    (((features, labels, _, _), _, _),) = spy.calls
    assert features.shape == (8 * 15, 256)
    assert torch.equal(labels.view(8, 15), labels[:15].expand(8, 15))
    assert not torch.equal(features[0:15], features[15:30])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model.head", "mlp"], "model.head mlp has more than one optimum"),
        (["--model.loss", "focal"], "model.loss focal has no solver"),
        (["--model.label_smoothing", "0.1"], "model.label_smoothing is above 0"),
        (["--model.head_dropout", "0.1"], "model.head_dropout is above 0"),
        (["--model.head_solver", "sgd"], "model.head_solver is sgd"),
    ],
)
def test_what_cannot_be_solved_is_trained_on_what_is_kept_and_said(here, capsys, options, reason):
    assert fit(*options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("not solved")] == [f"not solved {reason}"]
    assert len([line for line in lines if line.startswith("cached ")]) == 1
    (phase,) = summary()["phases"]
    assert (phase["solved"], phase["epochs"], phase["learning_rates"]) == (False, 2, {"head": 0.01})
    assert "head" not in phase
    assert not Path("run/head-1.csv").exists()


def test_an_unknown_solver_is_one_line(here, capsys):
    assert fit("--model.head_solver", "lbgfs") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.head_solver" in line
    assert not Path("run").exists()


def test_an_average_of_the_weights_starts_from_the_solved_head(here):
    assert fit(run="plain") == 0
    assert fit("--ema", "0.9", run="averaged") == 0
    assert all(torch.equal(one, other) for one, other in zip(head("plain"), head("averaged"), strict=True))
    phases = "[{train: head, epochs: 1}, {train: all, lr_scale: 1.0e-9}]"
    assert fit("--ema", "0.9", run="two", phases=phases) == 0
    for one, other in zip(head("plain"), head("two", "last"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_solved_phase_lasts_until_its_weights_are_kept(here):
    assert fit("--checkpoint.every_n_epochs", "2", epochs=4) == 0
    assert summary()["phases"][0]["epochs"] == 4


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.check_val_every_n_epoch", "2"],
        ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "4"],  # of 3 batches an epoch
        ["--checkpoint.every_n_train_steps", "5"],
    ],
)
def test_a_solved_phase_ends_with_a_validation(here, options):
    assert fit(*options, epochs=4) == 0
    assert summary()["phases"][0]["epochs"] == 4
    assert summary()["monitor"]["best"] is not None


def test_a_new_phase_after_the_solved_one_trains_with_clipped_fused_steps(here):
    phases = "[{train: head, epochs: 1}, {train: all}]"
    assert fit("--trainer.gradient_clip_val", "0.5", phases=phases, epochs=3) == 0
    assert not torch.equal(head(name="last")[0], head("run", "previous")[0])


def test_stacked_rows_are_those_of_the_parts_one_below_the_other():
    parts = [torch.arange(12.0).view(4, 3), torch.arange(100.0, 106.0).view(2, 3), torch.zeros(3, 3)]
    stacked, whole = Stacked(parts), torch.cat(parts)
    assert stacked.shape == (9, 3)
    for start in range(10):
        for stop in range(10):
            assert torch.equal(stacked[start:stop], whole[start:stop])


def test_a_head_is_not_solved_where_the_sampler_draws_images_anew(here, capsys):
    assert fit("--data.sampler", "balanced") == 0
    assert "not solved data.sampler is balanced, which draws anew in each epoch" in capsys.readouterr().out
