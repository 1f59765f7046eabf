"""The workers on this machine: processes that share its cores and GPUs, and end when the one that started them does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from tl_lightning.core.interruption import INTERRUPTED
from tl_lightning.data.workers import usable_cores

WORKER = "tl_lightning.running.sweeping.worker"
MOST_SUCCESSORS = 3  # what is killed more often is killed for a reason
GAVE_UP = 10  # exit code of a worker whose first trials all failed; 1 is that of a crash


class Crew:
    """Workers, from their start to their end; one that is killed gets a successor.

    Args:
        journal: The journal of the sweep.
        workers: How many.
        planned: Trials of the whole sweep.
        seed: Decides what is drawn.
    """

    def __init__(self, journal: Path, *, workers: int, planned: int, seed: int) -> None:
        self._journal = journal
        self._end, alive = os.pipe()
        self._alive: int | None = alive
        self._options = ["--planned", str(planned), "--seed", str(seed), "--driver", str(self._end)]
        self._gpus = visible_gpus()
        self._successors = MOST_SUCCESSORS
        self._workers = [self._start(number, workers) for number in range(workers)]

    def _log(self, number: int) -> Path:
        return self._journal.parent / "workers" / f"{os.uname().nodename}-{os.getpid()}-{number + 1}.log"

    def _start(self, number: int, workers: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID"):  # of the sweep as a whole: every trial is a run of its own
            environment.pop(name, None)
        if self._gpus and workers > 1:  # each its share, or one that it has to share itself
            share = self._gpus[number::workers] or [self._gpus[number % len(self._gpus)]]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(share)
        if workers > 1:  # each would take all cores, and all would wait for one another
            environment.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // workers, 1)))
        self._log(number).parent.mkdir(exist_ok=True)
        with self._log(number).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", WORKER, str(self._journal), *self._options],
                env=environment,
                pass_fds=(self._end,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the driver alone
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def is_working(self) -> bool:
        """Whether a worker is left; starts another for one that was killed, as when memory runs out."""
        for number, worker in enumerate(self._workers):
            if (worker.poll() or 0) < 0 and self._successors:
                self._successors -= 1
                self._workers[number] = self._start(number, len(self._workers))
        return any(worker.poll() is None for worker in self._workers)

    def crashes(self) -> dict[Path, str]:
        """Logs of workers that ended by a crash, or for want of room on the disk, with the last line of each."""
        crashed = {}
        for number, worker in enumerate(self._workers):
            if worker.poll() not in (None, 0, GAVE_UP, INTERRUPTED):
                lines = self._log(number).read_text(errors="replace").strip().splitlines()
                crashed[self._log(number)] = lines[-1] if lines else f"killed by signal {-worker.returncode}"
        return crashed

    def end(self) -> None:
        """Has the workers give back what they have, and waits until they have."""
        if self._alive is not None:
            os.close(self._alive)
            os.close(self._end)
            self._alive = None
        for worker in self._workers:
            worker.wait()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them; asks no CUDA, which would take seconds."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]
