"""A job that a real SLURM pre-empts is queued again, and ends with the weights of a run that was left alone."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pictures import TINY, write_tiny

pytestmark = pytest.mark.slow

SLOWLY = """
import time
from lightning import Callback
class Slowly(Callback):
    def on_train_batch_end(self, *_): time.sleep(0.5)
"""
EPOCHS = 8
FIT = [*TINY, "--model.head_dropout", "0.2", "--trainer.callbacks+=slowly.Slowly", "--trainer.max_epochs", str(EPOCHS)]
FIT += ["--early_stopping.patience", "100"]


@pytest.fixture
def here(tmp_path, monkeypatch, lab):
    monkeypatch.chdir(tmp_path)
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("slowly.py").write_text(SLOWLY)
    return write_tiny(tmp_path)


def tl(*args):
    command = [sys.executable, "-m", "tl_lightning", *args]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def weights(run):
    return torch.load(Path(run, "checkpoints/last.ckpt"), weights_only=True)["state_dict"]


def logged(run):
    """How many rows of figures a run has written."""
    metrics = Path(run, "metrics.csv")
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


def test_a_job_on_two_nodes_is_preempted_twice_and_ends_as_if_it_had_not_been(here, lab):
    tl("fit", *FIT, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--run_dir", "whole")
    printed = tl("submit", "slurm", "--nodes", "2", "--job_name", "job", "--", "fit", *FIT, "--run_dir", "run")
    (job,) = re.search(r"scancel (\d+) ends", printed).groups()
    log = Path(f"slurm/job-{job}.log")
    for time_before, rows in ((0, 3), (1, 9)):
        deadline = time.monotonic() + 600
        while logged("run") < rows or lab.states(job) != ["RUNNING"]:
            assert time.monotonic() < deadline, f"it did not train: {log.read_text() if log.exists() else ''}"
            time.sleep(0.5)
        lab("scancel", "--signal=USR1", job)
        deadline = time.monotonic() + 300
        while f"Restarts={time_before + 1}" not in lab("scontrol", "show", "job", job):
            assert time.monotonic() < deadline, f"it was not queued again: {log.read_text()}"
            time.sleep(0.5)
        assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
    assert lab.wait(job) == ["COMPLETED"], log.read_text()
    assert json.loads(Path("run/summary.json").read_text())["status"] == "completed"
    assert log.read_text().count("\nresuming   phase") == 2
    whole = weights("whole")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights("run").items())
    assert Path("run/metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()
