"""What all caches on disk share: who uses an entry, who builds it, and what goes first when room is needed.

An entry is the folder ``<cache_dir>/<kind>/<key>/``. Beside it lie its two lock files, ``.<key>.use`` and
``.<key>.build``, and its temporary folders, ``.<key>.unfinished-...``. Locks are those of the system (``flock``): they
end with the process that took them, however it ends. Where a folder cannot be written, or has no locks, reading works.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_lightning.errors import UserError

KINDS = ("images", "activations")
KEY_LENGTH = 16  # hexadecimal digits
RESERVE = 256 * 2**20  # bytes of the disk that are left to others, such as the run's next checkpoint

# Whatever else lies in a folder that a user chose is none of ours, and is never removed.
_OURS = re.compile(rf"\.?([0-9a-f]{{{KEY_LENGTH}}})(\.(use|build|unfinished-[0-9a-f]+))?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(i?)B?|B)", re.IGNORECASE)


class NoRoom(Exception):
    """What should be kept does not fit; the message says why, in one line."""


@dataclass(frozen=True)
class Entry:
    """What lies on disk under one key.

    Attributes:
        kind: One of `KINDS`.
        key: Unique within its kind.
        folder: Where it lies, or will lie once it is finished.
        bytes: What its files take on disk, temporary ones included.
        reserved: What they take when all that is announced has been written; at least `bytes`.
        last_used: When a process last began or ceased to use it, in seconds since 1970.
        in_use: Whether a process holds or builds it.
        finished: Whether there is more than what a process left behind when it died.
        about: What ``about.json`` says of it to people; empty where there is none.
    """

    kind: str
    key: str
    folder: Path
    bytes: int
    reserved: int
    last_used: float
    in_use: bool
    finished: bool
    about: dict[str, Any]


def cache_dir() -> Path:
    """The folder of all caches: ``TL_CACHE_DIR``, else ``tl_lightning`` under the user's cache folder."""
    if chosen := os.environ.get("TL_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tl_lightning"


class Hold:
    """A lock that lasts until it is released, collected, or its process ends. A pickled copy locks nothing."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._process = os.getpid()

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


def hold(folder: Path) -> Hold:
    """Marks an entry as used now and for as long as the answer lives: `make_room` and `remove` leave it alone.

    Hold first and look afterwards whether the entry exists, or it may go in between.

    Args:
        folder: The entry, which need not exist yet.
    """
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lock_file(folder, "use")
    held = Hold(_lock(path, fcntl.LOCK_SH))
    with suppress(OSError):
        os.utime(path)
    return held


@contextmanager
def building(folder: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Lets one process at a time build an entry; look inside whether another has done it already.

    Args:
        folder: The entry, which the caller holds.
        on_wait: Called if another process is building it, before waiting for that.
    """
    path = _lock_file(folder, "build")
    try:
        descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is not None:
            on_wait()
        descriptor = _lock(path, fcntl.LOCK_EX)
    lock = Hold(descriptor)
    try:
        if descriptor is not None:
            _clear_leftovers(folder)  # their process is dead, or it would have the lock
        yield
    finally:
        lock.release()


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill, which takes the entry's place once its files are on the disk.

    After an error it is removed, so that an entry is whole or is not there. Without locks another process may be
    first; its entry has the same content and stays.

    Args:
        folder: The entry.
    """
    unfinished = _temporary(folder)
    unfinished.mkdir(parents=True)  # not tempfile.mkdtemp, whose folders nobody else may read: a cache may be shared
    try:
        yield unfinished
        for path in [*unfinished.iterdir(), unfinished]:
            flush_to_disk(path)
        try:
            unfinished.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Removes an entry whoever uses it; renamed first, so that a half of it is never found."""
    doomed = _temporary(folder)
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove(folder: Path) -> bool:
    """Removes an entry, with what dead processes left of it, unless a process holds or builds it.

    Args:
        folder: The entry.

    Returns:
        Whether it is gone, and its bytes with it.

    Raises:
        OSError: If it belongs to somebody else.
    """
    if folder.exists() and not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    locks: list[Hold] = []
    files = [_lock_file(folder, "use"), _lock_file(folder, "build")]
    try:
        for path in files:
            descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if descriptor is None:
                return False  # whether it is in use cannot be told
            locks.append(Hold(descriptor))
        discard(folder)
        _clear_leftovers(folder)
        for path in files:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        for lock in locks:
            lock.release()
    return not folder.exists() and not _leftovers(folder)


def entries() -> list[Entry]:
    """What the caches hold, by kind and key; what vanishes meanwhile is left out."""
    found = []
    for kind in KINDS:
        parent = cache_dir() / kind
        ours = [_OURS.fullmatch(name) for name in (os.listdir(parent) if parent.is_dir() else [])]
        found += [_entry(parent / key) for key in sorted({match[1] for match in ours if match})]
    return [entry for entry in found if entry.finished or entry.bytes or entry.in_use]


def make_room(needed: int, *, all_or_nothing: bool = True) -> None:
    """Removes the least recently used entries that nobody holds until something new fits.

    What is in use counts with all that it will take once it is filled.

    Args:
        needed: Bytes to fit into the limit (see `size_limit`) and onto the disk, beside a `RESERVE`.
        all_or_nothing: Whether to remove nothing where that is not enough, as what is new will not come then.

    Raises:
        NoRoom: If that cannot be reached.
        UserError: If ``TL_CACHE_SIZE`` is no size.
    """
    known = entries()
    # What is in use may be under construction, its file still full of holes.
    growing = sum(entry.reserved - entry.bytes for entry in known if entry.in_use)
    held = sum(entry.bytes for entry in known)
    free = free_space() - growing
    limit = size_limit(held)
    excess = max(held + growing + needed - limit, needed + RESERVE - free)
    candidates = sorted((entry for entry in known if not entry.in_use), key=lambda e: (e.finished, e.last_used))
    if not all_or_nothing or sum(entry.bytes for entry in candidates) >= excess:
        for entry in candidates:
            if excess <= 0:
                return
            if _try_remove(entry):
                excess -= entry.bytes
    if excess > 0:
        in_use = sum(entry.reserved for entry in known if entry.in_use)
        raise NoRoom(
            f"{format_bytes(needed)} are needed; the cache may hold {format_bytes(limit)}, of which "
            f"{format_bytes(in_use)} are in use, and the disk has {format_bytes(max(free, 0))} free"
        )


def free_space() -> int:
    """Bytes that the disk of the caches has free."""
    folder = cache_dir().absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def size_limit(held: int) -> int:
    """How many bytes the caches may hold: ``TL_CACHE_SIZE``, else half of what they could at most.

    Args:
        held: Bytes that they hold now.

    Raises:
        UserError: If ``TL_CACHE_SIZE`` is no size.
    """
    text = os.environ.get("TL_CACHE_SIZE")
    if not text:
        return (held + free_space()) // 2
    size = _SIZE.fullmatch(text.strip())
    if size is None:
        raise UserError(f"TL_CACHE_SIZE is {text!r}; it must be a number with its unit, such as 20GB or 500MB")
    number, prefix, binary = size.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGTP".index((prefix or " ").upper()))


def format_bytes(count: int) -> str:
    """Says a size in the unit that keeps it short, such as ``1.5 GiB``."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.{0 if units[0] == 'B' else 1}f} {units[0]}"


def _lock_file(folder: Path, purpose: str) -> Path:
    return folder.with_name(f".{folder.name}.{purpose}")


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished-{secrets.token_hex(4)}")


def _leftovers(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f".{folder.name}.unfinished-*"))


def _clear_leftovers(folder: Path) -> None:
    for leftover in _leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)


def _lock(path: Path, mode: int) -> int | None:
    """Locks a file, which is made where there is none.

    Returns:
        The open file, or `None` where it cannot be made or locked.

    Raises:
        BlockingIOError: If another holds it and `mode` says not to wait.
    """
    while (descriptor := _open(path)) is not None:
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


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    if descriptor is None:
        return True  # unknown, hence left alone
    os.close(descriptor)
    return False


def _entry(folder: Path) -> Entry:
    use, leftovers = _lock_file(folder, "use"), _leftovers(folder)
    on_disk, reserved = _sizes([folder, *leftovers])
    return Entry(
        kind=folder.parent.name,
        key=folder.name,
        folder=folder,
        bytes=on_disk,
        reserved=max(on_disk, reserved),
        last_used=next((time for path in (use, folder, *leftovers) if (time := _modified(path))), 0.0),
        in_use=_is_locked(use) or _is_locked(_lock_file(folder, "build")),
        finished=folder.is_dir(),
        about=_about(folder),
    )


def _sizes(folders: Iterable[Path]) -> tuple[int, int]:
    """Bytes on disk, and with the holes filled."""
    on_disk = full = 0
    for path in (Path(parent, name) for folder in folders for parent, _, names in os.walk(folder) for name in names):
        with suppress(OSError):
            status = path.lstat()
            on_disk, full = on_disk + 512 * status.st_blocks, full + status.st_size
    return on_disk, full


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _try_remove(entry: Entry) -> bool:
    try:
        return remove(entry.folder)
    except OSError:
        return False
