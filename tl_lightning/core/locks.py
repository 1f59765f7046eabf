"""Locks of the system (``flock``), which end with the process that took them, however it ends."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

MOST_TRIES = 1000  # a file system may give a file another number each time it is asked; that one has no locks for us


class Hold:
    """A lock that lasts until it is released, collected, or its process ends. A pickled copy locks nothing."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._process = os.getpid()

    @property
    def holds(self) -> bool:
        """Whether there is a lock, and it is not released."""
        return self._descriptor is not None

    def release(self) -> None:
        """Lets go, and marks the entry as used until now."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # A forked worker shares the lock: it must not end it, and its copy must not keep it when the owner lets go.
        if os.getpid() == self._process:
            with suppress(OSError):
                os.utime(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def __del__(self) -> None:
        self.release()

    def __reduce__(self) -> tuple[type["Hold"], tuple[()]]:
        return Hold, ()


def take_lock(path: Path, mode: int) -> int | None:
    """Locks a file, which is made where there is none.

    Returns:
        The open file, or `None` where it cannot be made or locked.

    Raises:
        BlockingIOError: If another holds it and `mode` says not to wait.
    """
    for _ in range(MOST_TRIES):
        if (descriptor := _open(path)) is None:
            return None
        try:
            fcntl.flock(descriptor, mode)
            # Whoever removed the entry while this waited removed the file too: a lock on that binds nobody.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
    return None


def _open(path: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # to lock another user's file, reading it is enough
        with suppress(OSError):
            return os.open(path, flags, 0o666)
    return None


def is_locked(path: Path) -> bool:
    """Whether a process holds a file's lock."""
    if not path.exists():
        return False
    try:
        descriptor = take_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    if descriptor is None:
        return True  # unknown, hence left alone
    os.close(descriptor)
    return False
