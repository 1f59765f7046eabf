"""A cluster, and a folder to use it from."""

import os
import subprocess
import sys

import pytest
from slurm_lab import slurm_lab
from tiny import write_tiny


@pytest.fixture(scope="session")
def lab():
    with slurm_lab() as cluster:
        yield cluster


@pytest.fixture
def on_cluster(tmp_path, monkeypatch, lab):
    """A folder with images and weights, where SLURM's commands find the cluster; jobs import what lies there."""
    monkeypatch.chdir(tmp_path)
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return write_tiny(tmp_path)


@pytest.fixture
def tl():
    """Runs a command in a process of its own, and gives what it printed."""

    def run(*args):
        command = [sys.executable, "-m", "tl_lightning", *args]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run
