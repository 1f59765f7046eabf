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

from tl_lightning.core.files import make_folder, user_path
from tl_lightning.core.locks import Hold, is_locked, take_lock

KINDS = ("images", "activations")
KEY_LENGTH = 16  # hexadecimal digits

# Whatever else lies in a folder that a user chose is none of ours, and is never removed.
_OURS = re.compile(rf"\.?([0-9a-f]{{{KEY_LENGTH}}})(\.(use|build|unfinished-[0-9a-f]+))?")


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
        return user_path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tl_lightning"


def hold(folder: Path) -> Hold:
    """Marks an entry as used now and for as long as the answer lives: `make_room` and `remove` leave it alone.

    Hold first and look afterwards whether the entry exists, or it may go in between.

    Args:
        folder: The entry, which need not exist yet.
    """
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lock_file(folder, "use")
    held = Hold(take_lock(path, fcntl.LOCK_SH))
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
        descriptor = take_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is not None:
            on_wait()
        descriptor = take_lock(path, fcntl.LOCK_EX)
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
    make_folder(folder.parent)
    unfinished.mkdir()  # not tempfile.mkdtemp, whose folders nobody else may read: a cache may be shared
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
            descriptor = take_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _lock_file(folder: Path, purpose: str) -> Path:
    return folder.with_name(f".{folder.name}.{purpose}")


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished-{secrets.token_hex(4)}")


def _leftovers(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f".{folder.name}.unfinished-*"))


def _clear_leftovers(folder: Path) -> None:
    for leftover in _leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)


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
        in_use=is_locked(use) or is_locked(_lock_file(folder, "build")),
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
