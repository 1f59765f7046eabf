"""What a phase's speed counts, and what it leaves out."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.data.loader import TimedLoader
from tl_lightning.training.throughput import Throughput


class Clock:
    """Stands unless it is moved."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("tl_lightning.training.throughput.time.perf_counter", clock)
    return clock


def trainer(*, processes=1, model=None, accumulate=1):
    strategy = SimpleNamespace(model=model, reduce=lambda tensor, reduce_op: tensor)
    return SimpleNamespace(
        strategy=strategy,
        world_size=processes,
        accumulate_grad_batches=accumulate,
        is_last_batch=False,
        train_dataloader=SimpleNamespace(waited=0.0),
    )


MODULE = SimpleNamespace(device=torch.device("cpu"), solved=False)
BATCH = {"label": torch.zeros(8)}


def step(callback, trainer, clock, *, data=1.0, work=3.0):
    clock.now += data
    trainer.train_dataloader.waited += data
    callback.on_train_batch_start(trainer, MODULE, BATCH, 0)
    clock.now += work
    callback.on_train_batch_end(trainer, MODULE, None, BATCH, 0)


def begun(trainer):
    callback = Throughput()
    callback.on_train_start(trainer, MODULE)
    callback.on_train_epoch_start(trainer, MODULE)
    return callback


def test_steps_after_the_first_are_counted_with_the_wait_for_their_data(clock):
    fake = trainer(processes=2)
    callback = begun(fake)
    step(callback, fake, clock, data=50, work=50)  # workers start, code is compiled
    for _ in range(5):
        step(callback, fake, clock)
    callback.on_train_end(fake, MODULE)
    assert callback.measured == {"images_per_s": 2 * 8 / 4, "waiting_for_data": 0.25}


def test_validations_and_checkpoints_are_not_counted(clock):
    fake = trainer()
    callback = begun(fake)
    step(callback, fake, clock)
    step(callback, fake, clock)
    callback.on_validation_start(fake, MODULE)
    clock.now += 1000
    step(callback, fake, clock)  # its wait for data cannot be told from the validation
    callback.on_save_checkpoint(fake, MODULE, {})
    clock.now += 1000
    callback.on_train_epoch_start(fake, MODULE)
    step(callback, fake, clock)
    callback.on_train_end(fake, MODULE)
    assert callback.measured == {"images_per_s": pytest.approx(3 * 8 / 11), "waiting_for_data": pytest.approx(2 / 11)}


def test_what_is_not_trained_by_steps_has_no_speed(clock, capsys):
    fake = trainer()
    callback = begun(fake)
    step(callback, fake, clock)  # the only one
    callback.on_train_end(fake, MODULE)
    assert callback.measured == {}
    step(callback, fake, clock)
    callback.on_train_end(fake, SimpleNamespace(device=torch.device("cpu"), solved=True))
    assert callback.measured == {}
    assert "speed" not in capsys.readouterr().out


def test_a_loader_without_a_clock_leaves_the_wait_out(clock):
    fake = trainer()
    fake.train_dataloader = object()
    callback = begun(fake)
    for _ in range(3):
        callback.on_train_batch_start(fake, MODULE, BATCH, 0)
        clock.now += 2
        callback.on_train_batch_end(fake, MODULE, None, BATCH, 0)
    callback.on_train_end(fake, MODULE)
    assert callback.measured == {"images_per_s": 4.0}


def test_what_of_the_exchange_follows_the_backward_pass_is_waiting_for_others(clock, monkeypatch):
    class Wrapped:
        def _get_ddp_logging_data(self):
            return {"avg_backward_comm_time": 3e9, "avg_backward_compute_comm_overlap_time": 1e9}

    monkeypatch.setattr("tl_lightning.training.throughput.DistributedDataParallel", Wrapped)
    fake = trainer(processes=2, model=Wrapped(), accumulate=2)  # an exchange in every second batch
    callback = begun(fake)
    for _ in range(5):
        step(callback, fake, clock)
    callback.on_train_end(fake, MODULE)
    assert callback.measured["waiting_for_others"] == 2 * 2 / (4 * 4)


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        time.sleep(0.02)
        return index


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_what_torchs_own_gives_and_notes_the_wait(workers):
    loader = TimedLoader(Slow(), batch_size=1, num_workers=workers, persistent_workers=workers > 0)
    assert [int(batch) for batch in loader] == [0, 1, 2]
    first = loader.waited
    assert first > 0.06 * (workers == 0)
    assert [int(batch) for batch in loader] == [0, 1, 2]
    assert loader.waited > first
    before = loader.waited
    for _ in loader:
        time.sleep(0.05)  # which is not waiting for data
    assert loader.waited - before < 0.15


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    return tmp_path


def test_the_summary_has_the_speed_of_each_phase_that_is_trained_by_steps(here, capsys):
    phases = "[{epochs: 1, train: head}, {epochs: 2, train: 'last:2', views: 1}, {epochs: 2, train: all}]"
    assert main(["fit", *TINY, "--phases", phases, "--trainer.max_epochs", "5", "--run_dir", "run"]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert [(phase["solved"], phase["cached"]) for phase in summary["phases"][:2]] == [
        *((True, "blocks.4"), (False, "blocks.2"))
    ]
    assert [speed["phase"] for speed in summary["throughput"]] == ["last:2", "all"]
    for speed in summary["throughput"]:
        assert set(speed) == {"phase", "images_per_s", "waiting_for_data"}
        assert speed["images_per_s"] > 0
        assert 0 < speed["waiting_for_data"] < 1
    assert capsys.readouterr().out.count("speed      ") == 2


ROOT = Path(__file__).parents[2]


class Late(Callback):
    """Holds the second of two processes up in every step."""

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_rank == 1:
            time.sleep(0.3)


@pytest.mark.slow
def test_a_process_that_is_late_is_what_the_other_waits_for(here):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in (0, 1):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parent, ROOT / "tests", ROOT])),
        }
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "tl_lightning", "fit", *TINY, "--phases", "full", "--run_dir", "run"]
        command += ["--data.batch_size", "2", "--trainer.max_epochs", "3", "--trainer.devices", "2"]
        children.append(subprocess.Popen([*command, f"--trainer.callbacks+={__name__}.Late"], env=environment))
    assert [child.wait(timeout=500) for child in children] == [0, 0]
    summary = json.loads(Path("run/summary.json").read_text())
    (speed,) = summary["throughput"]
    # One waits for nearly the whole of a step and the other not at all: the mean is close to a half.
    assert 0.3 < speed["waiting_for_others"] < 0.6
    assert summary["batch"] == {**{"images": 4, "batch_size": 2, "processes": 2, "accumulate": 1}, "lr_factor": 1.0}
