"""SIGTERM ends a command with 143, SIGUSR1 with 138, a run where it can go on exactly."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.core import interruption
from tl_lightning.core.interruption import Preempted, Terminated, asked_to_end, defer, exit_code, signals_interrupt

FIT = ["fit", *TINY, "--phases", "[{train: head, epochs: 1}, {train: 'last:2'}]", "--model.head_dropout", "0.2"]
FIT += ["--trainer.max_epochs", "3"]


class Terminate(Callback):
    """Has a signal come once, where a test says."""

    place: str | None = None
    signum = signal.SIGTERM

    def _pass(self, hook):
        if Terminate.place == hook:
            Terminate.place = None
            os.kill(os.getpid(), Terminate.signum)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            self._pass("train_batch_end")

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.current_epoch == 1:
            self._pass("save_checkpoint")

    def on_test_start(self, trainer, pl_module):
        self._pass("test_start")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


def state(run):
    return torch.load(Path(run, "checkpoints", "last.ckpt"), weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("place", "signum", "code", "step"),
    [
        ("train_batch_end", signal.SIGUSR1, 138, 5),  # an epoch has 3 steps
        ("save_checkpoint", signal.SIGTERM, 143, 3),  # within the writing of a file
        pytest.param("train_batch_end", signal.SIGTERM, 143, 5, marks=pytest.mark.slow),
        pytest.param("test_start", signal.SIGTERM, 143, 9, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_a_signal_ends_goes_on_to_the_same_weights(here, monkeypatch, place, signum, code, step):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    assert main([*FIT, "--run_dir", "whole"]) == 0
    monkeypatch.setattr(Terminate, "place", place)
    monkeypatch.setattr(Terminate, "signum", signum)
    assert main([*FIT, "--trainer.callbacks+=test_interruption.Terminate", "--run_dir", "run"]) == code
    assert Terminate.place is None
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == step
    assert main(["resume", "--run_dir", "run"]) == 0
    assert all(torch.equal(tensor, state("whole")[name]) for name, tensor in state("run").items())


def test_sigterm_before_anything_is_trained_leaves_nothing(here, monkeypatch):
    from tl_lightning.data.images.module import ImageDataModule

    monkeypatch.setattr(ImageDataModule, "notes", lambda self: os.kill(os.getpid(), signal.SIGTERM) or [])
    assert main([*FIT, "--run_dir", "run"]) == 143
    assert not Path("run").exists()


def test_an_interruption_is_known_also_where_something_else_failed_after_it():
    def failing(first):
        try:
            try:
                raise first
            finally:
                raise RuntimeError("a file that cannot be closed")
        except RuntimeError as error:
            return error

    assert exit_code(failing(Terminated())) == 143
    assert exit_code(failing(Preempted())) == 138
    assert exit_code(failing(KeyboardInterrupt())) == 130
    assert exit_code(failing(ValueError())) is None


@pytest.fixture
def asked_again(monkeypatch):
    """Nothing ends the test's own process, and every signal counts as another request."""
    monkeypatch.setattr(interruption, "GRACE", 3600.0)
    monkeypatch.setattr(interruption, "AT_ONCE", -1.0)


@pytest.mark.parametrize(
    "environment", [{"LOCAL_RANK": "1"}, {"RANK": "0", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}]
)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_one_of_several_processes_goes_on_until_all_agree(monkeypatch, asked_again, environment, signum, code):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = set(threading.enumerate())
    with signals_interrupt():
        os.kill(os.getpid(), signum)  # raises nothing
        assert asked_to_end() == code
        timers = set(threading.enumerate()) - before
        assert all(timer.daemon for timer in timers)
        assert len(timers) == 2
    assert all(timer.finished.is_set() for timer in timers)


def test_who_asks_twice_by_sigterm_does_not_wait(asked_again):
    with signals_interrupt():
        defer(True)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        defer(True)
    with signals_interrupt(), pytest.raises(Terminated):
        defer(True)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError


def test_a_request_that_comes_twice_at_once_is_one():
    with signals_interrupt():
        defer(True)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked_to_end() == 143


@pytest.mark.parametrize(("signum", "kind"), [(signal.SIGUSR1, Preempted), (signal.SIGTERM, Terminated)])
def test_what_takes_longer_than_the_grace_is_interrupted(monkeypatch, signum, kind):
    monkeypatch.setattr(interruption, "GRACE", 0.2)
    with signals_interrupt(), pytest.raises(kind):
        defer(True)
        os.kill(os.getpid(), signum)
        threading.Event().wait(100)


def test_a_signal_that_nobody_has_looked_at_is_not_forgotten():
    with signals_interrupt(), pytest.raises(Preempted):
        defer(True)
        os.kill(os.getpid(), signal.SIGUSR1)
        defer(False)


def test_a_fork_ends_as_if_the_handler_were_not_there():
    with signals_interrupt():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)  # which its parent gets, too, and still needs it
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def test_another_thread_may_run_commands():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["--help"])))
    thread.start()
    thread.join()
    assert codes == [0]


def ended(args, *, ready):
    """Starts a command, sends SIGTERM to its first process when it is ready; gives its exit code and its process id."""
    process = subprocess.Popen([sys.executable, "-m", "tl_lightning", *args], start_new_session=True)
    try:
        while process.poll() is None and not ready(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=100), process.pid
    finally:
        process.kill()


def imported(pid):
    return "/torch/lib/" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_sigterm_while_torch_is_being_imported(here, capfd):
    assert ended([*FIT, "--run_dir", "run"], ready=imported)[0] == 143
    assert capfd.readouterr().err == ""
    assert not Path("run").exists()


def living(group):
    """How many processes of a group have not ended; who has, may wait for its parent."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], stdout=subprocess.PIPE, text=True, check=True).stdout
    return sum(int(of) == group and not state.startswith("Z") for of, state in map(str.split, listed.splitlines()))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("place", ["training", "starting"])
def test_of_two_processes_none_is_left_behind(here, place):
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1000"]

    def training(pid):
        return Path("run/checkpoints/last.ckpt").is_file()

    def starting(pid):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(b"\0fit\0" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)

    ready = {"training": training, "starting": starting}[place]
    code, pid = ended([*FIT, *processes, "--run_dir", "run"], ready=ready)
    assert code == 143
    assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
    for _ in range(300):
        if not living(pid):
            break
        time.sleep(0.1)
    assert not living(pid)


def test_a_worker_that_hears_the_signals_of_the_whole_job_goes_on():
    child = os.fork()
    if child == 0:
        interruption.leave_signals_to_parent()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
