"""Samples that cannot be read, and whether enough is left without them."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.samples import Samples, check_training_has_all, name_some
from tl_lightning.errors import UserError, shown

Splits = dict[str, NDArray[np.int64]]


def splits_without(splits: Splits, rows: Collection[int]) -> Splits:
    """The splits without some samples.

    Args:
        splits: Indices of the samples of each split.
        rows: Indices of those that are left out.
    """
    return {name: np.setdiff1d(indices, list(rows)) for name, indices in splits.items()}


def check_without(
    samples: Samples, splits: Splits, broken: Mapping[int, str], *, skip: bool, trains: bool, source: str, noun: str
) -> None:
    """Checks that broken samples may be left out, and that no split and no class is empty without them.

    Args:
        samples: All of them.
        splits: Indices of the samples of each split, broken ones among them.
        broken: Why a sample could not be read, by its index.
        skip: Whether they may be left out.
        trains: Whether any of the samples train, for which every class has to be left.
        source: Name of the source, for messages.
        noun: What the samples are called, in the plural.

    Raises:
        UserError: If they may not, or if too little is left; naming some of them.
    """
    named = name_some([f"{shown(samples.paths[index])} ({reason})" for index, reason in broken.items()])
    found = f"{len(broken)} of {len(samples)} {noun} of {source} cannot be read: {named}"
    if not skip:
        raise UserError(f"{found}; mend them, or leave them out with --data.on_error skip")
    if not trains:
        return
    left = splits_without(splits, broken)
    for name in ("train", "val"):
        if not len(left[name]):
            raise UserError(f"the {name} split is left without {noun}: {found}")
    everything = np.arange(len(samples))
    readable = np.setdiff1d(everything, list(broken))
    for target in samples.targets.values():
        had, has = (target.counts(rows) > 0 for rows in (everything, readable))
        if (had & ~has).any():
            name = target.classes[int(np.argmax(had & ~has))]
            raise UserError(f"class {name!r} is left without {noun}: {found}")
    check_training_has_all(samples, left, source)
