"""What there is to say of the data of a run: notes for people, plain data for its summary, digests to compare."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.contents import contents
from tl_lightning.data.dataset import Store
from tl_lightning.data.samples import Samples, Target, name_some

if TYPE_CHECKING:  # it hands itself over to be described
    from tl_lightning.data.base import TransferDataModule

Splits = Mapping[str, NDArray[np.int64]]


def data_notes(data: "TransferDataModule") -> list[str]:
    """What a user should know: how samples were listed, classes that a split lacks, and what is made of columns.

    Args:
        data: Whose splits are in force.
    """
    samples, splits = data.samples, data.splits
    said = [*samples.notes]
    for name, target in product(("val", "test"), samples.targets.values()):
        trained, held_out = (target.counts(splits[part]) > 0 for part in ("train", name))
        lacking = np.flatnonzero(trained & ~held_out)
        if len(lacking) and len(splits[name]):
            names = name_some([repr(target.classes[number]) for number in lacking], most=5)
            said.append(
                f"the {name} split has no {data.noun.removesuffix('s')} of {names}: its metrics say nothing about that"
            )
    if count := len(data.unlabelled_rows):
        used = "train too" if len(data.training_rows) > len(splits["train"]) else "are left out by this task"
        said.append(f"{count:,} {data.noun} without a label {used}")
    if samples.weights is not None:
        said.append(f"{data.noun} count in training as the weight column says")
    if samples.times is not None and data.split != "time":
        said.append("the time column has no effect without data.split time")
    return said


def data_summary(data: "TransferDataModule") -> dict[str, Any]:
    """What the data were, as plain data for ``summary.json``.

    Args:
        data: Whose splits are in force.
    """
    samples, splits = data.samples, data.splits
    kinds = {name: target.problem_type for name, target in samples.targets.items()}
    counts = {
        name: {split: _counted(target, rows) for split, rows in splits.items()}
        for name, target in samples.targets.items()
    }
    several = isinstance(data.classes, dict)
    return {
        "source": data.source,
        "problem_type": kinds if several else next(iter(kinds.values())),
        "classes": data.classes,
        "train": len(splits["train"]),
        "validation": len(splits["val"]),
        "test": len(splits["test"]),
        "unlabelled": len(data.unlabelled_rows),
        "skipped": data.skipped,
        "split": data.split,
        "split_seed": data.split_seed,
        "fold": data.fold,
        "split_digest": data.split_digest,
        "targets_digest": data.targets_digest,
        "contents_digest": data.contents_digest,
        "leaks": None if data.leaks is None else {"moved": data.moved, **data.leaks.to_dict()},
        "groups": None if samples.groups is None else len(np.unique(samples.groups)),
        "class_counts": counts if several else next(iter(counts.values())),
    }


def _counted(target: Target, rows: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(target.classes, target.counts(rows).tolist(), strict=False))


def digest_splits(paths: Sequence[Path], splits: Splits, unlabelled: NDArray[np.int64]) -> str:
    """Tells apart the samples' names in each split; the folder that holds them may move.

    Args:
        paths: The files of all samples.
        splits: Indices of the samples of each split.
        unlabelled: Indices of the samples that may train without a label.
    """
    digest = hashlib.sha256()
    for name, indices in {**splits, "unlabelled": unlabelled}.items():
        for index in indices:
            digest.update(f"{name}\0{paths[index].parent.name}/{paths[index].name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def digest_contents(store: Store, splits: Splits) -> str:
    """Tells apart what the samples of the splits show, in the order of the source.

    Args:
        store: All of them.
        splits: Indices of the samples of each split.
    """
    rows = np.unique(np.concatenate(list(splits.values())))
    return hashlib.sha256(contents(store)[rows].tobytes()).hexdigest()[:16]


def digest_targets(samples: Samples, splits: Splits) -> str:
    """Tells apart what the samples of the splits are said to show.

    Args:
        samples: All of them.
        splits: Indices of the samples of each split.
    """
    digest = hashlib.sha256()
    for rows in splits.values():
        for target in samples.targets.values():
            digest.update(target.labels[rows].tobytes())
        digest.update(b"" if samples.weights is None else samples.weights[rows].tobytes())
    return digest.hexdigest()[:16]
