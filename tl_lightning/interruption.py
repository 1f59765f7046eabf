"""SIGTERM, with which batch systems and W&B's agent end a run: an interruption as by Ctrl-C, with exit code 143.

Knows no torch: the handler is there before the imports that take seconds.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tl_lightning.processes import process_rank

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 and the signal's number
GRACE = 30.0  # seconds that a process waits for the first one to end it


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class _Handler:
    """Raises `Terminated` in the first process; the others leave it to that one to end them."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork of ours, such as a worker, has nothing to put in order
            os._exit(TERMINATED)
        if process_rank() == 0:
            raise Terminated
        # The first process may be waiting for this one within a collective operation, where it cannot hear SIGTERM.
        timer = threading.Timer(GRACE, os._exit, (TERMINATED,))
        timer.daemon = True
        timer.start()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Has SIGTERM raise `Terminated` in the main thread of the first process; later the handler before is back."""
    if threading.current_thread() is not threading.main_thread():  # which alone may change handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _Handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def handles_sigterm() -> bool:
    """Whether SIGTERM raises `Terminated` now."""
    return isinstance(signal.getsignal(signal.SIGTERM), _Handler)


def end_with_launcher() -> None:
    """Has Linux end this process with the one that started it, where that is the first of several, by Lightning.

    The first process may be killed, or interrupted while it starts this one and does not know it yet. What the user's
    own shell has started, as on a further machine, may well outlive that.
    """
    by_lightning = int(os.environ.get("LOCAL_RANK", 0)) > 0 and "TORCHELASTIC_RUN_ID" not in os.environ
    if by_lightning and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def finish_undisturbed() -> None:
    """Ignores SIGTERM from now on, while what was interrupted is put in order; the process is about to end."""
    if handles_sigterm() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def exit_code(stop: BaseException | None) -> int | None:
    """The exit code of an interrupted process; `None` if it was not interrupted.

    Args:
        stop: What was raised. An interruption may be its context only: Lightning exits after it, and what it stops in
            the middle of a file fails to close the file.
    """
    code = None
    while stop is not None:
        if isinstance(stop, Terminated):
            return TERMINATED
        code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else code
        stop = stop.__context__
    return code
