"""Which samples train, which select and which test."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.samples import EVALUATION, SPLITS, Samples, check_training_has_all, name_some
from tl_lightning.errors import UserError, nearest

Indices = NDArray[np.int64]


def split_samples(
    samples: Samples,
    split: str,
    *,
    seed: int,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    fold: int | None = None,
    folds: int = 5,
    labelled_fraction: float = 1.0,
    labelled_seed: int = 0,
) -> dict[str, Indices]:
    """Divides samples into training, validation and test.

    Args:
        samples: What to divide.
        split: ``auto`` takes what the source states; where it states nothing it is ``group`` if there are groups, else
            ``stratified``. ``stratified`` draws at random with every stratum in proportion; ``group`` likewise, but
            whole groups; ``blocks`` takes contiguous ranges in the order of the source, for neighbours that resemble
            each other; ``time`` trains on the earliest and tests on the latest; ``A_to_B`` trains on domain A and tests
            on all of domain B.
        seed: Chooses the draw, or the block; at least 0.
        val_fraction: The share of the training part that is put aside for validation, between 0 and 1.
        test_fraction: The share of all samples that is put aside for testing, from 0 (no test) to below 1. Unused where
            the source, the domains or a fold fix the test split.
        fold: Tests on this of `folds` parts, from 0, of which every sample is in one; `None` for no folds.
        folds: How many parts, 2 or more.
        labelled_fraction: The share of the samples outside the test split that is used, above 0 to 1; the others are in
            no split, as if they had no label yet. What a smaller share holds, a larger one holds, too.
        labelled_seed: Chooses which; at least 0.

    Returns:
        Sorted sample indices under ``train``, ``val`` and ``test``; only the test split may be empty, and for
        ``evaluation`` any: that trains on none and takes what the source states; where it states nothing, all samples
        are both validation and test.

    Raises:
        UserError: For an unknown split, a fraction, fold or seed out of range, a class that training would never see,
            or a group that would be torn apart.
    """
    if split == EVALUATION:
        every = np.arange(len(samples))
        if samples.split is None:
            return {"train": every[:0], "val": every, "test": every}
        return {name: np.flatnonzero(samples.split == name) for name in SPLITS}
    if not 0 < val_fraction < 1:
        raise UserError(f"data.val_fraction is {val_fraction}; it must lie between 0 and 1")
    if not 0 <= test_fraction < 1:
        raise UserError(f"data.test_fraction is {test_fraction}; it must be at least 0 and below 1")
    if seed < 0:
        raise UserError(f"data.split_seed is {seed}; it must be 0 or more")
    if not 0 < labelled_fraction <= 1:
        raise UserError(f"data.labelled_fraction is {labelled_fraction}; it must be above 0 and at most 1")
    known = _known(samples)
    if split == "time" and samples.times is None:
        raise UserError("data.split is time, which takes a table with a column of times: name it as data.time_column")
    if split not in known:
        raise UserError(f"data.split {split!r} is unknown; valid here: {', '.join(known)}" + nearest(split, known))
    if split == "auto":
        split = "stated" if samples.split is not None else "group" if samples.groups is not None else "stratified"
    if fold is not None:
        _check_fold(samples, split, fold, folds)

    rng = np.random.default_rng(seed)
    everything = np.arange(len(samples))
    if split == "blocks" and fold is None:
        splits = _blocks(len(samples), seed, val_fraction, test_fraction)
    elif split == "blocks":
        splits = _block(np.array_split(everything, folds)[fold or 0], len(samples), val_fraction)
    elif split == "time":
        splits = _by_time(samples, val_fraction, test_fraction)
    else:
        splits = {"train": everything, "val": everything[:0], "test": everything[:0]}
        if split == "stated" and "train" not in (samples.split if samples.split is not None else ()):
            raise UserError("the source states a split, but has nothing in 'train'; name another data.split")
        if split == "stated":
            splits = {name: np.flatnonzero(samples.split == name) for name in SPLITS}
        elif split in _crossings(samples):
            for name, domain in zip(("train", "test"), _crossings(samples)[split], strict=True):
                splits[name] = np.flatnonzero(samples.domains == domain)
        elif fold is not None:
            splits["test"] = _folds(samples, np.arange(len(samples)), folds, rng)[fold]
        else:
            # A class keeps two images outside the test split where it can: one to train with, one to validate.
            splits["test"] = _draw(samples, everything, test_fraction, keep=2, rng=rng)
        if not len(splits["val"]):
            rest = np.setdiff1d(splits["train"], splits["test"])
            splits["val"] = _draw(samples, rest, val_fraction, keep=1, rng=rng)
            splits["train"] = np.setdiff1d(rest, splits["val"])

    if labelled_fraction < 1:
        thinned = {
            name: _first(samples, splits[name], labelled_fraction, seed=labelled_seed) for name in ("train", "val")
        }
        splits = {**splits, **thinned}

    for name in ("train", "val"):
        if not len(splits[name]):
            more = "more images are needed" if samples.groups is None else _too_few_groups(samples)
            raise UserError(f"no image of {len(samples)} is left for the {name} split; {more}")
    if fold is not None and not len(splits["test"]):
        raise UserError(
            f"no group is left for fold {fold} of {folds}; use fewer data.folds, as {_too_few_groups(samples)}"
        )
    where = "the source's own split" if split == "stated" else f"data.split {split!r}"
    where += "" if samples.groups is None or split == "stated" else f" of {len(np.unique(samples.groups))} groups"
    where += "" if labelled_fraction == 1 else f" with data.labelled_fraction {labelled_fraction:g}"
    check_training_has_all(samples, splits, where)
    _check_groups(samples, splits)
    return {name: np.sort(splits[name]) for name in SPLITS}


def _too_few_groups(samples: Samples) -> str:
    names = [] if samples.groups is None else [repr(str(name)) for name in np.unique(samples.groups)]
    values = "1 value" if len(names) == 1 else f"{len(names)} values"
    return (
        f"the group column has {values} only ({name_some(names, most=3)}), and none may be in two splits: name a finer "
        "one as data.group_column, or rename a column 'group' that means something else"
    )


def _crossings(samples: Samples) -> dict[str, tuple[str, str]]:
    """From each domain to each other one, by the name of the split."""
    domains = [] if samples.domains is None else sorted(set(samples.domains.tolist()))
    return {f"{a}_to_{b}": (a, b) for a, b in permutations(domains, 2)}


def _known(samples: Samples) -> list[str]:
    known = ["auto", "blocks", *_crossings(samples)]
    known.insert(1, "stratified" if samples.groups is None else "group")
    return known if samples.times is None else [*known, "time"]


def _check_fold(samples: Samples, split: str, fold: int, folds: int) -> None:
    if folds < 2 or folds > len(samples):
        raise UserError(f"data.folds is {folds}; it must be from 2 to the number of images, {len(samples)}")
    if not 0 <= fold < folds:
        raise UserError(f"data.fold is {fold}; with data.folds {folds} it must be from 0 to {folds - 1}")
    if split not in ("stratified", "group", "blocks"):
        way = "the source states its split" if split == "stated" else f"data.split {split} fixes what tests"
        other = "stratified" if samples.groups is None else "group"
        raise UserError(f"data.fold is {fold}, but {way}; say --data.split {other} or blocks to draw folds from all")


def _check_groups(samples: Samples, splits: dict[str, Indices]) -> None:
    if samples.groups is None:
        return
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        torn = np.intersect1d(samples.groups[splits[one]], samples.groups[splits[other]])
        if len(torn):
            raise UserError(
                f"group {str(torn[0])!r} and {len(torn) - 1} more are in the {one} split and the {other} split: what "
                "is learned of them would flatter the score; use --data.split group, or mend the table"
            )


def _first(samples: Samples, pool: Indices, fraction: float, *, seed: int) -> Indices:
    """The share of a split that stands first in an order which depends on the seed alone, so that shares are nested.

    The order begins with one sample of each class, and every stretch of it holds all strata in proportion; where there
    are groups, it is one of whole groups.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(pool)
    if samples.groups is not None:
        names, member_of = np.unique(samples.groups[shuffled], return_inverse=True)
        turn: NDArray[np.float64] = rng.permutation(len(names))[member_of].astype(np.float64)
    else:
        _, member_of = _strata(samples, shuffled)
        turn = np.empty(len(pool))
        for stratum in np.unique(member_of):
            own = np.flatnonzero(member_of == stratum)
            turn[own] = (np.arange(len(own)) + rng.random()) / len(own)
        turn[np.unique(samples.single[shuffled], return_index=True)[1]] -= 1
    order = np.argsort(turn, kind="stable")
    last = max(round(fraction * len(pool)), 1) - 1
    chosen: Indices = shuffled[turn <= turn[order[last]]]
    return chosen


def _draw(samples: Samples, pool: Indices, fraction: float, *, keep: int, rng: np.random.Generator) -> Indices:
    """Draws a fraction of the pool at random, every stratum in proportion; where there are groups, whole ones."""
    if fraction == 0:
        return pool[:0]
    if samples.groups is not None:
        return _share_out_groups(samples, pool, [fraction, 1 - fraction], rng)[0]
    return _draw_singles(samples, pool, fraction, keep=keep, rng=rng)


def _draw_singles(samples: Samples, pool: Indices, fraction: float, *, keep: int, rng: np.random.Generator) -> Indices:
    """The total is `round(fraction * len(pool))`, shared out by largest remainders.

    It is then moved by at most one sample per class so that each class of two or more samples gives one and keeps
    `keep` of them (one where it has only two).
    """
    groups, member_of = _strata(samples, pool)
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


def _strata(samples: Samples, pool: Indices) -> tuple[NDArray[np.int64], Indices]:
    # The label comes second: where the strata are finer than the labels, every target has the same groups.
    keys = np.stack([samples.strata[pool], samples.single[pool]], axis=1)
    groups, member_of = np.unique(keys, axis=0, return_inverse=True)
    return groups, member_of


def _apportion(sizes: Indices, total: int) -> Indices:
    """Shares out a total in proportion to the sizes, by the method of largest remainders."""
    quotas = total * sizes / sizes.sum()
    counts: Indices = np.floor(quotas).astype(np.int64)
    by_remainder = np.argsort(counts - quotas, kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    return counts


def folds_within(samples: Samples, pool: Indices, split: str, *, folds: int, seed: int = 0) -> list[Indices]:
    """Divides some images for a cross-validation among them, in the way of a split.

    Args:
        samples: All images.
        pool: Ascending indices of those that are divided.
        split: That of the run: ``blocks`` makes contiguous parts; with every other one groups stay whole, and every
            stratum is spread evenly.
        folds: Into how many parts.
        seed: What the draw depends on.

    Returns:
        The indices of each part; a part may be empty where there are few groups.
    """
    if split == "blocks":
        return np.array_split(pool, folds)
    return _folds(samples, pool, folds, np.random.default_rng(seed))


def fold_numbers(samples: Samples, pool: Indices, split: str, *, folds: int, seed: int = 0) -> Indices:
    """The fold of each of some images, from 0 on; see `folds_within`.

    Args:
        samples: All images.
        pool: Ascending indices of those that are divided, ``(n,)``.
        split: That of the run.
        folds: Into how many parts; empty ones do not count, so there may be fewer.
        seed: What the draw depends on.
    """
    fold_of = np.empty(len(pool), dtype=np.int64)
    parts = folds_within(samples, pool, split, folds=folds, seed=seed)
    for number, part in enumerate(part for part in parts if len(part)):
        fold_of[np.searchsorted(pool, part)] = number
    return fold_of


def kin_numbers(samples: Samples, pool: Indices, split: str, *, folds: int, seed: int = 0) -> Indices | None:
    """What tells too much of each other to be on both sides of a cross-validation: a number for each image.

    Args:
        samples: All images.
        pool: Ascending indices of some, ``(n,)``.
        split: That of the run.
        folds: Into how many parts the samples are divided.
        seed: What the draw depends on.

    Returns:
        The number of its fold with ``blocks``, else that of its group, ``(n,)``; `None` without groups.
    """
    if split == "blocks":
        return fold_numbers(samples, pool, split, folds=folds, seed=seed)
    return None if samples.groups is None else np.unique(samples.groups[pool], return_inverse=True)[1]


def _folds(samples: Samples, pool: Indices, folds: int, rng: np.random.Generator) -> list[Indices]:
    """Parts of nearly equal size, every stratum spread evenly over them."""
    if samples.groups is not None:
        return _share_out_groups(samples, pool, [1 / folds] * folds, rng)
    _, member_of = _strata(samples, pool)
    shuffled = rng.permutation(len(pool))
    by_stratum = shuffled[np.argsort(member_of[shuffled], kind="stable")]
    return [np.sort(pool[by_stratum[number::folds]]) for number in range(folds)]


def _share_out_groups(samples: Samples, pool: Indices, shares: list[float], rng: np.random.Generator) -> list[Indices]:
    """Divides whole groups in the given proportions, every stratum as far as the groups allow.

    The largest groups come first, each to the part that it brings closest to its share (the greedy rule of
    scikit-learn's StratifiedGroupKFold, for parts of any size).
    """
    assert samples.groups is not None
    names, member_of = np.unique(samples.groups[pool], return_inverse=True)
    _, stratum_of = _strata(samples, pool)
    counts = np.zeros((len(names), stratum_of.max() + 1))
    np.add.at(counts, (member_of, stratum_of), 1)
    # The size of a part counts as much as all of its strata: of few groups, a small part would else get none.
    says = np.append(np.full(counts.shape[1], 1 / counts.shape[1]), 1)
    counts = np.column_stack([counts, counts.sum(axis=1)])
    wanted = np.outer(shares, counts.sum(axis=0))
    have = np.zeros_like(wanted)
    shuffled = rng.permutation(len(names))
    part_of = np.empty(len(names), dtype=np.int64)
    for group in shuffled[np.argsort(-counts[shuffled, -1], kind="stable")]:
        farther = ((have + counts[group] - wanted) ** 2 - (have - wanted) ** 2) / np.maximum(wanted, 1e-9)
        part_of[group] = int((farther @ says).argmin())
        have[part_of[group]] += counts[group]
    _fill_empty(part_of, counts[:, -1], shares)
    return [np.sort(pool[part_of[member_of] == part]) for part in range(len(shares))]


def _fill_empty(part_of: Indices, sizes: NDArray[np.float64], shares: list[float]) -> None:
    """Gives a part without any group the smallest one of the part that has most, where that has several."""
    for part in np.argsort(shares):
        numbers = np.bincount(part_of, minlength=len(shares))
        if shares[part] and not numbers[part] and numbers.max() > 1:
            giving = np.flatnonzero(part_of == numbers.argmax())
            part_of[giving[sizes[giving].argmin()]] = part


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
    splits = _block(chosen, count, val_fraction)
    if test_fraction:
        return splits
    # Without a test the block only says where validation begins.
    turned = np.roll(np.arange(count), -int(chosen[0] if len(chosen) else 0))
    size = round(val_fraction * count)
    return {"train": turned[size:], "val": turned[:size], "test": turned[:0]}


def _block(test: Indices, count: int, val_fraction: float) -> dict[str, Indices]:
    rest = np.roll(np.arange(count), -int(test[0] if len(test) else 0))[len(test) :]
    size = round(val_fraction * len(rest))
    return {"train": rest[size:], "val": rest[:size], "test": test}


def _by_time(samples: Samples, val_fraction: float, test_fraction: float) -> dict[str, Indices]:
    """The earliest train, the latest test; what was taken at one time stays together, on the later side."""
    assert samples.times is not None
    order = np.argsort(samples.times, kind="stable")
    times = samples.times[order]
    ends = [len(order) - round(test_fraction * len(order))]
    ends.insert(0, ends[0] - round(val_fraction * ends[0]))
    first, second = (int(np.searchsorted(times, times[end])) if end < len(order) else end for end in ends)
    return {"train": order[:first], "val": order[first:second], "test": order[second:]}
