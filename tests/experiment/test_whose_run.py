"""Who writes a run, and where: one process, in a folder that nobody else works in, and leaves nothing if it cannot."""

import json
import os
from pathlib import Path

import pytest
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.core.claims import claimed
from tl_lightning.core.console import console

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "SLURM_NTASKS")
FIT = ["fit", *TINY, "--trainer.max_epochs", "1", "--phases", "feature_extraction"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def here(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "quiet", console.quiet)  # a process that is not the first says nothing from then on
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name in ("images", "start.pth"):
        (tmp_path / name).symlink_to(tiny / name)
    return tmp_path


def left(here):
    return sorted(path.name for path in here.iterdir() if not path.is_symlink())


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"NODE_RANK": "1"},
        {"GROUP_RANK": "1"},
        {"SLURM_PROCID": "1"},
        {"RANK": "0", "WORLD_SIZE": "2"},  # as each of torchrun's, where the trainer is to have one
    ],
)
def test_a_rank_that_the_trainer_knows_nothing_of_is_named_and_nothing_is_written(
    here, monkeypatch, capsys, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([*FIT, "--run_dir", "run"]) == 2
    name, value = next(iter(environment.items()))
    assert f"{name} is {value}" in capsys.readouterr().err
    assert left(here) == []


@pytest.mark.parametrize("options", [[], ["--run_dir", "a/b"]])
def test_a_refused_run_leaves_no_folder(here, capsys, options):
    assert main([*FIT, "--data.source", "nowhere", *options]) == 2
    assert left(here) == []


def test_a_run_under_way_is_neither_begun_again_nor_resumed(here, capsys):
    os.mkdir("run")
    with claimed(Path("run")):
        assert main([*FIT, "--run_dir", "run"]) == 2
        Path("run/config.yaml").write_text("{}")
        assert main(["resume", "--run_dir", "run"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("run is in use by another run" in line for line in lines)


@pytest.mark.parametrize("cache", ["gone", "gone/below", "start.pth"])
def test_a_cache_folder_that_cannot_be_is_one_line(here, monkeypatch, capsys, cache):
    (here / "gone").symlink_to("nowhere")
    monkeypatch.setenv("TL_CACHE_DIR", cache)
    assert main(FIT) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ("is a link to nowhere, which is not there" if "gone" in cache else "Not a directory") in line
    assert left(here) == []


def test_runs_within_their_source_are_no_images(tiny, tmp_path, monkeypatch):
    """Also their plots, and one that is put into a class folder."""
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path / "images")
    fit = [*FIT, "--data.source", ".", "--model.weights", "../start.pth"]
    for options in ([], ["--run_dir", "cat/run"], []):
        assert main([*fit, *options]) == 0
    assert Path("runs/run-1/head-1.png").is_file()
    digests = set()
    for run in ("runs/run-1", "cat/run", "runs/run-2"):
        data = json.loads(Path(run, "summary.json").read_text())["data"]
        assert data["classes"] == ["cat", "dog"]
        digests.add(data["split_digest"])
    assert len(digests) == 1
    assert not list(Path().rglob(".tl_claim"))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("limit_train_batches", "0.1", "less than one of the 3 batches of the train split"),
        ("limit_val_batches", "0.1", "less than one of the 1 batches of the validation split"),
        ("limit_test_batches", "0.1", "less than one of the 2 batches of the test split"),
        ("gradient_clip_val", "-1", "it must be 0 for none, or more"),
    ],
)
def test_what_the_trainer_would_refuse_later_is_refused_before_anything_is_trained(here, capsys, option, value, said):
    assert main([*FIT, f"--trainer.{option}", value]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"tl fit: trainer.{option} is {float(value) if '.' in value else value}")
    assert said in err
    assert "phase 1" not in out
    assert left(here) == []
