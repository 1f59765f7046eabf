"""A CSV or Parquet table that names pictures and their answers."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tl_lightning.data.samples import SPLITS, Listing, name_some
from tl_lightning.errors import UserError, nearest

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    Attributes:
        image: The picture's path.
        label: The answer; several columns for several numbers, or for labels that are marked with 0 and 1.
        split: ``train``, ``val`` or ``test``.
        group: What must not be torn apart, such as the patient.
        weight: How much the picture counts in training.
        time: When it was taken: a number, or a date such as 2024-05-31 or 2024-05-31T12:00.
    """

    image: str = "image"
    label: str | list[str] = "label"
    split: str | None = None
    group: str | None = None
    weight: str | None = None
    time: str | None = None

    @property
    def labels(self) -> list[str]:
        """All columns that hold answers."""
        return [self.label] if isinstance(self.label, str) else self.label


USUAL = {
    "split": "split",
    "group": "group",
    "weight": "weight",
}  # taken without being asked for, where a table has them


def read_table(table: Path, *, columns: Columns, blank_answers: bool = False, separator: str = "|") -> Listing:
    """Lists the pictures that a table names.

    Args:
        table: The file: CSV in UTF-8 with a header, or Parquet. Paths are absolute or relative to its folder.
        columns: Which column holds what. Those called ``split``, ``group`` and ``weight`` are used where there are any.
        blank_answers: Whether a blank cell is an answer, as of a picture that has none of the labels.
        separator: Between the items of a Parquet table's lists, as they come out.

    Returns:
        The pictures in the order of the rows.

    Raises:
        UserError: If the table cannot be read, lacks a column, has a cell that cannot be used, or names pictures that
            do not exist.
    """
    parquet = table.suffix.lower() == ".parquet"
    names, rows = _read_parquet(table, separator) if parquet else _read_csv(table)
    if not rows:
        raise UserError(f"data.source {table} is empty; a header and one row per picture are expected")
    wanted = [("image_column", columns.image), *(("label_column", name) for name in columns.labels)]
    used = {}
    for role in ("split", "group", "weight", "time"):
        asked = getattr(columns, role)
        wanted += [(f"{role}_column", asked)] if asked is not None else []
        column = asked if asked is not None else USUAL.get(role)
        # A column that holds the answer is no split, group or weight for its name alone.
        used[role] = column if column in names and (asked or column not in columns.labels) else None
    for setting, column in wanted:
        if column not in names:
            raise UserError(
                f"{table} has no column {column!r} (data.{setting}); its columns are {', '.join(names)}"
                + nearest(column, names)
            )

    def cells(column: str | None, *, blank: bool = False) -> list[str] | None:
        return None if column is None else [_cell(row, column, line, table, blank=blank) for line, row in rows]

    def values(role: str, convert: Callable[[str], float], expected: str) -> list[float] | None:
        column = used[role]
        texts = cells(column)
        if texts is None:
            return None
        return [_converted(text, convert, f"row {line} of {table}: {column} is {text!r}; {expected}")
                for (line, _), text in zip(rows, texts, strict=True)]  # fmt: skip

    split = cells(used["split"])
    for (line, _), name in zip(rows, split or [], strict=False):
        if name not in SPLITS:
            raise UserError(
                f"row {line} of {table}: split is {name!r}; it must be train, val or test" + nearest(name, SPLITS)
            )
    paths = [table.parent / cell for cell in cells(columns.image) or []]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of the {len(paths)} pictures in {table} do not exist: {name_some(missing)}")
    return Listing(
        source=str(table),
        paths=paths,
        answers={name: cells(name, blank=blank_answers) or [] for name in columns.labels},
        place=lambda index: f"row {rows[index][0]} of {table}",
        split=split,
        groups=cells(used["group"]),
        weights=values("weight", _weight, "it must be a number above 0"),
        times=values("time", _time, "it must be a number, or a date such as 2024-05-31 or 2024-05-31T12:00"),
    )


Rows = list[tuple[int, dict[str, str | None]]]
"""Each row with its line in the file; the header of a CSV table is line 1."""


def _read_csv(table: Path) -> tuple[list[str], Rows]:
    if not table.is_file():
        raise UserError(f"data.source {table}: there is no such table")
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"data.source {table} cannot be read as a UTF-8 CSV table: {error}") from error
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{table} has two columns {twice[0]!r}; rename one")
    for line, row in rows:
        if None in row:  # DictReader's key for what is left over
            raise UserError(
                f"row {line} of {table} has more cells than the header has columns; put text with commas into quotes"
            )
    return names, rows


def _read_parquet(table: Path, separator: str) -> tuple[list[str], Rows]:
    if not table.is_file():
        raise UserError(f"data.source {table}: there is no such table")
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"data.source {table} is a Parquet table, which needs a package: pip install 'tl_lightning[tables]'"
        ) from error
    try:
        content = parquet.read_table(table)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"data.source {table} cannot be read as a Parquet table: {' '.join(str(error).split())}"
        ) from error
    columns = {name: content[name].to_pylist() for name in content.column_names}
    rows = [(number + 1, {name: _text(cells[number], separator) for name, cells in columns.items()})
            for number in range(content.num_rows)]  # fmt: skip
    return list(columns), rows


def _text(value: Any, separator: str) -> str | None:  # noqa: ANN401 - whatever a table may hold
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return separator.join(str(part) for part in value)
    return None if value is None else str(value)


def _cell(row: dict[str, str | None], column: str, line: int, table: Path, *, blank: bool) -> str:
    value = (row[column] or "").strip()
    if not value and not blank:
        raise UserError(f"row {line} of {table}: the column {column!r} is empty")
    return value


def _converted(text: str, convert: Callable[[str], float], message: str) -> float:
    try:
        return convert(text)
    except ValueError as error:
        raise UserError(message) from error


def _weight(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _time(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        date = datetime.fromisoformat(text)
        # Without a zone of its own it must not depend on this machine's.
        value = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if value != value:
        raise ValueError
    return value
