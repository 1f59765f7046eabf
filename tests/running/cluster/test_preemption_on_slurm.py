"""Jobs that a real SLURM pre-empts are queued again, and end with the weights of a run that was left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "preemption_on_slurm.py"


@pytest.mark.slow
def test_jobs_on_two_nodes_that_are_preempted_end_as_if_they_had_not_been(on_cluster):
    command = [sys.executable, str(BENCHMARK), "--runs", "2", "--epochs", "24"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "2 of 2 bit-identical to the run that was left alone"
