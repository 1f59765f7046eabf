"""Several processes agree that one of them was asked to end, so that all stop after the same step.

Whoever saves in a signal's handler, or as soon as it has heard of it, waits for others that are within another
collective operation (Lightning's own handlers do).
"""

import re
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import distributed

from tl_lightning.core.interruption import asked_to_end, handles_signals
from tl_lightning.core.private import take_over_signals

TIMEOUT = timedelta(minutes=10)  # for a process that is alive and does not come to its next step
LOST = re.compile("gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out|TCPStore", re.IGNORECASE)


class Agreement:
    """The largest exit code that any of the processes was asked for; 0 as long as none was.

    It goes over a group of its own, on CPUs, and while training is under way with one step's delay: no GPU is waited
    for, and no process waits for one that has stopped.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def now(self) -> int:
        """What the processes are asked for, all of which are here."""
        if not _are_several():
            return asked_to_end()
        self._settle()
        self._ask()
        return self._settle()

    def a_step_ago(self) -> int:
        """What the processes had been asked for when they were last here; begins to ask anew. Of one, as of now."""
        if not _are_several():
            return asked_to_end()
        code = self._settle()
        if not code:
            self._ask()
        return code

    def _ask(self) -> None:
        if self._group is None:
            self._group = distributed.new_group(backend="gloo", timeout=TIMEOUT)
        code = torch.tensor([asked_to_end()])
        work = distributed.all_reduce(code, op=distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = work, code

    def _settle(self) -> int:
        if self._pending is None:
            return 0
        (work, code), self._pending = self._pending, None
        work.wait()
        return int(code)


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_of_a_lost_process(error: BaseException) -> bool:
    """Whether an error is what an operation of several processes ends with where one of them has gone."""
    return _are_several() and isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


def leave_signals_to_us(trainer: Trainer) -> None:
    """Keeps Lightning from handling SIGTERM and SIGUSR1, and from queueing a job of SLURM's again.

    Its handlers save and broadcast at once, while other processes may be at another collective operation; and it
    broadcasts before every step whether SIGTERM came, for which a GPU is waited for.
    """
    take_over_signals(trainer, handled=handles_signals())
