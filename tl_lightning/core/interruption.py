"""The signals by which batch systems and W&B's agent end a run: SIGTERM, and SIGUSR1 before a job is pre-empted.

A signal is noted when it comes. While a run trains, it ends at the next step where it can go on exactly, with a
checkpoint that is written there (see `Agreement`); where nothing is lost, at once. Exit codes are 143 and 138.

Knows no torch: the handler is there before the imports that take seconds.
"""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tl_lightning.core.processes import is_one_of_several, is_started_by_lightning

INTERRUPTED, PREEMPTED, TERMINATED = 130, 138, 143  # exit codes: 128 and the signal's number, as Linux counts
GRACE = 30.0  # seconds that a process goes on after it was asked to end; then it is interrupted wherever it is
AT_ONCE = 1.0  # seconds in which one request may come twice, as from a launcher and from the batch system


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class Preempted(KeyboardInterrupt):
    """SIGUSR1 came: the job is about to lose its place, and to be queued again."""


STOPS = {PREEMPTED: Preempted, TERMINATED: Terminated}
CODES = {signal.SIGUSR1: PREEMPTED, signal.SIGTERM: TERMINATED}


class _Handler:
    """Notes that the process was asked to end, and ends it where it may.

    Attributes:
        asked: The exit code that was asked for; 0 as long as nobody has. The larger one counts, as among processes.
        deferring: Whether training is under way, which will look at `asked` at its next step.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.deferring = False
        self._process = os.getpid()
        self._terminated = math.inf  # when SIGTERM came first
        self._overdue = False
        self._timers: list[threading.Timer] = []

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        code = CODES[signal.Signals(signum)]
        if os.getpid() != self._process:  # a fork of ours, such as a worker, has nothing to put in order
            if code == TERMINATED:
                os._exit(TERMINATED)
            return  # batch systems pre-empt all processes, and its parent still needs it for the step under way
        if self._overdue:
            raise STOPS[self.asked]
        first, self.asked = not self.asked, max(self.asked, code)
        if first:
            # It may wait for another process within a collective operation, where it hears no signals. And what is
            # raised within a destructor is lost.
            self._after(GRACE, self._interrupt, signum)
            self._after(2 * GRACE, self._end)
        now = time.monotonic()
        # Who asks twice does not want to wait. Of several processes the first one ends those that it has started.
        insists = code == TERMINATED and now > self._terminated + AT_ONCE
        if code == TERMINATED:
            self._terminated = min(self._terminated, now)
        waits = self.deferring or is_one_of_several()
        if not waits or (insists and not is_started_by_lightning()):
            raise STOPS[self.asked]

    def _after(self, seconds: float, function: Callable[..., None], *args: int) -> None:
        timer = threading.Timer(seconds, function, args)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _interrupt(self, signum: int) -> None:
        self._overdue = True
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signum)

    def _end(self) -> None:
        os._exit(self.asked)

    def rest(self) -> None:
        """Forgets the time that it had left."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _handler() -> _Handler | None:
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, _Handler) else None


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Has SIGTERM and SIGUSR1 interrupt what the main thread does; later the handlers before are back."""
    if threading.current_thread() is not threading.main_thread():  # which alone may change handlers
        yield
        return
    handler = _Handler()
    before = {signum: signal.signal(signum, handler) for signum in CODES}
    try:
        yield
    finally:
        handler.rest()
        for signum, earlier in before.items():
            signal.signal(signum, signal.SIG_DFL if earlier is None else earlier)


def handles_signals() -> bool:
    """Whether SIGTERM and SIGUSR1 interrupt what is under way."""
    return _handler() is not None


def asked_to_end() -> int:
    """The exit code that a signal asked this process for; 0 if none came."""
    handler = _handler()
    return 0 if handler is None else handler.asked


def interruption(code: int) -> KeyboardInterrupt:
    """What to raise so that the process ends with an exit code."""
    return STOPS.get(code, KeyboardInterrupt)()


def defer(deferring: bool) -> None:
    """Says whether something is under way that looks at `asked_to_end` by itself, again and again.

    Raises:
        KeyboardInterrupt: If it no longer is, and a signal came that it has not seen.
    """
    handler = _handler()
    if handler is None:
        return
    handler.deferring = deferring
    if handler.asked and not deferring and not is_one_of_several():
        raise interruption(handler.asked)


def end_with_launcher() -> None:
    """Has Linux end this process with the one that started it, where that is the first of several, by Lightning.

    The first process may be killed, or interrupted while it starts this one and does not know it yet. What the user's
    own shell has started, as on a further machine, may well outlive that.
    """
    if is_started_by_lightning() and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def finish_undisturbed() -> None:
    """Ignores the signals from now on, while what was interrupted is put in order; the process is about to end."""
    handler = _handler()
    if handler is None or threading.current_thread() is not threading.main_thread():
        return
    handler.rest()
    for signum in CODES:
        signal.signal(signum, signal.SIG_IGN)


def leave_signals_to_parent(worker: int = 0) -> None:
    """Has a worker that prepares data ignore signals to all processes of a job: its parent still needs it.

    Args:
        worker: The worker's number, which torch's loaders give.
    """
    for signum in CODES:
        signal.signal(signum, signal.SIG_IGN)


def exit_code(stop: BaseException | None) -> int | None:
    """The exit code of an interrupted process; `None` if it was not interrupted.

    Args:
        stop: What was raised. An interruption may be its context only: Lightning exits after it, and what it stops in
            the middle of a file fails to close the file.
    """
    code = None
    while stop is not None:
        for known, kind in STOPS.items():
            if isinstance(stop, kind):
                return known
        code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else code
        stop = stop.__context__
    return code
