"""A run folder written by an earlier version of this package still opens, and answers as it did."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny import write_images

from tl_lightning import load
from tl_lightning.cli import main

OLD = Path(__file__).parents[1] / "fixtures" / "run_0.1"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What was written in float32 is compared in float32, whatever this machine is fast at.
    monkeypatch.setattr("tl_lightning.experiment.configuration.fast_precision", lambda: "32-true")
    write_images(tmp_path / "pictures", count=8, size=(48, 40))
    shutil.copytree(OLD, tmp_path / "run")
    return tmp_path


def test_an_old_run_predicts_what_it_predicted(here):
    with (OLD / "predictions.csv").open() as file:
        expected = list(csv.DictReader(file))
    answers = load("run").predict([row["path"] for row in expected])
    for answer, row in zip(answers, expected, strict=True):
        assert answer.label == row["class"]
        assert answer.probabilities["cat"] == pytest.approx(float(row["probability_cat"]), abs=1e-5)


def test_an_old_run_scores_what_it_scored(here):
    assert main(["test", "--run_dir", "run", "--output", "test.json"]) == 0
    again, before = json.loads(Path("test.json").read_text()), load("run").summary
    assert again["test"] == pytest.approx(before["test"], abs=1e-5)


def test_the_kind_of_target_under_its_former_name_still_tests(here):
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    config["data"]["init_args"]["answers"] = "class"
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    assert main(["test", "--run_dir", "run", "--output", "test.json"]) == 0
    again, before = json.loads(Path("test.json").read_text()), load("run").summary
    assert again["test"] == pytest.approx(before["test"], abs=1e-5)
