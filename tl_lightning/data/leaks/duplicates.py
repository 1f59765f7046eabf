"""The same image more than once: the same file, the same pixels, a near-duplicate, or a part of another."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.archives.files import open_file, state_of
from tl_lightning.data.leaks.crops import crop_pairs
from tl_lightning.data.leaks.fingerprints import Fingerprints, Pixels, take_fingerprints
from tl_lightning.data.leaks.groups import Duplicate, Groups, Kind
from tl_lightning.data.leaks.near import near_pairs
from tl_lightning.data.parts import file_of, split_part
from tl_lightning.data.workers import usable_cores


def find_duplicates(
    paths: Sequence[Path],
    pixels: Pixels,
    *,
    indices: NDArray[np.int64] | None = None,
    prints: Fingerprints | None = None,
    features: NDArray[np.float32] | None = None,
) -> list[Duplicate]:
    """Finds images that are there more than once. Nothing is decoded, and no more is read than it takes.

    Args:
        paths: The file of each sample.
        pixels: The decoded image of each sample, such as a `ImageStore`.
        indices: The samples to look at, each of which can be read; all by default.
        prints: What `take_fingerprints` gave for these indices; taken anew by default.
        features: A row for each sample, shape ``(n, d)``; may be memory-mapped. Crops are found by them alone.

    Returns:
        Links that make one group of all copies of an image, at most one less than there are copies; each has the
        surest kind that holds for it. The same for every run.
    """
    indices = np.arange(len(paths)) if indices is None else np.sort(indices)
    prints = take_fingerprints(pixels, indices) if prints is None else prints
    groups, found = Groups(len(indices)), list[Duplicate]()

    def link(pairs: Iterator[tuple[int, int]], kind: Kind) -> None:
        for pair in pairs:
            if groups.join(*pair):
                first, second = sorted(int(indices[row]) for row in pair)
                found.append(Duplicate(first, second, kind))

    def representatives() -> NDArray[np.int64]:
        return np.unique(groups.roots())

    def size(row: int) -> int | None:
        return _size(paths[indices[row]])

    link(_equal(range(len(indices)), size, lambda row: _file_digest(paths[indices[row]])), "file")
    rows = representatives().tolist()
    link(
        _equal(
            rows,
            lambda row: prints.thumbnails[row].tobytes(),
            lambda row: _pixel_digest(pixels, int(indices[row])),
        ),
        "pixels",
    )
    left = representatives()
    close = near_pairs(Fingerprints(prints.thumbnails[left], prints.hashes[left]))
    link(((int(left[i]), int(left[j])) for i, j in close), "near")
    if features is not None:
        left = representatives()
        cut = crop_pairs(pixels, indices[left], prints.thumbnails[left], features)
        link(((int(left[i]), int(left[j])) for i, j in cut), "crop")
    return sorted(found, key=lambda duplicate: (duplicate.first, duplicate.second))


def _equal(
    rows: Sequence[int], cheap: Callable[[int], Hashable | None], sure: Callable[[int], Hashable | None]
) -> Iterator[tuple[int, int]]:
    """Pairs the rows of one key with the first of them; the dear key is asked where the cheap one is shared."""
    by_cheap = defaultdict(list)
    for row in rows:
        if (key := cheap(row)) is not None:
            by_cheap[key].append(row)
    asked = [row for same in by_cheap.values() if len(same) > 1 for row in same]
    first: dict[Hashable, int] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        for row, key in zip(asked, pool.map(sure, asked), strict=True):
            if key is not None and first.setdefault(key, row) != row:
                yield first[key], row


def _size(path: Path) -> int | None:
    try:
        return state_of(file_of(path)).size
    except OSError:  # gone since it was decoded
        return None


def _file_digest(path: Path) -> bytes | None:
    """The content of a file, or of which file a sample is which part."""
    path, part = split_part(path)
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").digest() + repr(part).encode()
    except Exception:  # also of a damaged archive
        return None


def _pixel_digest(pixels: Pixels, index: int) -> bytes:
    image = pixels[index]
    if bool((image == image[:1]).all()):
        image = image[:1]  # grey that was saved as colour
    return hashlib.sha256(repr(tuple(image.shape)).encode() + image.contiguous().numpy().tobytes()).digest()
