"""Folders that one process at a time works in, such as that of a run.

A claim is a lock of the system on a file in the folder: it ends with its process, however that ends. Where a file
system has no locks, or the folder cannot be written, there is no claim, and work goes on without.
"""

import fcntl
import os
import platform
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tl_lightning.core.locks import Hold, take_lock
from tl_lightning.errors import UserError

CLAIM = ".tl_claim"  # the file; there as long as somebody works in the folder, and where somebody was killed
PATIENCE = 100  # seconds; a file server takes up to 90 to notice that a machine with a lock is gone


class Claim:
    """That this process alone works in a folder; it lasts until it is released, or its process ends.

    Args:
        file: The file that is locked.
        descriptor: The open file; `None` where there are no locks.
    """

    def __init__(self, file: Path, descriptor: int | None) -> None:
        self._file = file
        self._hold = Hold(descriptor)
        _claims.add(self)
        if descriptor is not None:
            with suppress(OSError):  # it is for people
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} {platform.node()}\n".encode(), 0)

    def release(self) -> None:
        """Lets others work there, and leaves no file behind."""
        if self._hold.holds:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
        self._hold.release()

    def forget(self) -> None:
        """Lets go of the lock in a process that was forked from the one that has it: what outlives that holds none."""
        self._hold.release()


_claims: "weakref.WeakSet[Claim]" = weakref.WeakSet()


def _forget_all() -> None:
    for claimed in _claims:
        claimed.forget()


os.register_at_fork(after_in_child=_forget_all)


def claim(folder: Path, *, patience: int = 0) -> Claim:
    """Claims a folder for this process.

    Args:
        folder: It exists.
        patience: Seconds to wait for a process of this machine; one of another may be gone, which takes its time to
            be known.

    Raises:
        UserError: If another has it.
    """
    begun = time.monotonic()
    while True:
        try:
            return Claim(folder / CLAIM, take_lock(folder / CLAIM, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            process, machine = _owner(folder / CLAIM)
            waits = patience if machine in ("", platform.node()) else PATIENCE
            if time.monotonic() - begun > waits:
                who = f" (process {process} on {machine})" if machine else ""
                raise UserError(
                    f"{folder} is in use by another run or command{who}; wait until that has ended, or name another "
                    "folder"
                ) from None
            time.sleep(0.2)


@contextmanager
def claimed(folder: Path, *, patience: int = 0) -> Iterator[None]:
    """Claims a folder for a while; see `claim`."""
    held = claim(folder, patience=patience)
    try:
        yield
    finally:
        held.release()


def _owner(file: Path) -> tuple[str, str]:
    """The number and the machine of the process that has a folder; empty where that is not known."""
    try:
        process, machine = file.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "", ""
    return process, machine
