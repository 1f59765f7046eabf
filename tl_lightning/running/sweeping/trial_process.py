"""One trial in a process of its own, forked from one that has imported everything already.

Nothing that a trial leaves in memory reaches the next one, and one that is killed, runs out of memory or crashes is a
result. Its process tells each validation through a socket, and is told whether to go on.
"""

import json
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import timm  # noqa: F401 - here, it need not be imported in every trial

from tl_lightning.core.checkpoint_files import is_for_want_of_room
from tl_lightning.core.claims import PATIENCE, claimed
from tl_lightning.core.interruption import signals_interrupt
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.experiment import resume, run
from tl_lightning.training.metrics_csv import MetricsCsv

AGAIN = 3.0  # seconds until a trial is asked once more to end


@dataclass
class TrialProcess:
    """A trial under way, seen from the worker.

    Attributes:
        pid: The process, which leads a group of its own.
        socket: Gives one JSON object a line: ``{"history": [...]}`` after each validation, which waits for ``go`` or
            ``stop``, and at the end ``{"end": ..., "error": ..., "final": ...}``, where ``end`` is completed, stopped,
            interrupted, failed or no_room, and ``final`` what the best weights reach.
        leash: While the worker holds it the trial lives.
        scratch: A folder for its temporary files.
        is_silent: Whether it has closed its end of the socket.
    """

    pid: int
    socket: socket.socket
    leash: int
    scratch: str
    is_silent: bool = False
    _code: int | None = field(default=None, init=False)
    _unread: bytes = field(default=b"", init=False)
    _reminded: float = field(default=-math.inf, init=False)

    def read(self) -> list[dict[str, Any]]:
        """What it has said since."""
        try:
            new = self.socket.recv(1 << 16)
        except ConnectionResetError:  # it is gone, and had not read all of our answers
            new = b""
        self.is_silent = not new
        *lines, self._unread = (self._unread + new).split(b"\n")
        return [json.loads(line) for line in lines]

    def answer(self, word: str) -> None:
        """Answers ``go`` or ``stop``."""
        with suppress(BrokenPipeError):  # it is gone, which is seen by its socket's end
            self.socket.sendall(word.encode() + b"\n")

    def ask_to_end(self) -> None:
        """Interrupts it; more than once, if it is asked again after a while: what a destructor raises is lost."""
        if time.monotonic() > self._reminded + AGAIN and self.ended() is None:
            os.kill(self.pid, signal.SIGTERM)
            self._reminded = time.monotonic()

    def kill(self) -> None:
        """Ends all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self, *, wait: bool = False) -> int | None:
        """The exit code, negative for the signal that killed it; `None` while it is running.

        Args:
            wait: Whether to wait for its end.
        """
        if self._code is None:
            pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def clear_up(self) -> int:
        """Waits for its end, and ends what it has left behind, such as the processes that load its data.

        Returns:
            The exit code, negative for the signal that killed it.
        """
        code = self.ended(wait=True)
        assert code is not None
        self.kill()
        self.socket.close()
        os.close(self.leash)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return code


def start(args: Sequence[str], folder: Path, *, metric: str, log: Path) -> TrialProcess:
    """Forks a process that makes a run, or goes on with it.

    Args:
        args: Arguments of ``tl fit``, without ``--run_dir``.
        folder: The run's folder.
        metric: What it tells.
        log: Gets what it prints.
    """
    ours, theirs = socket.socketpair()
    leash, held = os.pipe()
    scratch = tempfile.mkdtemp(prefix="tl-trial-")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        theirs.close()
        os.close(leash)
        return TrialProcess(pid, ours, held, scratch)
    try:
        ours.close()
        os.close(held)
        _become_a_trial(log, leash, scratch)
        _run(args, folder, metric, theirs)
    finally:
        os._exit(1)


def _become_a_trial(log: Path, leash: int, scratch: str) -> None:
    os.setpgid(0, 0)  # Ctrl-C at the terminal is the sweep's business
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (sink, 1), (sink, 2)):
        os.dup2(source, target)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    threading.Thread(target=_die_with_the_worker, args=(leash,), daemon=True).start()


def _die_with_the_worker(leash: int) -> None:
    """Another worker may go on in the same folder as soon as this one's is gone, however it went."""
    os.read(leash, 1)
    os.killpg(0, signal.SIGKILL)


def _run(args: Sequence[str], folder: Path, metric: str, channel: socket.socket) -> NoReturn:
    watch = _Watch(metric, folder, channel)
    end, error, final = "failed", "", None
    try:
        with signals_interrupt():
            _make(args, folder, watch)
        end, final = "completed", _final(folder, metric)
        if not watch.history and final is None:
            end, error = "failed", f"{metric} was not logged; what was: {', '.join(_logged(folder))}"
    except UserError as mistake:
        error = str(mistake)
        end = "no_room" if is_for_want_of_room(mistake) else "failed"
    except KeyboardInterrupt:
        end = "stopped" if watch.stopped else "interrupted"
    except BaseException as crash:
        end = "no_room" if is_for_want_of_room(crash) else "failed"
        error = f"{type(crash).__name__}: {' '.join(str(crash).split())}"
        sys.excepthook(type(crash), crash, crash.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    channel.sendall(json.dumps({"end": end, "error": error, "final": final}).encode() + b"\n")
    os._exit(0)


def _make(args: Sequence[str], folder: Path, watch: "_Watch") -> None:
    if folder.is_dir():
        with claimed(folder, patience=PATIENCE):  # a worker that has lost the trial ends it as soon as it knows
            if not RunFolder(folder).config.is_file():
                shutil.rmtree(folder, ignore_errors=True)  # made, and killed before anything was in it
    if RunFolder(folder).is_complete:
        watch.tell()
    elif RunFolder(folder).config.is_file():
        _repeatable("resume", "--run_dir", str(folder))
        resume(folder, watch=watch)
    else:
        _repeatable("fit", *args, "--run_dir", str(folder))
        run([*args, "--run_dir", str(folder)], watch=watch)


def _repeatable(*command: str) -> None:
    """Lets Lightning start the other processes of a trial, for which it repeats the command line that it finds."""
    sys.argv = ["tl", *command]
    sys.modules["__main__"].__spec__ = find_spec("tl_lightning.__main__")


class _Watch:
    """Tells the worker of each validation.

    Attributes:
        stopped: Whether the worker said that the trial is weak.
    """

    def __init__(self, metric: str, folder: Path, channel: socket.socket) -> None:
        self._metric, self._channel, self._answers = metric, channel, channel.makefile("r", encoding="utf-8")
        self.stopped = False
        # By step: a run that goes on logs once more what came after its checkpoint.
        self._values = {int(row["step"]): float(row[metric]) for row in _rows(folder) if row.get(metric)}
        self._now = max(self._values, default=-1)

    @property
    def history(self) -> list[float]:
        """The metric at each validation up to the latest."""
        return [self._values[step] for step in sorted(self._values) if step <= self._now]

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Sees a row of ``metrics.csv``."""
        if self._metric not in row:
            return
        self._now = int(row["step"])
        self._values[self._now] = float(row[self._metric])
        self.tell()

    def tell(self) -> None:
        """Tells the history, and waits for an answer.

        Raises:
            KeyboardInterrupt: If the trial is to end.
        """
        self._channel.sendall(json.dumps({"history": self.history}).encode() + b"\n")
        if self._answers.readline().strip() == "stop":
            self.stopped = True
            raise KeyboardInterrupt


def _final(folder: Path, metric: str) -> float | None:
    """The metric of the best weights, which may be an average, or the best by another metric."""
    split, _, name = metric.partition("/")
    metrics = RunFolder(folder).summary["validation"] if split == "val" else None
    return None if metrics is None else metrics.get(name)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return MetricsCsv(RunFolder(folder).metrics).rows


def _logged(folder: Path) -> list[str]:
    return sorted({name for row in _rows(folder) for name in row} - {"epoch", "step"})
