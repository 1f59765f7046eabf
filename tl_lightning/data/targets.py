"""From what a source says in words to what a task learns: classes, levels, labels or numbers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.class_names import doubtful_names, likeness, same_text
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import (
    ProblemType,
    Samples,
    Target,
    are_numbers,
    check_counts,
    name_some,
    sort_classes,
)
from tl_lightning.errors import UserError

YES, NO = frozenset(("1", "1.0", "true", "yes")), frozenset(("0", "0.0", "false", "no"))
LARGEST = float(np.finfo(np.float32).max)
Unlabelled = Literal["stop", "keep"]
ClassNames = Sequence[str | int | float]  # YAML reads [1, 2, 3] as numbers
BINS = 10  # of numbers, for a split in proportion; fewer where there are not five images for each


def make_samples(
    listing: Listing,
    *,
    problem_type: ProblemType | Mapping[str, ProblemType] = "multiclass",
    classes: ClassNames | Mapping[str, ClassNames] | None = None,
    separator: str = "|",
    unlabelled: Unlabelled = "stop",
    evaluating: bool = False,
) -> Samples:
    """Puts the targets of a source into the order of the outputs, and checks that something can be learned from them.

    Args:
        listing: What the source says.
        problem_type: What is to be learned of all columns together, or of each by its name.
        classes: The order asked for by the user or by a checkpoint, for several targets by name; it may hold classes
            without samples. Where they are numbers, those of the source are the same by their value, 1 and 1.0; where
            they are names and the source has whole numbers from 0 instead, these are places in this order.
        separator: Between the labels of one cell.
        unlabelled: What to do about samples without any target: ``stop`` or ``keep``.
        evaluating: Whether they are only scored, so that a class may have one image.

    Returns:
        The samples; a blank cell is a sample that lacks the target, but for several labels in one cell, where it says
        that there are none.

    Raises:
        UserError: If the targets are not of that kind, or a sample has none; see also `check_counts`.
    """
    if not listing.paths:
        raise UserError(f"{listing.source} holds no images")
    targets = {
        name: _target(replace(listing, targets=columns), kind, order, separator)
        for name, columns, kind, order in _wanted(listing, problem_type, classes)
    }
    first = next(iter(targets.values()))
    named = [target.classes for target in targets.values() if classes is None and target.problem_type != "regression"]
    doubts = [doubt for names in named for doubt in doubtful_names(names)]
    samples = Samples(
        paths=listing.paths,
        targets=targets,
        split=None if listing.split is None else np.array(listing.split, dtype=np.str_),
        strata=_strata(first) if listing.strata is None else listing.strata,
        domains=None if listing.domains is None else np.array(listing.domains, dtype=np.str_),
        groups=None if listing.groups is None else np.array(listing.groups, dtype=np.str_),
        weights=None if listing.weights is None else np.array(listing.weights, dtype=np.float32),
        times=None if listing.times is None else np.array(listing.times, dtype=np.float64),
        notes=[*listing.notes, *doubts],
    )
    if unlabelled == "stop" and not samples.labelled.all():
        place = listing.place(int(np.argmin(samples.labelled)))
        what = "no target" if len(listing.targets) > 1 else f"the column {next(iter(listing.targets))!r} is empty"
        raise UserError(f"{place}: {what}; --data.unlabelled keep keeps such rows")
    for name, target in targets.items():
        if classes is None and not target.present.any():
            raise UserError(f"{listing.source}: no image has a value of {name!r}; there is nothing to learn")
        own_split = samples.split is not None or evaluating
        check_counts(target, listing.source, own_classes=classes is None, own_split=own_split)
    return samples


def _wanted(
    listing: Listing,
    problem_type: ProblemType | Mapping[str, ProblemType],
    classes: ClassNames | Mapping[str, ClassNames] | None,
) -> Iterator[tuple[str, dict[str, Sequence[str]], ProblemType, list[str] | None]]:
    """The name of each target, the columns that say it, its kind, and the order of its classes that was asked for."""
    if isinstance(problem_type, str):
        if isinstance(classes, Mapping):
            raise UserError("data.classes has names of targets, but there is one target: give a list")
        name = next(iter(listing.targets)) if len(listing.targets) == 1 else "label"
        yield name, listing.targets, problem_type, _in_text(classes)
        return
    if classes is not None and (not isinstance(classes, Mapping) or not {*classes} <= {*problem_type}):
        raise UserError(f"data.classes must give a list for each of the targets {', '.join(problem_type)}, by its name")
    for name, kind in problem_type.items():
        yield name, {name: listing.targets[name]}, kind, None if classes is None else _in_text(classes.get(name))


def _in_text(classes: ClassNames | None) -> list[str] | None:
    return None if classes is None else [str(name) for name in classes]


def _target(listing: Listing, problem_type: ProblemType, classes: list[str] | None, separator: str) -> Target:
    if classes is not None and len(set(classes)) < len(classes):
        raise UserError(f"data.classes names a class twice: {', '.join(classes)}")
    if problem_type == "regression":
        return Target(*_numbers(listing, classes), problem_type)
    if problem_type == "multilabel":
        return Target(*_labels(listing, classes, separator), problem_type)
    return Target(*_classes(listing, classes, levels=problem_type == "ordinal"), problem_type)


def _only_column(listing: Listing, kind: str) -> tuple[str, Sequence[str]]:
    if len(listing.targets) > 1:
        names = ", ".join(listing.targets)
        raise UserError(f"data.label_column names several columns ({names}), but an image has one {kind}: name one")
    return next(iter(listing.targets.items()))


def _classes(listing: Listing, classes: list[str] | None, *, levels: bool) -> tuple[NDArray[np.int64], list[str]]:
    column, cells = _only_column(listing, "level" if levels else "class")
    found = set(cells) - {""}
    if levels and classes is None and column not in listing.ordered and not are_numbers(found):
        names = name_some(sort_classes(found))
        raise UserError(
            f"{listing.source} does not say in which order its levels are ({names}); "
            "list them from the lowest to the highest as data.classes"
        )
    order = classes or listing.known.get(column) or sort_classes(found)
    if levels and classes is None and are_numbers(order):
        order = sort_classes(order)  # a source may list them by letters, 10 before 2
    numbers = _places(listing, order, found)
    places = {str(number) for number in range(len(order))}
    if classes is not None and not any(are_numbers([name]) for name in order) and found <= places:
        numbers = {str(number): number for number in range(len(order))}
    for index, cell in enumerate(cells):
        if cell and cell not in numbers:
            raise UserError(
                f"label {cell!r} ({listing.place(index)}) is not one of the classes asked for: {name_some(order)}"
                + likeness(cell, order)
            )
    return np.array([numbers[cell] if cell else -1 for cell in cells], dtype=np.int64), list(order)


def _places(listing: Listing, order: Sequence[str], cells: Iterable[str]) -> dict[str, int]:
    """The place of each class by its name.

    Cells that are the same text in another Unicode form have the same one, and where all are numbers, those of the same
    value.
    """
    places = {name: place for place, name in enumerate(order)}
    cells = set(cells)
    by_text = {same_text(name): place for name, place in places.items()}
    if len(by_text) == len(places):
        places |= {cell: by_text[same_text(cell)] for cell in cells - set(places) if same_text(cell) in by_text}
    if are_numbers(order):
        by_value = {float(name): place for name, place in places.items()}
        if len(by_value) < len(places):
            raise UserError(
                f"{listing.source}: some classes are the same number written in several ways: {name_some(order)}"
            )
        for cell in cells - set(places):
            if are_numbers([cell]) and float(cell) in by_value:
                places[cell] = by_value[float(cell)]
    return places


def _labels(listing: Listing, classes: list[str] | None, separator: str) -> tuple[NDArray[np.float32], list[str]]:
    if len(listing.targets) > 1:
        return _marked(listing, classes)
    if not separator:
        raise UserError("data.label_separator is empty; it must be what stands between the labels of a cell, such as |")
    ((column, cells),) = listing.targets.items()
    rows = [[label.strip() for label in cell.split(separator) if label.strip()] for cell in cells]
    order = classes or listing.known.get(column) or sort_classes({label for row in rows for label in row})
    numbers = _places(listing, order, (label for row in rows for label in row))
    labels = np.zeros((len(rows), len(order)), dtype=np.float32)
    for index, row in enumerate(rows):
        for label in row:
            if label not in numbers:
                raise UserError(
                    f"label {label!r} ({listing.place(index)}) is not one of the labels asked for: {name_some(order)}"
                    + likeness(label, order)
                )
            labels[index, numbers[label]] = 1
    if not order:
        raise UserError(f"no image of {listing.source} has a label")
    return labels, list(order)


def _marked(listing: Listing, classes: list[str] | None) -> tuple[NDArray[np.float32], list[str]]:
    """One column per label, which says whether the image has it."""
    order = list(listing.targets) if classes is None else classes
    numbers = _places(listing, order, listing.targets)
    column_of = {numbers[column]: column for column in listing.targets if column in numbers}
    if len(column_of) < max(len(order), len(listing.targets)):
        raise UserError(
            f"data.label_column names {', '.join(listing.targets)}, but the labels asked for are {', '.join(order)}"
        )
    labels = np.zeros((len(listing.paths), len(order)), dtype=np.float32)
    for column, name in column_of.items():
        for index, cell in enumerate(listing.targets[name]):
            word = cell.lower()
            if word not in YES | NO:
                raise UserError(
                    f"{listing.place(index)}: column {name!r} is {cell!r}; it must say 1 or 0, true or false, yes or no"
                )
            labels[index, column] = word in YES
    return labels, order


def _numbers(listing: Listing, classes: list[str] | None) -> tuple[NDArray[np.float32], list[str]]:
    order = list(listing.targets) if classes is None else classes
    # A table of new images may call the one number otherwise; of several, each has to be found.
    columns = dict(zip(order, listing.targets.values(), strict=False)) if len(order) == 1 else listing.targets
    if set(order) != set(columns) or len(order) != len(listing.targets):
        raise UserError(
            f"data.label_column names {', '.join(listing.targets)}, but the numbers asked for are {', '.join(order)}"
        )
    values = np.zeros((len(listing.paths), len(order)), dtype=np.float32)
    for column, name in enumerate(order):
        for index, cell in enumerate(columns[name]):
            values[index, column] = _number(cell, name, listing.place(index)) if cell else np.nan
    values[np.isnan(values).any(axis=1)] = np.nan  # of several numbers, a sample has all or none
    return values, order


def _number(cell: str, column: str, place: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not abs(value) <= LARGEST:
        raise UserError(f"{place}: column {column!r} is {cell!r}; a finite number is wanted")
    return value


def _strata(target: Target) -> NDArray[np.int64]:
    """What a split keeps in proportion: the class, an image's rarest label, or a tenth of the range of a number."""
    labels = target.labels
    if target.problem_type == "regression":
        present = np.flatnonzero(target.present)
        bins = max(1, min(BINS, len(present) // 5))
        strata = np.zeros(len(labels), dtype=np.int64)
        strata[present[labels[present, 0].argsort(kind="stable")]] = np.arange(len(present)) * bins // len(present)
        return strata
    if target.problem_type == "multilabel":
        rarity = labels * (1 / np.maximum(labels.sum(axis=0), 1))
        rarest: NDArray[np.int64] = np.where(labels.any(axis=1), rarity.argmax(axis=1), labels.shape[1])
        return rarest
    return labels.astype(np.int64)
