"""Fingerprints lie beside the pixels that they were taken of: 100,000 pictures take a minute of every run else."""

import os
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_lightning.cache_folder import building, flush_to_disk
from tl_lightning.data.leaks.fingerprints import SIDE, TURNS, Fingerprints, take_fingerprints
from tl_lightning.data.store import PictureStore

NAME = "fingerprints-1.npz"  # raise the number whenever the same pixels would get others


def fingerprints_of(store: PictureStore, indices: NDArray[np.int64]) -> Fingerprints:
    """Reads the fingerprints of a store's pictures, which are taken first where no earlier run has.

    Of several processes one takes them. Where the store cannot be written to, they are not kept.

    Args:
        store: The decoded pictures.
        indices: All of those that could be read, sorted.

    Returns:
        A row for each index.
    """
    path = store.folder / NAME
    if (known := _read(path, len(indices))) is not None:
        return known
    with building(store.folder):
        if (known := _read(path, len(indices))) is not None:
            return known
        prints = take_fingerprints(store, indices)
        with suppress(OSError):
            _write(path, prints)
    return prints


def _read(path: Path, rows: int) -> Fingerprints | None:
    try:
        with path.open("rb") as file, np.load(file) as kept:
            prints = Fingerprints(kept["thumbnails"], kept["hashes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = prints.thumbnails.shape == (rows, SIDE, SIDE) and prints.hashes.shape == (rows, TURNS)
    return prints if whole else None


def _write(path: Path, prints: Fingerprints) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, thumbnails=prints.thumbnails, hashes=prints.hashes)
        flush_to_disk(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
