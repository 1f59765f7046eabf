"""The workers on this machine: processes that share its cores and GPUs, and end when the one that started them does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

WORKER = "tl_lightning.running.sweeping.worker"


class Crew:
    """Workers, from their start to their end.

    Args:
        journal: Of the sweep.
        workers: How many.
        planned: Trials of the whole sweep.
        seed: Of what is drawn.
    """

    def __init__(self, journal: Path, *, workers: int, planned: int, seed: int) -> None:
        end, alive = os.pipe()
        self._alive: int | None = alive
        options = ["--planned", str(planned), "--seed", str(seed), "--driver", str(end)]
        self._workers: dict[Path, subprocess.Popen[bytes]] = {}
        gpus = visible_gpus()
        for number in range(workers):
            log = journal.parent / "workers" / f"{os.uname().nodename}-{os.getpid()}-{number + 1}.log"
            log.parent.mkdir(exist_ok=True)
            environment = dict(os.environ)
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            if workers > 1:  # each would take all cores, and all would wait for one another
                environment.setdefault("OMP_NUM_THREADS", str(max(cores() // workers, 1)))
            with log.open("ab") as output:
                self._workers[log] = subprocess.Popen(
                    [sys.executable, "-m", WORKER, str(journal), *options],
                    env=environment,
                    pass_fds=(end,),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the driver alone
                )
        os.close(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def is_working(self) -> bool:
        """Whether a worker is left."""
        return any(worker.poll() is None for worker in self._workers.values())

    @property
    def crashes(self) -> dict[Path, str]:
        """Logs of workers that ended by a crash, with the last line of each."""
        crashed = [log for log, worker in self._workers.items() if worker.poll() not in (None, 0, 1, 130)]
        return {log: (log.read_text(errors="replace").strip().splitlines() or ["killed"])[-1] for log in crashed}

    def end(self) -> None:
        """Has the workers give back what they have, and waits until they have."""
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None
        for worker in self._workers.values():
            worker.wait()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them; asks no CUDA, which would take seconds."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]
