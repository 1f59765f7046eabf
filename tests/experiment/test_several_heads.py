"""Two targets in one run, of which some images lack one: trained, solved, scored, predicted."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY, write_tiny

from tl_lightning import load
from tl_lightning.cli import main
from tl_lightning.core.predictions_file import load_predictions

HEADS = "{kind: {problem_type: multiclass}, brightness: {problem_type: regression, weight: 2}}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    rows = []
    for k, path in enumerate(sorted(Path("images").rglob("*.png"))):
        mean = float(np.asarray(Image.open(path)).mean())
        rows.append([str(path), "" if k % 7 == 3 else path.parent.name, "" if k % 5 == 1 else f"{mean:.3f}"])
    with Path("table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "kind", "brightness"], *rows])
    return tmp_path


def fit(*more):
    args = [*TINY, "--data.source", "table.csv", "--data.label_column", "[kind, brightness]"]
    args += ["--model", "MultiTask", "--model.heads", HEADS, "--trainer.max_epochs", "2", "--run_dir", "run"]
    return main(["fit", *args, *more])


@pytest.mark.parametrize(("phases", "solved"), [("feature_extraction", True), ("[{train: all}]", False)])
def test_a_run_with_two_heads_is_scored_and_predicts(here, phases, solved):
    assert fit("--phases", phases) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["monitor"]["name"] == "val/loss"
    assert summary["phases"][0]["solved"] is solved
    assert {"kind/accuracy", "kind/loss", "brightness/r2", "loss"} <= set(summary["test"])
    assert {"kind/majority_accuracy", "brightness/constant_mean_absolute_error"} <= set(summary["baseline"])
    kind, brightness = (load_predictions(Path(f"run/test_predictions-{name}.npz")) for name in ("kind", "brightness"))
    right = (kind.predictions.argmax(dim=1) == kind.labels).double().mean()
    assert float(right) == pytest.approx(summary["test"]["kind/accuracy"])
    missed = (brightness.predictions - brightness.labels).abs().mean()
    assert float(missed) == pytest.approx(summary["test"]["brightness/mean_absolute_error"], rel=1e-4)
    assert (kind.labels >= 0).all() and brightness.labels.isfinite().all()

    assert main(["test", "--run_dir", "run", "--output", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["test"] == pytest.approx(summary["test"])
    assert main(["predict", "--run_dir", "run", "--input", "images", "--output", "all.csv"]) == 0
    with Path("all.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = ["path", "kind/class", "kind/probability_cat", "kind/probability_dog", "brightness/brightness"]
    assert (len(rows), list(rows[0])) == (24, columns)
    paths = [row["path"] for row in rows]
    at = {path: k for k, path in enumerate(paths)}
    index = sorted(paths)[int(brightness.indices[0])]
    given = float(rows[at[index]]["brightness/brightness"])
    assert given == pytest.approx(float(brightness.predictions[0, 0]), rel=1e-2)
    assert [prediction.row["kind/class"] for prediction in load("run").predict(paths[:3])] == [
        row["kind/class"] for row in rows[:3]
    ]


def test_one_head_may_be_monitored(here):
    assert fit("--phases", "feature_extraction", "--checkpoint.monitor", "val/kind/macro_f1") == 0
    assert json.loads(Path("run/summary.json").read_text())["monitor"]["name"] == "val/kind/macro_f1"


def test_what_takes_one_target_says_so(here, capsys):
    assert fit("--model", "ClassificationTask") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
