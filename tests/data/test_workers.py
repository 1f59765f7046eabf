import os
from pathlib import Path

import pytest

import tl_lightning
from tl_lightning.data.workers import default_workers, usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr("tl_lightning.data.workers.usable_cores.__defaults__", (Path("/nowhere"),))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000\n", 16), ("400000 100000\n", 4), ("50000 100000\n", 1), ("9900000 100000\n", 16), ("nonsense", 16)],
)
def test_cores_are_those_that_the_process_may_use(tmp_path: Path, limit: str, cores: int) -> None:
    assert usable_cores(tmp_path) == 16
    (tmp_path / "cpu.max").write_text(limit)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("processes", "workers"), [(1, 8), (2, 7), (4, 3), (16, 0), (32, 0)])
def test_processes_beside_gpus_share_the_cores(processes: int, workers: int) -> None:
    assert default_workers(processes=processes, beside_gpu=True) == workers
    assert default_workers(processes=processes, beside_gpu=False) == 0


def test_what_slurm_has_bound_is_not_shared_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "16")
    assert default_workers(processes=4, beside_gpu=True) == 8


def test_nothing_else_counts_cores() -> None:
    package = Path(tl_lightning.__file__).parent
    assert [path.name for path in package.rglob("*.py") if "cpu_count" in path.read_text()] == ["workers.py"]
