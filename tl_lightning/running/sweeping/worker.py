"""A worker of a sweep: a process that imports everything once, then takes trial after trial, each in a fork of its own.

It computes nothing itself, and asks for no GPU: a process that did could not be forked safely.
"""

import argparse
import json
import math
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tl_lightning.interruption import INTERRUPTED
from tl_lightning.run_folder import RunFolder
from tl_lightning.running.sweeping.crew import GAVE_UP
from tl_lightning.running.sweeping.search import Search, Taken
from tl_lightning.running.sweeping.sweep_file import SweepFile, read_sweep
from tl_lightning.running.sweeping.trials import nested

if TYPE_CHECKING:
    from tl_lightning.running.sweeping.trial_process import TrialProcess

HOPELESS = 3  # first trials of a worker that all failed: the others would fail, too
PATIENCE = 30.0  # seconds that a trial has to keep its state after it was told to end
AGAIN = 3.0  # seconds until it is told once more
LOOK = 0.5  # seconds between two looks at whether the sweep has been interrupted


@dataclass(frozen=True)
class Ended:
    """How a trial's process ended.

    Attributes:
        state: ``interrupted`` is a trial that is to go on later, ``lost`` one that another worker has taken meanwhile.
        score: What the kept weights reach; `None` where that is not known.
        error: Why it failed.
    """

    state: Literal["completed", "stopped", "failed", "interrupted", "lost"]
    score: float | None = None
    error: str = ""


class Worker:
    """Runs trials until none is left, or until the sweep is interrupted.

    Args:
        sweep: What to search.
        search: Its trials.
        driver: Reads from the process that started this one; at its end the worker ends, too.
    """

    def __init__(self, sweep: SweepFile, search: Search, driver: int) -> None:
        self._sweep, self._search, self._driver = sweep, search, driver
        self._terminated = False
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def work(self) -> int:
        """Takes trials.

        Returns:
            The exit code: 0 when none is left, `INTERRUPTED`, or `GAVE_UP`.
        """
        failed = 0
        while not self._interrupted(0.0):
            taken = self._search.take()
            if taken == "done":
                return 0
            if taken == "wait":
                self._interrupted(2 * LOOK)
                continue
            state = self._run(taken)
            failed = -1 if failed < 0 or state in ("completed", "stopped") else failed + (state == "failed")
            if failed == HOPELESS:
                return GAVE_UP
        return INTERRUPTED

    def _interrupted(self, seconds: float, *others: int) -> bool:
        """Waits for the driver's end, for a signal, or until one of the others can be read."""
        ready, _, _ = select.select([self._driver, *others], [], [], seconds)
        self._terminated = self._terminated or self._driver in ready
        return self._terminated

    def _run(self, taken: Taken) -> str:
        from tl_lightning.running.sweeping.trial_process import start  # imports torch, Lightning and the rest

        begun = time.monotonic()
        folder = self._search.folder_of(taken.number)
        folder.parent.mkdir(exist_ok=True)
        # Test pictures are for the best alone, once it is chosen; the file may say otherwise.
        args = ["--test=false", *self._sweep.fit_args, "--config", json.dumps(nested(taken.values))]
        process = start(args, folder, metric=self._sweep.metric, log=folder.with_suffix(".log"))
        ended = self._attend(taken, process)
        seconds = time.monotonic() - begun
        if ended.state == "interrupted":
            self._search.give_back(taken, seconds=seconds)
        elif ended.state != "lost":
            self._search.end(taken, ended.state, score=ended.score, seconds=seconds, error=ended.error)
            for checkpoint in (RunFolder(folder).last_checkpoint, RunFolder(folder).previous_checkpoint):
                checkpoint.unlink(missing_ok=True)  # nothing is left to go on with, and many runs fill a disk
        return ended.state

    def _attend(self, taken: Taken, process: "TrialProcess") -> Ended:
        """Answers a trial until it ends."""
        end: dict[str, Any] = {}
        told, again, killed, lost, unread = math.inf, 0.0, False, False, b""
        while True:
            waiting = [self._driver] if told == math.inf else []
            ready, _, _ = select.select([*waiting, process.socket], [], [], LOOK)
            self._terminated = self._terminated or self._driver in ready
            if self._terminated and time.monotonic() > again:
                process.signal(signal.SIGTERM)  # more than once, as what is raised within a destructor is lost
                told, again = min(told, time.monotonic()), time.monotonic() + AGAIN
            lost = lost or not taken.lease.renew()
            if not killed and (lost or time.monotonic() - told > PATIENCE):
                process.signal(signal.SIGKILL)
                killed = True
            if process.socket not in ready:
                if process.ended() is not None:
                    break  # the socket may be open still, in a process of its own that it left behind
                continue
            new = process.socket.recv(1 << 16)
            if not new and process.ended() is not None:
                break
            if not new:
                time.sleep(0.01)
                continue
            *messages, unread = (unread + new).split(b"\n")
            for message in map(json.loads, messages):
                if "end" in message:
                    end = message
                elif not lost:
                    process.answer("go" if self._search.report(taken, message["history"]) else "stop")
        process.clear_up()
        if lost:
            return Ended("lost")
        if end.get("end") in ("completed", "stopped", "failed"):
            return Ended(end["end"], end["final"], end["error"])
        if self._terminated:
            return Ended("interrupted")
        return Ended("failed", error=_why(process.ended() or 0))


def _why(code: int) -> str:
    """Why a trial failed that could not say so itself."""
    if code >= 0:
        return "it was interrupted"
    name = signal.Signals(-code).name
    return f"its process was killed by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")


def main() -> int:
    """What the driver starts; see `tl_lightning.running.sweeping.crew`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("journal", type=Path)
    parser.add_argument("--planned", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--driver", type=int, required=True, help="a file descriptor that is at its end when it is gone"
    )
    options = parser.parse_args()
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking CUDA itself would spoil the forks
    sweep = read_sweep(options.journal.parent / "sweep.yaml")
    search = Search(sweep, options.journal, planned=options.planned, seed=options.seed)
    import tl_lightning.running.sweeping.trial_process  # noqa: F401 - the time that it takes is to be paid once

    return Worker(sweep, search, options.driver).work()


if __name__ == "__main__":
    sys.exit(main())
