"""Every kind of answer from the command line to the prediction, and folds that are scored together."""

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
from tl_lightning.core.predictions_file import load_predictions

TASKS = {"ordinal": "OrdinalTask", "multilabel": "MultiLabelTask", "regression": "RegressionTask"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """24 images, and a table of their mean brightness in several forms."""
    monkeypatch.chdir(write_tiny(tmp_path))
    rows = []
    paths = sorted(Path("images").rglob("*.png"))
    means = [float(np.asarray(Image.open(path)).mean()) for path in paths]
    ranks = np.argsort(np.argsort(means))
    for k, (path, mean) in enumerate(zip(paths, means, strict=True)):
        level = ("low", "middle", "high")[ranks[k] // 8]
        labels = "|".join(name for name, has in (("dark", mean < 100), ("even", k % 2 == 0)) if has)
        rows.append([str(path), level, labels, f"{mean:.4f}", f"p{k // 2}"])
    with Path("table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "ordinal", "multilabel", "regression", "patient"], *rows])
    return tmp_path


def options(kind):
    classes = ["--data.classes", "[low, middle, high]"] if kind == "ordinal" else []
    return ["--model", TASKS[kind], *TINY, "--data.source", "table.csv", "--data.label_column", kind, *classes]


def fit(kind, *more):
    return main(["fit", *options(kind), "--trainer.max_epochs", "2", "--run_dir", "run", *more])


def summary(folder="run"):
    return json.loads(Path(folder, "summary.json").read_text())


@pytest.mark.parametrize("phases", ["feature_extraction", "lp_ft"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_task_learns_scores_and_answers(here, kind, phases):
    assert fit(kind, "--phases", phases) == 0
    result = summary()
    assert result["status"] == "completed"
    assert result["data"]["problem_type"] == kind
    assert result["phases"][0]["solved"] is True
    monitor = {"ordinal": "mean_absolute_error", "multilabel": "mean_average_precision", "regression": "r2"}[kind]
    assert result["monitor"]["name"] == f"val/{monitor}"
    assert set(result["standard_errors"]) <= set(result["test"])

    # What was written down of the test images gives the reported figure again.
    kept = load_predictions(Path("run/test_predictions.npz"))
    assert len(kept.indices) == result["data"]["test"]
    if kind == "regression":
        missed = (kept.predictions - kept.labels).abs().mean()
        assert float(missed) == pytest.approx(result["test"]["mean_absolute_error"], rel=1e-4)
        assert result["baseline"]["constant_mean_absolute_error"] > result["test"]["mean_absolute_error"]
    elif kind == "ordinal":
        assert torch.allclose(kept.predictions.sum(dim=1), torch.ones(len(kept.indices)))
        assert set(result["baseline"]) == {"median_mean_absolute_error", "median_accuracy"}
    else:
        right = ((kept.predictions > 0.5) == (kept.labels > 0.5)).all(dim=1).double().mean()
        assert float(right) == pytest.approx(result["test"]["exact_match"])

    # tl test scores the same again, and a prediction of the same images gives the same answers.
    assert main(["test", "--run_dir", "run", "--output", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["test"] == pytest.approx(result["test"])
    paths = [str(path) for path in sorted(Path("images").rglob("*.png"))]
    answers = load("run").predict([paths[index] for index in kept.indices])
    given = [list((answer.numbers or answer.probabilities).values()) for answer in answers]
    np.testing.assert_array_equal(np.float32(given), kept.predictions.numpy())


def test_predictions_of_every_kind_are_written_with_their_names(here):
    headers = {}
    for kind in TASKS:
        assert fit(kind, "--phases", "feature_extraction", "--run_dir", kind) == 0
        args = ["--run_dir", kind, "--input", "images", "--output", f"{kind}-answers.csv"]
        assert main(["predict", *args]) == 0
        with Path(f"{kind}-answers.csv").open() as file:
            rows = list(csv.reader(file))
        assert len(rows) == 25
        headers[kind] = rows[0]
        if kind == "multilabel":
            for row in rows[1:]:
                having = [name for name, chance in zip(["dark", "even"], row[2:], strict=True) if float(chance) > 0.5]
                assert row[1] == "|".join(having)
    assert headers == {
        "ordinal": ["path", "class", "probability_low", "probability_middle", "probability_high"],
        "multilabel": ["path", "class", "probability_dark", "probability_even"],
        "regression": ["path", "regression"],
    }


@pytest.mark.parametrize("kind", TASKS)
def test_a_resumed_run_of_any_kind_ends_where_it_would_have_ended(here, kind):
    assert fit(kind, "--phases", "[{train: all}]", "--trainer.max_epochs", "3") == 0
    whole = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert fit(kind, "--phases", "[{train: all}]", "--trainer.max_epochs", "3", "--run_dir", "cut") == 0
    Path("cut/checkpoints/previous.ckpt").replace("cut/checkpoints/last.ckpt")
    Path("cut/summary.json").unlink()
    assert main(["resume", "--run_dir", "cut"]) == 0
    again = torch.load("cut/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.mixup", "0.2"], "data.mixup and data.cutmix blend classes"),
        (
            ["--data.problem_type", "multilabel"],
            "data.problem_type is multilabel, but RegressionTask learns regression",
        ),
        (["--data.sampler", "balanced"], "data.sampler balanced draws all classes equally often"),
        (["--checkpoint.monitor", "val/accuracy"], "'val/accuracy' is never logged"),
        (["--model.loss", "focal"], "model.loss"),
        (["--data.label_column", "ordinal"], "a finite number is wanted"),
    ],
)
def test_what_does_not_go_with_numbers_is_one_line(here, capsys, args, message):
    assert fit("regression", *args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("run").exists()


def test_weights_change_what_is_learned_and_are_said(here, capsys):
    lines = Path("table.csv").read_text().splitlines()
    weighted = [f"{line},{'weight' if k == 0 else 1 + 99 * (k % 2)}" for k, line in enumerate(lines)]
    assert fit("regression", "--phases", "feature_extraction") == 0
    Path("table.csv").write_text("\n".join(weighted) + "\n")
    assert fit("regression", "--phases", "feature_extraction", "--run_dir", "weighted") == 0
    assert "images count in training as the weight column says" in capsys.readouterr().out
    heads = [
        torch.load(f"{run}/checkpoints/best.ckpt", weights_only=True)["state_dict"]["heads.target.1.weight"]
        for run in ("run", "weighted")
    ]
    assert not torch.allclose(*heads, rtol=1e-2)


def crossval(*more, kind="regression"):
    args = [*options(kind), "--phases", "feature_extraction", "--data.folds", "3", "--trainer.max_epochs", "1"]
    return main(["crossval", *args, "--run_dir", "cv", *more])


def test_every_image_is_answered_once_by_a_model_that_has_not_seen_it(here, capsys):
    assert crossval("--data.group_column", "patient") == 0
    result = summary("cv")
    assert (result["images"], result["groups"], len(result["folds"])) == (24, 12, 3)
    kept = load_predictions(Path("cv/out_of_fold.npz"))
    assert kept.indices.tolist() == list(range(24))
    tested = []
    for fold in range(3):
        part = load_predictions(Path(f"cv/fold-{fold}/test_predictions.npz"))
        assert torch.equal(kept.predictions[part.indices], part.predictions)
        assert summary(f"cv/fold-{fold}")["data"]["fold"] == fold
        tested += part.indices.tolist()
    assert sorted(tested) == list(range(24))
    missed = float((kept.predictions - kept.labels).abs().mean())
    assert result["out_of_fold"]["mean_absolute_error"] == pytest.approx(missed, rel=1e-5)
    errors = [fold["test"]["mean_absolute_error"] for fold in result["folds"]]
    assert result["fold_standard_errors"]["mean_absolute_error"] == pytest.approx(np.std(errors, ddof=1) / 3**0.5)
    assert result["standard_errors"]["mean_absolute_error"] > 0
    shown = capsys.readouterr().out
    assert "out of fold: 24 images in 12 groups" in shown


def test_an_interrupted_cross_validation_goes_on_with_what_is_missing(here, capsys):
    assert crossval() == 0
    whole = summary("cv")
    for name in ("summary.json", "test_predictions.npz"):  # as of a run that was killed before its end
        Path("cv/fold-1", name).unlink()
    import shutil

    shutil.rmtree("cv/fold-2")
    before = Path("cv/fold-0/checkpoints/best.ckpt").stat().st_mtime_ns
    capsys.readouterr()
    assert crossval() == 0
    assert "cv/fold-0 is complete already" in capsys.readouterr().out
    assert Path("cv/fold-0/checkpoints/best.ckpt").stat().st_mtime_ns == before
    assert summary("cv")["out_of_fold"] == whole["out_of_fold"]
    Path("table.csv").write_text(Path("table.csv").read_text().replace(",p0", ",other"))  # nobody asked for that column
    assert crossval() == 0
    answers = Path("table.csv").read_text().splitlines()
    answers[3] = answers[3].replace(answers[3].split(",")[3], "99")
    Path("table.csv").write_text("\n".join(answers) + "\n")
    capsys.readouterr()
    assert crossval() == 2
    assert "was run on other images or targets" in capsys.readouterr().err
    assert crossval("--model.lr", "0.5") == 2
    assert "holds a cross-validation with other options" in capsys.readouterr().err


def test_a_fold_is_chosen_by_the_command_alone(here, capsys):
    assert crossval("--data.fold", "1") == 2
    assert "--data.fold has no effect here: all folds are run" in capsys.readouterr().err
    assert crossval("--data.on_leak", "move") == 2
    assert "data.on_leak move would leave images untested" in capsys.readouterr().err
    assert crossval("--data.folds", "50") == 2
    assert "data.folds is 50; it must be from 2 to the number of images, 24" in capsys.readouterr().err
    assert not Path("cv").exists()


def test_folds_that_were_trained_one_by_one_are_scored_together(here, capsys):
    args = [*options("regression"), "--phases", "feature_extraction", "--data.folds", "3", "--trainer.max_epochs", "1"]
    for fold in range(3):
        assert main(["fit", *args, "--data.fold", str(fold), "--run_dir", f"cv/fold-{fold}"]) == 0
    assert crossval() == 0
    assert summary("cv")["images"] == 24


def test_a_checkpoint_says_which_task_it_is_of(here):
    assert fit("regression", "--phases", "feature_extraction") == 0
    plain = Path("plain.yaml")
    plain.write_text("{data: {source: table.csv, label_column: regression}, model: {backbone: timm/test_efficientnet}}")
    args = ["--config", "plain.yaml", "--ckpt_path", "run/checkpoints/best.ckpt", "--output", "again.json"]
    assert main(["test", *args, "--trainer.precision", "32-true"]) == 0
    assert json.loads(Path("again.json").read_text())["test"] == pytest.approx(summary()["test"])
    plain.write_text("{data: {source: table.csv}}")  # without labels
    assert (
        main(["predict", "--run_dir", "run", "--config", "plain.yaml", "--output", "answers.csv"]) == 0
    )  # without labels
    plain.write_text("{data: {source: table.csv, label_column: ordinal}}")
    assert main(["predict", "--run_dir", "run", "--config", "plain.yaml", "--output", "answers.csv"]) == 0
    assert len(Path("answers.csv").read_text().splitlines()) == 25
