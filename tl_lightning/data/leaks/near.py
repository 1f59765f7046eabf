"""Images that resemble each other pixel by pixel, also where one is mirrored or turned.

Candidates come from the perceptual hashes, by multi-index hashing (Norouzi et al. 2012): of two hashes of 64 bits at
most 7 apart, one of the four quarters differs in one bit at most, so looking up 4 x 17 quarters finds them all.
The verdict comes from the thumbnails, since the cells of a solar module, say, have the same hash by the hundred.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tl_lightning.core.console import track
from tl_lightning.data.leaks.fingerprints import TURNS, Fingerprints, turn
from tl_lightning.data.leaks.groups import Groups

# Measured on re-encoded copies (JPEG quality 30-90, 50-150 % in size, 85-150 % in brightness) of ELPV and drawn
# images; benchmarks/leaks.py shows what they lead to.
DISTANCE = 7  # bits of 64; 99.7 % of the copies are as close
TOLERANCE = 0.2  # in standard deviations of the thumbnail
OUTLIERS = 5  # of the 1,024 pixels of a thumbnail, which sharp edges and dust may change by more
FLAT = 4.0  # standard deviation in grey levels below which only noise would be compared
CROWD = 256  # a hash that more images share says little: each is compared with so many of the most similar brightness

_BITS, _PLACE = 16, np.uint64(40)
_PROBES = np.array([0, *(1 << bit for bit in range(_BITS))], dtype=np.uint64)
_ROWS, _PAIRS, _VERDICTS = 1024, 2**21, 4096  # handled at once, which bounds the memory

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def near_pairs(prints: Fingerprints) -> Iterator[tuple[int, int]]:
    """Finds images of which one was made from the other without cutting anything off.

    Args:
        prints: The fingerprints of n images.

    Yields:
        Rows of two such images; of many copies of one image as few pairs as make them one group.
    """
    groups = Groups(len(prints.hashes))
    roots = groups.roots()
    contrast = prints.thumbnails.std(axis=(1, 2), dtype=np.float32)
    rows = np.flatnonzero(contrast >= FLAT)
    for first, second, position in _candidates(prints, rows):
        for start in range(0, len(first), _VERDICTS):
            part = slice(start, start + _VERDICTS)
            i, j, p = first[part], second[part], position[part]
            new = roots[i] != roots[j]
            i, j, p = i[new], j[new], p[new]
            same = same_image(_turned(prints.thumbnails[i], p), prints.thumbnails[j])
            joined = [pair for pair in zip(i[same].tolist(), j[same].tolist(), strict=True) if groups.join(*pair)]
            yield from joined
            if joined:
                roots = groups.roots()


def same_image(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Says whether thumbnails differ in brightness, contrast and the noise of an encoder only.

    What a line cannot explain must be small almost everywhere: a correlation would forgive a crack in one of two solar
    cells, which are alike otherwise. Pixels that brightening may have cut off at white or black are left out.

    Args:
        first: ``uint8`` of shape ``(m, 32, 32)``.
        second: The thumbnails to compare with, of the same shape and type.

    Returns:
        One answer for each pair, shape ``(m,)``.
    """
    a, b = (part.reshape(len(part), -1).astype(np.float32) for part in (first, second))
    inside = (np.minimum(a, b) > 5) & (np.maximum(a, b) < 250)
    inside |= 2 * inside.sum(axis=1, keepdims=True) < inside.shape[1]  # a drawing on white is compared as a whole
    count = inside.sum(axis=1, keepdims=True)
    a, b = ((part - (part * inside).sum(axis=1, keepdims=True) / count) * inside for part in (a, b))
    square = np.maximum((a * a).sum(axis=1, keepdims=True), 1e-6)
    slope = (a * b).sum(axis=1, keepdims=True) / square
    rest = np.partition(np.abs(b - slope * a), -1 - OUTLIERS, axis=1)[:, -1 - OUTLIERS]
    deviation = np.sqrt((b * b).sum(axis=1) / count[:, 0])
    return np.asarray((deviation >= FLAT / 2) & (rest <= np.maximum(1.0, TOLERANCE * deviation)))


def _turned(thumbnails: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    result = np.empty_like(thumbnails)
    for position in range(TURNS):
        own = positions == position
        result[own] = turn(thumbnails[own], position)
    return result


def _candidates(prints: Fingerprints, rows: NDArray[np.int64]) -> Iterator[Pairs]:
    """Rows i < j and a position, such that i in that position has a hash close to that of j."""
    plain = prints.hashes[rows, 0]
    brightness = prints.thumbnails[rows].mean(axis=(1, 2)).astype(np.uint64)
    places = brightness << np.uint64(32) | np.arange(len(rows), dtype=np.uint64)  # where it stands among its equals
    indexes = []
    for q in range(4):
        keys = _quarter(plain, q) << _PLACE | places
        order = np.argsort(keys)
        indexes.append((keys[order], order))
    blocks = range(0, len(rows), _ROWS)
    for start in track(blocks, "comparing images", total=len(blocks)):
        own = np.arange(start, min(start + _ROWS, len(rows)))
        asked = prints.hashes[rows[own]].ravel()
        for q in range(4):
            yield from _look_up(q, asked, np.repeat(places[own], TURNS), indexes[q], plain, rows, start)


def _quarter(hashes: NDArray[np.uint64], q: int) -> NDArray[np.uint64]:
    return hashes >> np.uint64(_BITS * q) & np.uint64(2**_BITS - 1)


def _look_up(
    q: int,
    asked: NDArray[np.uint64],
    places: NDArray[np.uint64],
    index: tuple[NDArray[np.uint64], NDArray[np.int64]],
    plain: NDArray[np.uint64],
    rows: NDArray[np.int64],
    start: int,
) -> Iterator[Pairs]:
    keys, order = index
    probes = (_quarter(asked, q)[:, None] ^ _PROBES).ravel() << _PLACE
    low, high = np.searchsorted(keys, probes), np.searchsorted(keys, probes + (np.uint64(1) << _PLACE))
    crowded = np.flatnonzero(high - low > CROWD)
    middle = np.searchsorted(keys, probes[crowded] | places[crowded // len(_PROBES)])
    low[crowded] = np.clip(middle - CROWD // 2, low[crowded], high[crowded] - CROWD)
    high[crowded] = low[crowded] + CROWD
    for probe, place in expand(low, high):
        query = probe // len(_PROBES)
        found = order[place]
        later = found > query // TURNS + start
        query, found = query[later], found[later]
        difference = asked[query] ^ plain[found]
        close = np.bitwise_count(difference) <= DISTANCE
        for earlier in range(q):  # an earlier quarter has found it already
            close &= np.bitwise_count(_quarter(difference, earlier)) > 1
        query, found = query[close], found[close]
        yield rows[query // TURNS + start], rows[found], query % TURNS


def expand(low: NDArray[np.int64], high: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Lists the members of many ranges, a bounded number at once.

    Args:
        low: Where each range begins, shape ``(m,)``.
        high: Where it ends, exclusive.

    Yields:
        Numbers of ranges, and a member of each.
    """
    counts = high - low
    ends = np.cumsum(counts)
    done = 0
    while done < len(counts):
        before = int(ends[done - 1]) if done else 0
        stop = max(done + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
        part = counts[done:stop]
        number = np.repeat(np.arange(done, stop), part)
        inside = np.arange(len(number)) - np.repeat(ends[done:stop] - part - before, part)
        yield number, low[number] + inside
        done = stop
