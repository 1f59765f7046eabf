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

from tl_lightning.core.interruption import INTERRUPTED
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.running.sweeping.crew import GAVE_UP
from tl_lightning.running.sweeping.search import Search, Taken
from tl_lightning.running.sweeping.sweep_file import SweepFile, read_sweep
from tl_lightning.running.sweeping.trials import nested

if TYPE_CHECKING:
    from tl_lightning.running.sweeping.trial_process import TrialProcess

PATIENCE = 30.0  # seconds that a trial has to keep its state after it was told to end
LOOK = 0.5  # seconds between two looks at whether the sweep has been interrupted


@dataclass(frozen=True)
class Ended:
    """How a trial's process ended.

    Attributes:
        state: ``interrupted`` is a trial that is to go on later, ``no_room`` one that found the disk full, ``lost`` one
            that another worker has taken meanwhile.
        score: What the best weights reach; `None` where that is not known.
        error: Why it failed.
    """

    state: Literal["completed", "stopped", "failed", "interrupted", "no_room", "lost"]
    score: float | None = None
    error: str = ""


class Worker:
    """Runs trials until none is left, or until the sweep is interrupted.

    Args:
        sweep: What to search.
        search: The trials of the sweep.
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
            The exit code: 0 when none is left, `INTERRUPTED`, or `GAVE_UP` when all trials fail.

        Raises:
            UserError: If the disk is full.
        """
        failed_before = self._search.failed()
        while not self._wait(0.0):
            if self._search.is_hopeless(failed_before):
                return GAVE_UP
            taken = self._search.take()
            if taken == "done":
                return 0
            if taken == "wait":
                self._wait(2 * LOOK)
            else:
                self._run(taken)
        return INTERRUPTED

    def _wait(self, seconds: float, process: "TrialProcess | None" = None) -> bool:
        """Waits until a trial says something, and tells whether it has; without one, whether the sweep has ended."""
        asked = [] if self._terminated else [self._driver]
        ready, _, _ = select.select([*asked, *([process.socket] if process else [])], [], [], seconds)
        self._terminated = self._terminated or self._driver in ready
        return process.socket in ready if process else self._terminated

    def _run(self, taken: Taken) -> None:
        from tl_lightning.running.sweeping.trial_process import start  # imports torch, Lightning and the rest

        begun = time.monotonic()
        folder = self._search.folder_of(taken.number)
        folder.parent.mkdir(exist_ok=True)
        # Test images are for the best alone, once it is chosen; the file may say otherwise.
        args = ["--test=false", *self._sweep.fit_args, "--config", json.dumps(nested(taken.values))]
        process = start(args, folder, metric=self._sweep.metric, log=folder.with_suffix(".log"))
        ended = self._attend(taken, process)
        seconds = time.monotonic() - begun
        if ended.state == "interrupted" or ended.state == "no_room":
            self._search.give_back(taken, seconds=seconds)
        elif ended.state != "lost":
            self._search.end(taken, ended.state, score=ended.score, seconds=seconds, error=ended.error)
        if ended.state == "no_room":  # all others would fail, too
            raise UserError(ended.error)
        if ended.state in ("completed", "stopped"):
            for checkpoint in (RunFolder(folder).last_checkpoint, RunFolder(folder).previous_checkpoint):
                checkpoint.unlink(missing_ok=True)  # nothing is left to go on with, and many runs fill a disk

    def _attend(self, taken: Taken, process: "TrialProcess") -> Ended:
        """Answers a trial until it ends."""
        end: dict[str, Any] = {}
        deadline, lost = math.inf, False
        while not process.is_silent:
            said = self._wait(LOOK, process)
            lost = lost or not taken.lease.renew()
            if self._terminated and deadline == math.inf:
                deadline = time.monotonic() + PATIENCE
            if lost or time.monotonic() > deadline:
                process.kill()
            elif self._terminated:
                process.ask_to_end()
            if not said and process.ended() is not None:
                break  # the socket may be open still, in a process that it left behind
            for message in process.read() if said else ():
                if "end" in message:
                    end = message
                elif not (lost or self._terminated):
                    process.answer("go" if self._search.report(taken, message["history"]) else "stop")
        code = process.clear_up()
        if lost:
            return Ended("lost")
        if end.get("end") in ("completed", "stopped", "failed", "no_room"):
            return Ended(end["end"], end["final"], end["error"])
        return Ended("interrupted") if self._terminated else Ended("failed", error=_why(code))


def _why(code: int) -> str:
    """Why a trial failed that could not say so itself."""
    if code >= 0:
        return "it was interrupted"
    name = signal.Signals(-code).name
    return f"its process was killed by {name}" + (
        ", as when memory runs out or another of its processes fails" if name == "SIGKILL" else ""
    )


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

    try:
        return Worker(sweep, search, options.driver).work()
    except UserError as error:
        print(error, flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
