"""The list of pictures and labels that every kind of source is read into, and what must hold for it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_lightning.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Samples:
    """Pictures and their labels, listed but not read.

    Attributes:
        paths: One picture file per sample, in the order of the source.
        labels: ``int64`` index into `classes` of each sample, shape ``(n,)``.
        classes: Names of the classes; their order is the order of the model's outputs.
        split: ``train``, ``val`` or ``test`` of each sample, where the source states it.
        strata: What a stratified split keeps in proportion, shape ``(n,)``; the labels unless the source knows better.
        domains: Name of the domain of each sample, where the source has domains.
    """

    paths: list[Path]
    labels: NDArray[np.int64]
    classes: list[str]
    split: NDArray[np.str_] | None
    strata: NDArray[np.int64]
    domains: NDArray[np.str_] | None

    def __len__(self) -> int:
        return len(self.paths)


def make_samples(
    paths: list[Path],
    labels: Sequence[str],
    *,
    classes: list[str] | None,
    known: list[str] | None,
    split: Sequence[str] | None,
    strata: NDArray[np.int64] | None = None,
    domains: Sequence[str] | None = None,
    place: Callable[[int], str],
    source: str,
) -> Samples:
    """Puts labels into the order of the classes and checks that something can be learned from them.

    Args:
        paths: One picture per sample.
        labels: The name of the class of each sample.
        classes: The order asked for by the user or by a checkpoint; it may hold classes without samples.
        known: The source's own order; `None` sorts the labels that occur.
        split: The split that the source states for each sample.
        strata: See `Samples`; the labels where omitted.
        domains: See `Samples`.
        place: Says in words where the sample of an index was found.
        source: Name of the source, for messages.

    Returns:
        The samples.

    Raises:
        UserError: For no pictures at all, an unknown label, fewer than two classes, a class with too few pictures, or a
            label that training has not.
    """
    order = classes if classes is not None else known if known is not None else sort_classes(set(labels))
    if not paths:
        raise UserError(f"{source} holds no pictures")
    numbers = {name: number for number, name in enumerate(order)}
    if len(numbers) < len(order):
        raise UserError(f"data.classes names a class twice: {', '.join(order)}")
    for index, label in enumerate(labels):
        if label not in numbers:
            raise UserError(f"label {label!r} ({place(index)}) is not one of the classes asked for: {name_some(order)}")
    indices = np.array([numbers[label] for label in labels], dtype=np.int64)
    samples = Samples(
        paths=paths,
        labels=indices,
        classes=list(order),
        split=None if split is None else np.array(split, dtype=np.str_),
        strata=indices if strata is None else strata,
        domains=None if domains is None else np.array(domains, dtype=np.str_),
    )
    _check_counts(samples, source, own_classes=classes is None)
    if samples.split is not None:
        check_training_has_all(samples, {name: np.flatnonzero(samples.split == name) for name in SPLITS}, source)
    return samples


def _check_counts(samples: Samples, source: str, *, own_classes: bool) -> None:
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    if own_classes and len(samples.classes) == 1:
        raise UserError(f"{source} has one class only, {samples.classes[0]!r}; at least two are needed")
    if samples.split is None and 1 in counts:
        name = samples.classes[int(np.argmax(counts == 1))]
        raise UserError(f"class {name!r} of {source} has one picture only; training and testing need at least two")
    if samples.split is not None and "train" not in samples.split:
        raise UserError(f"{source} states a split, but has nothing in 'train'")


def check_training_has_all(samples: Samples, splits: dict[str, NDArray[np.int64]], source: str) -> None:
    """Checks that no class is met in validation or test that training has never seen.

    Args:
        samples: What was split.
        splits: Indices of the samples of each split.
        source: Name of the source, for the message.

    Raises:
        UserError: Naming the class and the split.
    """
    trained = np.unique(samples.labels[splits["train"]])
    for name in ("val", "test"):
        unseen = np.setdiff1d(samples.labels[splits[name]], trained)
        if len(unseen):
            names = name_some([repr(samples.classes[i]) for i in unseen])
            raise UserError(f"label {names} is in the {name} split of {source}, but training has no picture of it")


def sort_classes(names: Iterable[str]) -> list[str]:
    """Sorts class names: by value where all are whole numbers, so that ``10`` follows ``9``, else by letters."""
    names = sorted(names)
    try:
        return sorted(names, key=int)
    except ValueError:
        return names


def name_some(names: Sequence[str], *, most: int = 10) -> str:
    """The first few names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
