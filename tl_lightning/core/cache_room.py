"""How much the caches may take, and what goes first when room is needed."""

import os
import re
import shutil

from tl_lightning.core.cache_folder import Entry, cache_dir, entries, remove
from tl_lightning.errors import UserError

RESERVE = 256 * 2**20  # bytes of the disk that are left to others, such as the run's next checkpoint


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(i?)B?|B)", re.IGNORECASE)


class NoRoom(Exception):
    """What should be cached does not fit; the message says why, in one line."""


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


def _try_remove(entry: Entry) -> bool:
    try:
        return remove(entry.folder)
    except OSError:
        return False
