"""The list of images and answers that every kind of source is read into, and what must hold for it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_lightning.errors import UserError

SPLITS = ("train", "val", "test")

ProblemType = Literal["multiclass", "ordinal", "multilabel", "regression"]
"""One class out of several; one of several ordered levels; any number of labels; one or more numbers."""


Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and their answers, listed but not read.

    Attributes:
        paths: One image file per sample, in the order of the source.
        labels: What is to be learned, one row per sample: ``int64`` index into `classes`, shape ``(n,)``, for classes
            and levels; ``float32`` ``(n, len(classes))`` otherwise, 0 or 1 for labels.
        classes: Names of the classes, levels (lowest first), labels or numbers; their order is that of the outputs.
        split: ``train``, ``val`` or ``test`` of each sample, where the source states it.
        strata: What a stratified split keeps in proportion, ``int64`` ``(n,)``.
        domains: Name of the domain of each sample, where the source has domains.
        problem_type: What kind of target the labels are.
        groups: Name of what samples have in common (a patient, a module), where the source has groups.
        weights: How much each sample counts in training, ``float32`` ``(n,)``, more than 0; `None` for all the same.
        times: When each was taken, as numbers that can be put in order, ``float64`` ``(n,)``.
    """

    paths: list[Path]
    labels: Labels
    classes: list[str]
    split: NDArray[np.str_] | None
    strata: NDArray[np.int64]
    domains: NDArray[np.str_] | None
    problem_type: ProblemType = "multiclass"
    groups: NDArray[np.str_] | None = None
    weights: NDArray[np.float32] | None = None
    times: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def single(self) -> NDArray[np.int64]:
        """One number per sample that each split should have its share of: the class, or else the stratum."""
        return self.labels.astype(np.int64) if self.labels.ndim == 1 else self.strata

    def targets_in_words(self) -> tuple[NDArray[np.int64], list[str]]:
        """A number for each different answer, ``int64`` ``(n,)``, and what each of these answers is in words."""
        if self.labels.ndim == 1:
            return self.single, self.classes
        rows, number_of = np.unique(self.labels, axis=0, return_inverse=True)
        if self.problem_type == "multilabel":
            having = (np.array(self.classes)[row > 0] for row in rows)
            return number_of, ["|".join(names) or "no label" for names in having]
        return number_of, [", ".join(f"{value:g}" for value in row) for row in rows]

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of some samples have each class, level or label; empty where the answers are numbers."""
        if self.problem_type == "regression":
            return np.zeros(0, dtype=np.int64)
        if self.labels.ndim == 1:
            return np.bincount(self.labels[rows], minlength=len(self.classes))
        having: NDArray[np.float64] = self.labels[rows].sum(axis=0, dtype=np.float64)
        return having.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a source says of its images, as text, whatever is to be learned from it.

    Attributes:
        source: Its name, for messages.
        paths: One image file per sample.
        answers: One or more columns by name, each with the cell of every sample.
        place: Says in words where the sample of an index was found.
        known: The source's own order of the classes; `None` sorts those that occur.
        ordered: Whether that order is one of levels, lowest first.
        split: See `Samples`, as are the others.
        strata: `None` leaves them to the answers.
    """

    source: str
    paths: list[Path]
    answers: dict[str, Sequence[str]]
    place: Callable[[int], str]
    known: list[str] | None = None
    ordered: bool = False
    split: Sequence[str] | None = None
    strata: NDArray[np.int64] | None = None
    domains: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    weights: Sequence[float] | None = None
    times: Sequence[float] | None = None


def check_counts(samples: Samples, source: str, *, own_classes: bool) -> None:
    """Checks that there is something to learn.

    Args:
        samples: What was read.
        source: Its name, for messages.
        own_classes: Whether the classes are the source's own rather than asked for, as by a checkpoint.

    Raises:
        UserError: For fewer than two classes, a class with too few images, or numbers that
            are all the same.
    """
    if samples.problem_type == "regression":
        constant = [name for name, column in zip(samples.classes, samples.labels.T, strict=True) if np.ptp(column) == 0]
        if constant and own_classes:
            raise UserError(f"{source}: {constant[0]!r} is the same for all images; there is nothing to learn")
        return
    counts = samples.counts(np.arange(len(samples)))
    if samples.problem_type == "multilabel":
        if own_classes and not counts.all():
            name = samples.classes[int(np.argmin(counts))]
            raise UserError(f"no image of {source} has the label {name!r}; leave it out")
        return
    if own_classes and len(samples.classes) == 1:
        raise UserError(f"{source} has one class only, {samples.classes[0]!r}; at least two are needed")
    if samples.split is None and 1 in counts:
        name = samples.classes[int(np.argmax(counts == 1))]
        raise UserError(f"class {name!r} of {source} has one image only; training and testing need at least two")


def check_training_has_all(samples: Samples, splits: dict[str, NDArray[np.int64]], source: str) -> None:
    """Checks that no class or label is met in validation or test that training has never seen, and numbers vary there.

    Args:
        samples: What was split.
        splits: Indices of the samples of each split.
        source: Name of the source, for the message.

    Raises:
        UserError: Naming the class and the split.
    """
    if samples.problem_type == "regression":
        for name in ("val", "test"):
            if len(splits[name]) == 1:
                raise UserError(f"the {name} split of {source} has one image; how well numbers fit takes two or more")
        return
    trained = samples.counts(splits["train"]) > 0
    for name in ("val", "test"):
        unseen = np.flatnonzero((samples.counts(splits[name]) > 0) & ~trained)
        if len(unseen):
            names = name_some([repr(samples.classes[i]) for i in unseen])
            raise UserError(f"label {names} is in the {name} split of {source}, but training has no image of it")


def sort_classes(names: Iterable[str]) -> list[str]:
    """Sorts class names: by value where all are numbers, so that ``10`` follows ``9``, else by letters."""
    names = sorted(names)
    return sorted(names, key=float) if are_numbers(names) else names


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are finite numbers."""
    try:
        return all(np.isfinite(float(name)) for name in names)
    except ValueError:
        return False


def name_some(names: Sequence[str], *, most: int = 10) -> str:
    """The first few names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
