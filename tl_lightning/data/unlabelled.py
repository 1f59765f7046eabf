"""Samples without a label that may train all the same, as they tell nothing of validation and test."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.samples import Samples

Indices = NDArray[np.int64]


def without_label(whole: Mapping[str, Indices], used: Mapping[str, Indices]) -> Indices:
    """Samples that lose their label, as the training and validation of a smaller share of the labels do without them.

    Args:
        whole: The splits with all labels.
        used: The splits with the share of the labels.
    """
    every, left = (np.union1d(splits["train"], splits["val"]) for splits in (whole, used))
    return np.setdiff1d(every, left)


def may_train(samples: Samples, splits: Mapping[str, Indices], candidates: Indices, split: str) -> Indices:
    """The samples that may train without a label.

    Left out is what the source states to be validation or test, what belongs to a group that is there, what lies in
    one of their blocks, and what comes after the last training sample where the split is one of times.

    Args:
        samples: All of them.
        splits: The labelled ones under ``train``, ``val`` and ``test``.
        candidates: Ascending indices of those without a label.
        split: How the samples are split, such as ``auto`` or ``time``; see `split_samples`.
    """
    keep = np.ones(len(candidates), dtype=np.bool_)
    held_out = np.union1d(splits["val"], splits["test"])
    if samples.split is not None and split == "auto":
        keep &= samples.split[candidates] == "train"
    if samples.groups is not None:
        keep &= ~np.isin(samples.groups[candidates], samples.groups[held_out])
    if split == "blocks":
        for rows in (splits["val"], splits["test"]):
            keep &= (candidates < rows.min(initial=len(samples))) | (candidates > rows.max(initial=-1))
    if split == "time" and samples.times is not None:
        keep &= samples.times[candidates] <= samples.times[splits["train"]].max()
    return candidates[keep]
