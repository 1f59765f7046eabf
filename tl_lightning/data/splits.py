"""Which samples train, which select and which test."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.samples import SPLITS, Samples, check_training_has_all
from tl_lightning.errors import UserError, nearest

Indices = NDArray[np.int64]


def split_samples(
    samples: Samples, split: str, *, seed: int, val_fraction: float = 0.15, test_fraction: float = 0.25
) -> dict[str, Indices]:
    """Divides samples into training, validation and test.

    Args:
        samples: What to divide.
        split: ``auto`` takes what the source states and is stratified where it states nothing; ``stratified`` draws at
            random with every stratum in proportion; ``blocks`` takes contiguous ranges in the order of the source,
            for neighbours that resemble each other; ``A_to_B`` trains on domain A and tests on all of domain B.
        seed: Chooses the draw, or the block; at least 0.
        val_fraction: The share of the training part that is put aside for validation, between 0 and 1.
        test_fraction: The share of all samples that is put aside for testing, from 0 (no test) to below 1. Unused where
            the source or the domains fix the test split.

    Returns:
        Sorted sample indices under ``train``, ``val`` and ``test``; only the test split may be empty.

    Raises:
        UserError: For an unknown split, a fraction or seed out of range, or a class that training would never see.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"data.val_fraction is {val_fraction}; it must lie between 0 and 1")
    if not 0 <= test_fraction < 1:
        raise UserError(f"data.test_fraction is {test_fraction}; it must be at least 0 and below 1")
    if seed < 0:
        raise UserError(f"data.split_seed is {seed}; it must be 0 or more")
    domains = [] if samples.domains is None else sorted(set(samples.domains.tolist()))
    crossings = {f"{a}_to_{b}": (a, b) for a, b in permutations(domains, 2)}
    known = ["auto", "stratified", "blocks", *crossings]
    if split not in known:
        raise UserError(f"data.split {split!r} is unknown; valid here: {', '.join(known)}" + nearest(split, known))

    rng = np.random.default_rng(seed)
    everything = np.arange(len(samples))
    if split == "blocks":
        splits = _blocks(len(samples), seed, val_fraction, test_fraction)
    elif split in crossings:
        first, second = (np.flatnonzero(samples.domains == name) for name in crossings[split])
        splits = {"val": _draw(samples, first, val_fraction, keep=1, rng=rng), "test": second}
        splits["train"] = np.setdiff1d(first, splits["val"])
    elif split == "auto" and samples.split is not None:
        splits = {name: np.flatnonzero(samples.split == name) for name in SPLITS}
        if not len(splits["val"]):
            splits["val"] = _draw(samples, splits["train"], val_fraction, keep=1, rng=rng)
            splits["train"] = np.setdiff1d(splits["train"], splits["val"])
    else:
        # A class keeps two pictures outside the test split where it can: one to train with, one to validate.
        test = _draw(samples, everything, test_fraction, keep=2, rng=rng)
        rest = np.setdiff1d(everything, test)
        val = _draw(samples, rest, val_fraction, keep=1, rng=rng)
        splits = {"train": np.setdiff1d(rest, val), "val": val, "test": test}

    for name in ("train", "val"):
        if not len(splits[name]):
            raise UserError(f"no picture of {len(samples)} is left for the {name} split; more pictures are needed")
    check_training_has_all(samples, splits, f"data.split {split!r}")
    return {name: np.sort(splits[name]) for name in SPLITS}


def _draw(samples: Samples, pool: Indices, fraction: float, *, keep: int, rng: np.random.Generator) -> Indices:
    """Draws a fraction of the pool at random, every stratum in proportion.

    The total is `round(fraction * len(pool))`, shared out by largest remainders, then moved by at most one sample per
    class so that each class of two or more samples gives one and keeps `keep` of them (one where it has only two).
    """
    if fraction == 0:
        return pool[:0]
    # The label comes second: where the strata are finer than the labels, every target has the same groups.
    keys = np.stack([samples.strata[pool], samples.labels[pool]], axis=1)
    groups, member_of = np.unique(keys, axis=0, return_inverse=True)
    sizes = np.bincount(member_of, minlength=len(groups))
    counts = _apportion(sizes, round(fraction * len(pool)))
    for label in np.unique(groups[:, 1]):
        own = np.flatnonzero(groups[:, 1] == label)
        size = int(sizes[own].sum())
        least, most = min(1, size - 1), size - min(keep, max(1, size - 1))
        while counts[own].sum() < least:
            counts[own[np.argmax(sizes[own] - counts[own])]] += 1
        while counts[own].sum() > most:
            counts[own[np.argmax(counts[own])]] -= 1
    drawn = [rng.permutation(pool[member_of == group])[:count] for group, count in enumerate(counts)]
    return np.sort(np.concatenate(drawn))


def _apportion(sizes: Indices, total: int) -> Indices:
    """Shares out a total in proportion to the sizes, by the method of largest remainders."""
    quotas = total * sizes / sizes.sum()
    counts: Indices = np.floor(quotas).astype(np.int64)
    by_remainder = np.argsort(counts - quotas, kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    return counts


def _blocks(count: int, seed: int, val_fraction: float, test_fraction: float) -> dict[str, Indices]:
    """Contiguous ranges: the seed chooses the test block, and validation follows it, cyclically."""
    fraction = test_fraction or val_fraction
    blocks = max(round(1 / fraction), 1)
    if blocks < 2 or (test_fraction and abs(blocks * test_fraction - 1) > 0.05):
        raise UserError(
            f"data.test_fraction is {fraction}; with data.split blocks it must be a half, a third, a quarter ..., "
            "for the blocks are of one size"
        )
    chosen = np.array_split(np.arange(count), blocks)[seed % blocks]
    start = int(chosen[0] if len(chosen) else 0)
    test = chosen if test_fraction else chosen[:0]
    rest = np.roll(np.arange(count), -start)[len(test) :]
    val = rest[: round(val_fraction * len(rest))]
    return {"train": rest[len(val) :], "val": val, "test": test}
