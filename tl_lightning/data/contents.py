"""What a sample is, whatever it is called and wherever it lies: a digest of what was read of it."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.core.cache_folder import building
from tl_lightning.core.console import track
from tl_lightning.core.files import replacing
from tl_lightning.data.dataset import Sample, Store
from tl_lightning.data.workers import usable_cores

FORMAT = 1  # Raise it whenever the same sample would get another digest.


def contents(store: Store) -> NDArray[np.int64]:
    """A digest of each sample of a store: equal for copies, also renamed, moved, or saved anew without a loss.

    It is taken of what the store holds, in threads, 3 s for 10,000 decoded images on two cores where decoding takes a
    minute, and cached beside it: a later run reads it.

    Args:
        store: The opened samples.

    Returns:
        ``int64`` ``(n,)``; 0 for broken ones.
    """
    key = hashlib.sha256(store.key.encode(errors="surrogateescape")).hexdigest()[:16]
    path = store.folder / f"contents-{FORMAT}-{key}.npy"
    if (found := _read(path, len(store))) is not None:
        return found
    with building(store.folder):
        if (found := _read(path, len(store))) is None:
            found = _take(store)
            with suppress(OSError), replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, found)  # without room it is taken anew by the next run
    return found


def places(paths: Sequence[Path]) -> NDArray[np.int64]:
    """A digest of where each file really lies, however its path is spelled; 0 for a file that holds several samples.

    Args:
        paths: The file of each sample.

    Returns:
        ``int64`` ``(n,)``.
    """
    parents: dict[str, str] = {}  # few, while resolving each path asks the disk for every part of it
    resolved = []
    for path in paths:
        parent, name = os.path.split(path)
        if parent not in parents:
            parents[parent] = os.path.realpath(parent)
        resolved.append(os.path.join(parents[parent], name))
    digests = np.array([_digest(text.encode(errors="surrogateescape")) for text in resolved], dtype=np.int64)
    _, number_of, counts = np.unique(digests, return_inverse=True, return_counts=True)
    digests[counts[number_of] > 1] = 0
    return digests


def _read(path: Path, count: int) -> NDArray[np.int64] | None:
    with suppress(OSError, ValueError, EOFError):
        found: NDArray[np.int64] = np.load(path)
        if found.shape == (count,) and found.dtype == np.int64:
            return found
    return None


def _take(store: Store) -> NDArray[np.int64]:
    readable = [index for index in range(len(store)) if index not in store.broken]
    found = np.zeros(len(store), dtype=np.int64)
    with ThreadPoolExecutor(usable_cores()) as pool:
        digests = pool.map(lambda index: _digest_of(store.sample(index)), readable)
        found[readable] = list(track(digests, "telling samples apart", total=len(readable)))
    return found


def _digest_of(sample: Sample) -> int:
    digest = hashlib.sha256()
    for name in sorted(sample):
        value = sample[name]
        array = value.contiguous().numpy() if isinstance(value, Tensor) else np.asarray(value)
        digest.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.data if array.dtype != object else repr(value).encode(errors="surrogateescape"))
    return int.from_bytes(digest.digest()[:8], "little", signed=True) or 1


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little", signed=True) or 1
