import csv
import os

import pytest
import torch

from tl_lightning.core import files
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


@pytest.mark.parametrize("run_dir", [None, "runs/x", "runs"])
def test_a_link_that_leads_nowhere_is_one_line(tmp_path, monkeypatch, run_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to("gone")
    with pytest.raises(UserError, match="runs is a link to gone, which is not there"):
        RunFolder.create(run_dir, name="x")


def test_a_taken_number_is_passed_over_also_where_it_is_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "x-1").symlink_to("gone")
    assert RunFolder.next_free("x", parent=tmp_path).path.name == "x-2"
    assert RunFolder.create(None, name="x", parent=tmp_path).path.name == "x-2"


def test_where_every_name_is_taken_one_stops_looking(tmp_path, monkeypatch):
    def taken(*args, **kwargs):
        raise FileExistsError(17, "File exists")

    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(files, "MOST_NAMES", 9)
    monkeypatch.setattr(os, "mkdir", taken)
    with pytest.raises(UserError, match="takes no new name: x-1 to x-9 are taken"):
        RunFolder.create(None, name="x", parent=tmp_path / "runs")


@pytest.mark.parametrize("run_dir", [None, "a/b/c"])
def test_discarding_leaves_no_folder_that_was_made(tmp_path, monkeypatch, run_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    RunFolder.create(run_dir, name="x").discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


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
