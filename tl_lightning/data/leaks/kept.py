"""What was found once, beside the decoded pictures: the same pictures give the same duplicates in every run."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tl_lightning.data.leaks.groups import KINDS, Duplicate

FORMAT = 1  # Raise it whenever the same pictures would give other duplicates.


def kept_duplicates(folder: Path, find: Callable[[], list[Duplicate]]) -> list[Duplicate]:
    """Reads what an earlier run has found, or finds it and writes it down.

    Args:
        folder: Of the `PictureStore`, whose key changes with the files.
        find: Asked where nothing was found yet.
    """
    path = folder / f"duplicates-{FORMAT}.json"
    with suppress(OSError, ValueError, TypeError):
        found = [Duplicate(*entry) for entry in json.loads(path.read_text())]
        if all(duplicate.kind in KINDS for duplicate in found):
            return found
    found = find()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):  # without room it is found anew by the next run
        temporary.write_text(json.dumps([[duplicate.first, duplicate.second, duplicate.kind] for duplicate in found]))
        temporary.replace(path)
    return found
