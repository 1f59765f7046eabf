"""From the columns of a table, wherever it comes from, to the list of images and targets."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from tl_lightning.data.archives.files import is_file
from tl_lightning.data.listing import Listing
from tl_lightning.data.parts import file_of
from tl_lightning.data.samples import SPLIT_WORDS, SPLITS, are_numbers, name_some, split_of
from tl_lightning.errors import UserError, nearest


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    Attributes:
        image: The image's path.
        label: The target; several columns for several numbers, or for labels that are marked with 0 and 1; `None` where
            only the files are wanted.
        split: ``train``, ``val`` or ``test``.
        group: What must not be torn apart, such as the patient.
        domain: Where it comes from, such as the hospital; a split may train on one and test on another.
        weight: How much the image counts in training.
        time: When it was taken: a number, or a date such as 2024-05-31 or 2024-05-31T12:00.
    """

    image: str = "image"
    label: str | list[str] | None = "label"
    split: str | None = None
    group: str | None = None
    domain: str | None = None
    weight: str | None = None
    time: str | None = None

    @property
    def labels(self) -> list[str]:
        """All columns that hold targets."""
        return [self.label] if isinstance(self.label, str) else self.label or []


PLAIN = str | int | float | Decimal
USUAL = ("split", "group", "domain", "weight")  # columns that are taken without being asked for, where a table has them


@dataclass(frozen=True, kw_only=True)
class Table:
    """The cells of a source, before anything is made of them.

    Attributes:
        name: What messages call the source.
        columns: Cells by column: text, a number, a truth value, a date, a list of these, or `None` for a blank one.
        place: Says in words where the row of an index was found.
        paths: The images, where they are no column.
        classes: The classes of a column in the source's own order, where it has one.
    """

    name: str
    columns: dict[str, Sequence[Any]]
    place: Callable[[int], str]
    paths: list[Path] | None = None
    classes: dict[str, list[str]] = field(default_factory=dict)


def list_table(
    table: Table, columns: Columns, *, folder: Path | None = None, blank_targets: bool = False, separator: str = "|"
) -> Listing:
    """Lists the images that a table names, with their targets.

    Args:
        table: What was read.
        columns: Which column holds what. Those called ``split``, ``group``, ``domain`` and ``weight`` are used
            where there are any.
        folder: What the paths are relative to; a leading ``~/`` is the user's own folder.
        blank_targets: Whether the cell of a target may be blank, as for an image that has none of the labels.
        separator: Between the items of a list, as they come out.

    Returns:
        The images in the order of the rows; one that several rows name is there several times.

    Raises:
        UserError: If the table lacks a column, has a cell that cannot be used, or names images that do not exist.
    """
    used = _used(table, columns)

    def texts(column: str, *, blank: bool = False) -> list[str]:
        return [
            _text(value, column, place=table.place, index=index, separator=separator, blank=blank)
            for index, value in enumerate(table.columns[column])
        ]

    split = texts(used["split"]) if "split" in used else None
    stated = None if split is None else [split_of(name) or name for name in split]
    for index, name in enumerate(stated or []):
        if name not in SPLITS:
            raise UserError(
                f"{table.place(index)}: {used['split']} is {name!r}; it must be train, val or test"
                + nearest(name, SPLIT_WORDS)
            )
    paths = table.paths if table.paths is not None else _found(table, texts(columns.image), folder)
    known = {name: table.classes[name] for name in columns.labels if name in table.classes}
    return Listing(
        source=table.name,
        paths=paths,
        targets={name: texts(name, blank=blank_targets) for name in columns.labels},
        place=table.place,
        known=known,
        ordered=frozenset(name for name, classes in known.items() if are_numbers(classes)),
        split=stated,
        domains=texts(used["domain"]) if "domain" in used else None,
        groups=texts(used["group"]) if "group" in used else None,
        weights=_weights(table, used["weight"], texts(used["weight"])) if "weight" in used else None,
        times=_times(table, used["time"], texts(used["time"])) if "time" in used else None,
    )


def _used(table: Table, columns: Columns) -> dict[str, str]:
    """The column of each part beside image and target that has one."""
    labels = columns.labels
    if columns.label is None:
        if table.paths is None and columns.image not in table.columns:
            raise UserError(
                f"{table.name} has no column {columns.image!r} with the paths of the images; its columns are "
                f"{', '.join(table.columns)}: rename one"
            )
        return {}
    if not labels or len(set(labels)) < len(labels):
        raise UserError(f"data.label_column is {labels}; it must name a column, or several that differ")
    wanted = [("label_column", name) for name in labels]
    if table.paths is None:
        wanted.insert(0, ("image_column", columns.image))
    used = {}
    for part in ("split", "group", "domain", "weight", "time"):
        asked = getattr(columns, part)
        if asked is not None:
            wanted.append((f"{part}_column", asked))
            used[part] = asked
        # A column that holds the target is no split, group or weight for its name alone.
        elif part in USUAL and part in table.columns and part not in labels:
            used[part] = part
    for setting, column in wanted:
        if column not in table.columns:
            raise UserError(
                f"{table.name} has no column {column!r} (data.{setting}); its columns are {', '.join(table.columns)}"
                + nearest(column, table.columns)
            )
    return used


def _text(
    value: object, column: str, *, place: Callable[[int], str], index: int, separator: str, blank: bool
) -> str:  # fmt: skip
    if isinstance(value, list) and all(isinstance(part, PLAIN) and part == part for part in value):
        parts = [str(part).strip() for part in value]
        if torn := [part for part in parts if separator in part]:
            raise UserError(
                f"{place(index)}: {torn[0]!r} in column {column!r} contains {separator!r}; "
                "choose another data.label_separator"
            )
        text = separator.join(parts)
    elif isinstance(value, PLAIN):
        text = "" if value != value else str(value).strip()  # NaN is how pandas writes a blank cell
    elif value is None:
        text = ""
    elif hasattr(value, "isoformat"):
        text = value.isoformat()
    else:
        raise UserError(f"{place(index)}: column {column!r} holds {type(value).__name__}, not text or a number")
    if not text and not blank:
        raise UserError(f"{place(index)}: the column {column!r} is empty")
    return text


def _found(table: Table, cells: list[str], folder: Path | None) -> list[Path]:
    """The images, all of which exist. As text first: a hundred thousand paths of pathlib's take seconds."""
    start = "" if folder is None else str(folder)
    names = [os.path.join(start, os.path.expanduser(cell) if cell.startswith("~/") else cell) for cell in cells]
    missing = [name for name in names if not is_file(file_of(Path(name)) if "#" in name else name)]
    if missing:
        raise UserError(f"{len(missing)} of the {len(names)} images in {table.name} do not exist: {name_some(missing)}")
    return [Path(name) for name in names]


def _weights(table: Table, column: str, texts: list[str]) -> list[float]:
    weights = np.array([_number(text) for text in texts], dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        stored = weights.astype(np.float32)  # as they will be used
    if len(wrong := np.flatnonzero(~((stored > 0) & (stored < np.inf)))):
        index = int(wrong[0])
        raise UserError(f"{table.place(index)}: {column} is {texts[index]!r}; it must be a number above 0")
    return [float(weight) for weight in weights]


def _times(table: Table, column: str, texts: list[str]) -> list[float]:
    """Numbers or dates: both in one column cannot be put in order."""
    numbers = [_number(text) for text in texts]
    times = [_seconds(text) if number is None else number for text, number in zip(texts, numbers, strict=True)]
    for index, (number, time) in enumerate(zip(numbers, times, strict=True)):
        if time is None or not np.isfinite(time) or (number is None) != (numbers[0] is None):
            raise UserError(
                f"{table.place(index)}: {column} is {texts[index]!r}; "
                "all must be numbers, or all dates such as 2024-05-31 or 2024-05-31T12:00"
            )
    return [time or 0.0 for time in times]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    # Without a zone of its own it must not depend on this machine's.
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
