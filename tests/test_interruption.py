"""SIGTERM ends a command with 143, and a run as Ctrl-C would: it can be gone on with."""

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
from pictures import TINY, write_tiny

from tl_lightning import interruption
from tl_lightning.cli import main
from tl_lightning.interruption import Terminated, exit_code, sigterm_interrupts

FIT = ["fit", *TINY, "--phases", "[{train: head, epochs: 1}, {train: 'last:2'}]", "--model.head_dropout", "0.2"]
FIT += ["--trainer.max_epochs", "3"]


class Terminate(Callback):
    """Has SIGTERM come once, where a test says."""

    place: str | None = None

    def _pass(self, hook):
        if Terminate.place == hook:
            Terminate.place = None
            os.kill(os.getpid(), signal.SIGTERM)

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
    "place",
    [
        "save_checkpoint",  # within the writing of a file
        pytest.param("train_batch_end", marks=pytest.mark.slow),
        pytest.param("test_start", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_sigterm_ends_goes_on_to_the_same_weights(here, monkeypatch, place):
    before = signal.getsignal(signal.SIGTERM)
    assert main([*FIT, "--run_dir", "whole"]) == 0
    monkeypatch.setattr(Terminate, "place", place)
    assert main([*FIT, "--trainer.callbacks+=test_interruption.Terminate", "--run_dir", "run"]) == 143
    assert Terminate.place is None
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
    assert main(["resume", "--run_dir", "run"]) == 0
    assert all(torch.equal(tensor, state("whole")[name]) for name, tensor in state("run").items())


def test_sigterm_before_anything_is_trained_leaves_nothing(here, monkeypatch):
    from tl_lightning.data.module import ImageDataModule

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
    assert exit_code(failing(KeyboardInterrupt())) == 130
    assert exit_code(failing(ValueError())) is None


def test_the_first_process_ends_the_others_which_wait_for_it(monkeypatch):
    monkeypatch.setattr(interruption, "GRACE", 3600.0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = set(threading.enumerate())
    with sigterm_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)  # raises nothing
    (timer,) = set(threading.enumerate()) - before
    assert timer.daemon and timer.args == (143,)
    timer.cancel()


def test_a_fork_ends_as_if_the_handler_were_not_there():
    with sigterm_interrupts():
        child = os.fork()
        if child == 0:
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
@pytest.mark.parametrize("place", ["training", "starting"])
def test_of_two_processes_none_is_left_behind(here, place):
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1000"]

    def training(pid):
        return Path("run/checkpoints/last.ckpt").is_file()

    def starting(pid):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(b"tl_lightning" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)

    ready = {"training": training, "starting": starting}[place]
    code, pid = ended([*FIT, *processes, "--run_dir", "run"], ready=ready)
    assert code == 143
    assert json.loads(Path("run/summary.json").read_text())["status"] == "interrupted"
    for _ in range(300):
        if not living(pid):
            break
        time.sleep(0.1)
    assert not living(pid)
