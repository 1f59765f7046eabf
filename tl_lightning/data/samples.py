"""The list of samples and targets that every kind of source is read into, and what must hold for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tl_lightning.errors import UserError

SPLITS = ("train", "val", "test")
# What folders, cells and parts of libraries' sets call them, in small or capital letters.
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
EVALUATION = "evaluation"  # the split of samples that are scored only: what the source states, else all of it

ProblemType = Literal["multiclass", "ordinal", "multilabel", "regression"]
"""One class out of several; one of several ordered levels; any number of labels; one or more numbers."""


Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Target:
    """One thing that is to be learned of every sample.

    Attributes:
        labels: One row per sample: ``int64`` index into `classes`, shape ``(n,)``, for classes and levels;
            ``float32`` ``(n, len(classes))`` otherwise, 0 or 1 for several labels. -1, or NaN, where a sample lacks it.
        classes: Names of the classes, levels (lowest first), labels or numbers; their order is that of the outputs.
        problem_type: What kind of target it is.
    """

    labels: Labels
    classes: list[str]
    problem_type: ProblemType = "multiclass"

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which samples have it, ``(n,)``."""
        return np.asarray(self.labels >= 0 if self.labels.ndim == 1 else ~np.isnan(self.labels).any(axis=1))

    def at(self, rows: NDArray[np.int64]) -> "Target":
        """The target of some samples."""
        return replace(self, labels=self.labels[rows])

    def without(self, rows: NDArray[np.int64]) -> "Target":
        """The same, as if some samples lacked it."""
        labels = self.labels.copy()
        labels[rows] = -1 if labels.ndim == 1 else np.nan
        return replace(self, labels=labels)

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of some samples have each class, level or label; empty for numbers and for other kinds."""
        if self.problem_type not in ("multiclass", "ordinal", "multilabel"):
            return np.zeros(0, dtype=np.int64)
        labels = self.labels[rows[self.present[rows]]]
        if labels.ndim == 1:
            return np.bincount(labels, minlength=len(self.classes))
        having: NDArray[np.float64] = labels.sum(axis=0, dtype=np.float64)
        return having.astype(np.int64)

    def in_words(self) -> tuple[NDArray[np.int64], list[str]]:
        """A number for each different label, ``int64`` ``(n,)``, and what each of them is in words."""
        rows, number_of = np.unique(self.labels, axis=0, return_inverse=True)
        if self.labels.ndim == 1:
            return number_of, [self.classes[label] if label >= 0 else "no label" for label in rows]
        if self.problem_type == "multilabel":
            having = (np.array(self.classes)[row > 0] for row in rows)
            return number_of, ["|".join(names) or "no label" for names in having]
        return number_of, [", ".join(f"{value:g}" for value in row) for row in rows]


@dataclass(frozen=True, eq=False)
class Samples:
    """Files and their targets, listed but not read.

    Attributes:
        paths: One file per sample, in the order of the source.
        targets: What is to be learned, by name; the first decides what a split keeps in proportion.
        split: ``train``, ``val`` or ``test`` of each sample, where the source states it.
        strata: What a stratified split keeps in proportion, ``int64`` ``(n,)``.
        domains: Name of the domain of each sample, where the source has domains.
        groups: Name of what samples have in common (a patient, a module), where the source has groups.
        weights: How much each sample counts in training, ``float32`` ``(n,)``, more than 0; `None` for all the same.
        times: When each was taken, as numbers that can be put in order, ``float64`` ``(n,)``.
        notes: What a user should know of how they were listed, a line each.
    """

    paths: list[Path]
    targets: dict[str, Target]
    split: NDArray[np.str_] | None
    strata: NDArray[np.int64]
    domains: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None
    weights: NDArray[np.float32] | None = None
    times: NDArray[np.float64] | None = None
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, rows: NDArray[np.int64]) -> "Samples":
        """Some of the samples."""
        parts: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[rows]
            for name in ("split", "strata", "domains", "groups", "weights", "times")
        }
        targets = {name: target.at(rows) for name, target in self.targets.items()}
        return Samples(paths=[self.paths[row] for row in rows], targets=targets, notes=self.notes, **parts)

    @property
    def target(self) -> Target:
        """The only target.

        Raises:
            UserError: If there are several.
        """
        if len(self.targets) > 1:
            raise UserError(
                f"this works with one target, and here are several: {', '.join(self.targets)}; configure a task with "
                "one head, and for data which of them it learns (data.target or data.label_column)"
            )
        return self.first

    @property
    def first(self) -> Target:
        """The first of the targets, which decides what a split keeps in proportion and what is drawn equally often."""
        return next(iter(self.targets.values()))

    @property
    def labels(self) -> Labels:
        """The labels of the only target; see `target`."""
        return self.target.labels

    @property
    def classes(self) -> list[str]:
        """The classes of the only target; see `target`."""
        return self.target.classes

    @property
    def problem_type(self) -> ProblemType:
        """The kind of the only target; see `target`."""
        return self.target.problem_type

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of some samples have each class of the only target; see `Target.counts`."""
        return self.target.counts(rows)

    @property
    def single(self) -> NDArray[np.int64]:
        """One number per sample that each split should have its share of: the first target's class, or the stratum."""
        labels = self.first.labels
        return labels.astype(np.int64) if labels.ndim == 1 else self.strata

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which samples have a target at all, ``(n,)``."""
        found: NDArray[np.bool_] = np.any([target.present for target in self.targets.values()], axis=0)
        return found

    def targets_in_words(self) -> tuple[NDArray[np.int64], list[str]]:
        """A number for each different label, or combination of labels, ``int64`` ``(n,)``, and each in words."""
        if len(self.targets) == 1:
            return self.first.in_words()
        each = [target.in_words() for target in self.targets.values()]
        rows, number_of = np.unique([numbers for numbers, _ in each], axis=1, return_inverse=True)
        return number_of, [
            ", ".join(words[number] for number, (_, words) in zip(row, each, strict=True)) for row in rows.T
        ]


def check_counts(target: Target, source: str, *, own_classes: bool, own_split: bool) -> None:
    """Checks that there is something to learn.

    Args:
        target: What was read.
        source: What messages call the source.
        own_classes: Whether the classes are the source's own rather than asked for, as by a checkpoint.
        own_split: Whether the source states a split.

    Raises:
        UserError: For fewer than two classes, a class with too few samples, or numbers that are all the same.
    """
    if target.problem_type == "regression":
        present = target.labels[target.present]
        constant = [name for name, column in zip(target.classes, present.T, strict=True) if np.ptp(column) == 0]
        if constant and own_classes:
            raise UserError(f"{source}: {constant[0]!r} is the same for all images; there is nothing to learn")
        return
    counts = target.counts(np.arange(len(target.labels)))
    if target.problem_type == "multilabel":
        if own_classes and not counts.all():
            name = target.classes[int(np.argmin(counts))]
            raise UserError(f"no image of {source} has the label {name!r}; leave it out")
        return
    if own_classes and len(target.classes) == 1:
        raise UserError(f"{source} has one class only, {target.classes[0]!r}; at least two are needed")
    if not own_split and 1 in counts:
        name = target.classes[int(np.argmax(counts == 1))]
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
    for target in samples.targets.values():
        trained = target.counts(splits["train"]) > 0
        for name in ("val", "test"):
            if target.problem_type == "regression" and len(splits[name]) == 1:
                raise UserError(f"the {name} split of {source} has one image; how well numbers fit takes two or more")
            unseen = np.flatnonzero((target.counts(splits[name]) > 0) & ~trained)
            if len(unseen):
                names = name_some([repr(target.classes[i]) for i in unseen])
                raise UserError(f"label {names} is in the {name} split of {source}, but training has no image of it")


def split_of(word: str) -> str | None:
    """The split that a word states, such as ``val`` for ``Valid``; `None` for another word."""
    return SPLIT_WORDS.get(word.strip().lower())


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
