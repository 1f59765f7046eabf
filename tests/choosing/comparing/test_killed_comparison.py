"""A comparison that is killed goes on with what is missing, to the same end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import TINY, write_tiny

from tl_lightning.cli import main

ARGS = ["compare", *TINY, "--trainer.max_epochs", "4", "--seeds", "2", "--strategies", "scratch,full"]


def rows(folder):
    summary = json.loads(Path(folder, "summary.json").read_text())
    return summary["verdict"], [{**row, "seconds": None} for row in summary["strategies"]], summary["runs"]


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    assert main([*ARGS, "--run_dir", "whole"]) == 0
    process = subprocess.Popen([sys.executable, "-m", "tl_lightning", *ARGS, "--run_dir", "cut"])
    while not Path("cut/full-seed0/checkpoints/last.ckpt").exists():  # within the second of four runs
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("cut/summary.json").exists()
    done = {path: path.stat().st_mtime_ns for path in Path("cut").glob("*/summary.json")}
    assert Path("cut/scratch-seed0/summary.json") in done
    assert main([*ARGS, "--run_dir", "cut"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert rows("cut") == rows("whole")
