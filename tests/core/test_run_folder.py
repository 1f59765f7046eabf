import csv
import os

import pytest
import torch

from tl_lightning.core.files import write_text
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.training.metrics_csv import MetricsCsv


def test_numbered_folders_are_never_shared(tmp_path):
    folders = [RunFolder.create(None, name="elpv", parent=tmp_path / "runs") for _ in range(3)]
    assert [folder.path.name for folder in folders] == ["elpv-1", "elpv-2", "elpv-3"]


def test_an_explicit_folder_may_be_empty_but_not_used(tmp_path):
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(str(tmp_path / "empty"), name="x").path == tmp_path / "empty"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        RunFolder.create(str(tmp_path / "notes"), name="x")
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder.create(str(tmp_path / "notes" / "a.txt" / "run"), name="x")


def test_discarding_keeps_a_folder_that_holds_something(tmp_path):
    folder = RunFolder.create(None, name="a", parent=tmp_path)
    folder.write_summary({})
    folder.discard()
    assert folder.summary == {}


def test_a_summary_is_json_also_after_a_divergence(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_summary({"a": float("nan"), "b": [{"c": -float("inf")}, 1.5], "d": None, "e": "text"})
    assert folder.summary == {"a": None, "b": [{"c": None}, 1.5], "d": None, "e": "text"}


def test_a_run_without_a_summary_says_so(tmp_path):
    with pytest.raises(UserError, match=r"has no summary\.json"):
        _ = RunFolder(tmp_path).summary


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "before")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.txt", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_the_csv_log_gains_a_column_when_a_new_name_comes(tmp_path):
    log = MetricsCsv(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": torch.tensor(0.5), "epoch": 0}, step=10)
    log.log_metrics({"train/loss": 0.25, "epoch": 0}, step=20)
    log.log_metrics({"val/accuracy": 0.75, "epoch": 0}, step=20)
    log.log_metrics({"train/loss": 0.125, "epoch": 1}, step=30)
    with (tmp_path / "metrics.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["epoch", "step", "train/loss", "val/accuracy"],
            ["0", "10", "0.5", ""],
            ["0", "20", "0.25", ""],
            ["0", "20", "", "0.75"],
            ["1", "30", "0.125", ""],
        ]
