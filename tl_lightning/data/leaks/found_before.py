"""What was found once, beside the decoded images: the same images give the same duplicates in every run."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tl_lightning.core.cache_folder import building
from tl_lightning.core.console import console
from tl_lightning.core.files import write_text
from tl_lightning.data.leaks.groups import KINDS, Duplicate

FORMAT = 2  # Raise it whenever the same images would give other duplicates.


def cached_duplicates(folder: Path, find: Callable[[], list[Duplicate]]) -> list[Duplicate]:
    """Reads what an earlier run has found, or finds it and writes it down. Of several processes one does so.

    Args:
        folder: Where the store of the samples lies, which the caller holds and whose key changes with the files.
        find: Asked where nothing was found yet.
    """
    path = folder / f"duplicates-{FORMAT}.json"
    if (found := _read(path)) is not None:
        return found
    with building(folder, on_wait=_say_waiting):
        if (found := _read(path)) is None:
            found = find()
            _write(path, found)
    return found


def _say_waiting() -> None:
    console.print("waiting for another process that is looking for duplicates among the same images")


def _read(path: Path) -> list[Duplicate] | None:
    with suppress(OSError, ValueError, TypeError):
        found = [Duplicate(*entry) for entry in json.loads(path.read_text())]
        if all(duplicate.kind in KINDS for duplicate in found):
            return found
    return None


def _write(path: Path, found: list[Duplicate]) -> None:
    with suppress(OSError):  # without room it is found anew by the next run
        write_text(path, json.dumps([[duplicate.first, duplicate.second, duplicate.kind] for duplicate in found]))
