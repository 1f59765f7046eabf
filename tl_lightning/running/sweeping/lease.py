"""Who has a trial: one file per trial, by which a worker that died is known, on this machine and on others."""

import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tl_lightning.core.files import write_text

BEAT = 5.0  # seconds between two signs of life
SILENCE = 60.0  # seconds without one after which a worker is taken for dead


def this_machine() -> str:
    """Names the set of processes among which a process number means something: a host, or a container of it."""
    parts = [platform.node()]
    with suppress(OSError):  # hosts may have the same name, and each Linux numbers its namespaces alike
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


@dataclass
class Lease:
    """A trial that this process has.

    Attributes:
        path: The file.
        attempt: How often the trial was taken, from 1.
    """

    path: Path
    attempt: int
    _beats: int = field(default=0, init=False)
    _renewed: float = field(default=0.0, init=False)

    @classmethod
    def take(cls, path: Path, *, attempt: int) -> "Lease":
        """Takes a trial; only one process may do so at a time, so its caller holds a lock."""
        lease = cls(path, attempt)
        lease._write()
        return lease

    def renew(self) -> bool:
        """Gives a sign of life, if it is time for one.

        Returns:
            Whether the trial is still ours: after a long standstill another worker may have taken it.
        """
        if time.monotonic() - self._renewed < BEAT:
            return True
        with suppress(OSError):  # of a network that stumbles, or a full disk: the next sign may come through
            if read(self.path).get("owner") != self.owner:
                return False
            self._write()
        return True

    def give_back(self) -> None:
        """Lets others take the trial at once; the attempt does not count."""
        write_text(self.path, json.dumps({"attempt": self.attempt - 1}))

    @property
    def owner(self) -> str:
        """This process, among all of all machines."""
        return f"{this_machine()} {os.getpid()}"

    def _write(self) -> None:
        self._beats, self._renewed = self._beats + 1, time.monotonic()
        content = {
            "owner": self.owner,
            "machine": this_machine(),
            "pid": os.getpid(),
            "attempt": self.attempt,
            "beat": self._beats,
        }
        write_text(self.path, json.dumps(content))


def read(path: Path) -> dict[str, str | int]:
    """What a lease says; nothing where there is none.

    Raises:
        OSError: If it cannot be read for any other reason, which says nothing of its owner.
    """
    try:
        content: dict[str, str | int] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


class Watchman:
    """Tells whose worker is dead.

    No clock of another machine is trusted: dead is one that gave no sign for `SILENCE` seconds of our own clock, or
    whose process is gone, where it ran on this machine.

    Args:
        clock: Seconds, steadily rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Path, tuple[dict[str, str | int], float]] = {}

    def is_dead(self, path: Path) -> bool:
        """Whether nobody has the trial any more."""
        try:
            content = read(path)
        except OSError:
            return False
        if "owner" not in content:
            return True
        if content["machine"] == this_machine() and not _is_running(int(content["pid"])):
            return True
        before, since = self._seen.get(path, ({}, 0.0))
        if content != before:
            self._seen[path] = (content, self._clock())
            return False
        return self._clock() - since > SILENCE


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A worker that has died but not been waited for still has its number.
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
