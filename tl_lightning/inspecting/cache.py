"""``tl cache``: what is cached on disk, and how to get rid of it. Knows no torch, so it answers at once."""

import os
import re
import time
from collections.abc import Sequence

from tl_lightning.core.cache_folder import KINDS, Entry, cache_dir, entries, remove
from tl_lightning.core.cache_room import format_bytes, size_limit
from tl_lightning.core.console import console
from tl_lightning.core.options import OptionParser
from tl_lightning.errors import UserError, nearest

_UNITS = {"d": 86400, "h": 3600, "min": 60}


def cache_command(args: list[str]) -> None:
    """``tl cache list`` shows what is cached on disk; ``tl cache clear`` removes what no process uses.

    Args:
        args: ``list`` or ``clear`` with its options; by default ``list``.

    Raises:
        UserError: If an option or a key is wrong.
    """
    actions = {"list": _list, "clear": _clear}
    name, *rest = args or ["list"]
    if name in actions:
        try:
            actions[name](rest)
        except OSError as error:
            where = error.filename or cache_dir()
            raise UserError(f"{where}: {error.strerror}; TL_CACHE_DIR names another folder") from error
    elif name in ("-h", "--help"):
        parser = OptionParser(
            "cache", "What is cached on disk under TL_CACHE_DIR, at most TL_CACHE_SIZE (such as 20GB)."
        )
        parser.add_argument("action", choices=tuple(actions), help="each has a --help of its own (default: list)")
        parser.parse_args([name])
    else:
        raise UserError(f"there is no {name!r}{nearest(name, actions)} (tl cache list, tl cache clear)")


def _list(args: Sequence[str]) -> None:
    OptionParser("cache list", "Shows what is cached on disk, and who uses it.").parse_args(args)
    known = entries()
    size = sum(entry.bytes for entry in known)
    chosen = "TL_CACHE_SIZE" if os.environ.get("TL_CACHE_SIZE") else "half of what there is; TL_CACHE_SIZE sets it"
    limit = f"limit {format_bytes(size_limit(size))} ({chosen})"
    if not known:
        console.print(f"nothing is cached in {cache_dir()}; {limit}")
        return
    rows = [("kind", "key", "images", "size", "last used", "what"), *map(_row, known)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Lines rather than a table: what stands last may be long, and a narrow terminal would leave it a few letters.
    for kind, key, *numbers, what in rows:
        right = (f"{number:>{width}}" for number, width in zip(numbers, widths[2:], strict=False))
        console.print("  ".join([f"{kind:<{widths[0]}}", f"{key:<{widths[1]}}", *right, what]).rstrip())
    console.print(f"{format_bytes(size)} in all in {cache_dir()}; {limit}")


def _row(entry: Entry) -> tuple[str, ...]:
    used = "in use" if entry.in_use else _ago(time.time() - entry.last_used)
    return entry.kind, entry.key, _images(entry), format_bytes(entry.bytes), used, _what(entry)


def _clear(args: Sequence[str]) -> None:
    parser = OptionParser("cache clear", "Removes what is cached on disk and no process uses; all of it, or as named.")
    parser.add_argument("keys", nargs="*", metavar="KEY", help="what to remove, as tl cache list names it")
    parser.add_argument("--kind", choices=KINDS, help="remove this kind only")
    parser.add_argument("--older_than", type=_seconds, metavar="AGE", help="remove what was last used before, as 7d")
    options = parser.parse_args(args)
    known = entries()
    keys = {entry.key for entry in known}
    for key in options.keys:
        if key not in keys:
            raise UserError(f"no {key!r} is cached{nearest(key, keys)} (see tl cache list)")
    chosen = [
        entry
        for entry in known
        if (not options.keys or entry.key in options.keys)
        and (options.kind is None or entry.kind == options.kind)
        and (options.older_than is None or time.time() - entry.last_used > options.older_than)
    ]
    removed = [entry for entry in chosen if _removed(entry)]
    size = sum(entry.bytes for entry in removed) / 2**20
    console.print(f"removed {len(removed)} of {len(known)}, {size:,.1f} MiB" if removed else "nothing was removed")


def _removed(entry: Entry) -> bool:
    words = [_what(entry), format_bytes(entry.bytes)]
    name = f"{entry.kind} {entry.key} ({', '.join(word for word in words if word)})"
    try:
        gone = remove(entry.folder)
    except OSError as error:
        console.print(f"kept    {name}: it cannot be removed ({error.strerror})")
        return False
    console.print(f"removed {name}" if gone else f"kept    {name}: it is in use")
    return gone


def _what(entry: Entry) -> str:
    if not entry.finished:
        return "unfinished"
    about = entry.about
    backbone = f"{about['backbone']} to {about['cut']}" if {"backbone", "cut"} <= about.keys() else None
    words = [backbone, about.get("view"), about.get("source")]
    return ", ".join(str(word) for word in words if word)


def _images(entry: Entry) -> str:
    """How many images are done, of how many."""
    rows = entry.about.get("rows")
    if not isinstance(rows, int):
        return ""
    try:
        done = entry.about["done"] if "done" in entry.about else (entry.folder / "done.bin").read_bytes().count(1)
    except OSError:  # gone meanwhile
        return ""
    return f"{done:,} / {rows:,}"


def _ago(seconds: float) -> str:
    for unit, length in _UNITS.items():
        if seconds >= length:
            return f"{int(seconds / length)} {unit} ago"
    return "now"


def _seconds(text: str) -> float:
    """Reads an age such as ``7d``, ``12h`` or ``30min``."""
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(d|h|min)", text.strip())
    if age is None:
        raise UserError(f"--older_than is {text!r}; it must be an age such as 7d, 12h or 30min")
    return float(age[1]) * _UNITS[age[2]]
