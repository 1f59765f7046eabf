"""A CSV table that names pictures and their labels."""

import csv
from pathlib import Path

from tl_lightning.data.samples import SPLITS, Samples, make_samples, name_some
from tl_lightning.errors import UserError, nearest


def read_table(table: Path, *, image_column: str, label_column: str, classes: list[str] | None) -> Samples:
    """Lists the pictures that a CSV table names.

    Args:
        table: The file, UTF-8, with a header. A column ``split`` with train, val or test is used where there is one.
        image_column: Column of the picture's path, absolute or relative to the table's folder.
        label_column: Column of the label.
        classes: Order of the classes; `None` sorts the labels.

    Returns:
        The pictures in the order of the rows.

    Raises:
        UserError: If the table cannot be read, lacks a column, or names pictures that do not exist; see also
            `make_samples`.
    """
    columns, rows = _read_rows(table)
    for setting, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in columns:
            raise UserError(
                f"{table} has no column {column!r} (data.{setting}); its columns are {', '.join(columns)}"
                + nearest(column, columns)
            )
    if "group" in columns and "split" not in columns:
        raise UserError(
            f"{table} has a column 'group', which the split would tear apart; state the split in a column 'split' "
            "(train, val, test), or remove the column"
        )
    labels = [_cell(row, label_column, line, table) for line, row in rows]
    paths = [table.parent / _cell(row, image_column, line, table) for line, row in rows]
    splits = None
    if "split" in columns:
        splits = [_cell(row, "split", line, table) for line, row in rows]
        for (line, _), split in zip(rows, splits, strict=True):
            if split not in SPLITS:
                raise UserError(
                    f"row {line} of {table}: split is {split!r}; it must be train, val or test" + nearest(split, SPLITS)
                )
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of the {len(paths)} pictures in {table} do not exist: {name_some(missing)}")
    return make_samples(
        paths,
        labels,
        classes=classes,
        known=None,
        split=splits,
        place=lambda index: f"row {rows[index][0]} of {table}",
        source=str(table),
    )


def _read_rows(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """The names of the columns, and the rows, each with its line in the file (the header is line 1)."""
    if not table.is_file():
        raise UserError(f"data.source {table}: there is no such table")
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"data.source {table} cannot be read as a UTF-8 CSV table: {error}") from error
    if not rows:
        raise UserError(f"data.source {table} is empty; a header and one row per picture are expected")
    return columns, rows


def _cell(row: dict[str, str | None], column: str, line: int, table: Path) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise UserError(f"row {line} of {table}: the column {column!r} is empty")
    return value
