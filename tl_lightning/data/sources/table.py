"""A CSV or Parquet table that names images and their targets."""

import csv
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from tl_lightning.data.listing import Listing
from tl_lightning.data.sources.columns import USUAL, Columns, Table, list_table
from tl_lightning.errors import UserError

SUFFIXES = (".csv", ".parquet")


def read_table(path: Path, *, columns: Columns, blank_targets: bool = False, separator: str = "|") -> Listing:
    """Lists the images that a table names.

    Args:
        path: The file: CSV in UTF-8 with commas and a header, or Parquet. Images are absolute, relative to its folder
            or below ``~/``.
        columns: Which column holds what; see `list_table`.
        blank_targets: Whether the cell of a target may be blank, as for an image that has none of the labels.
        separator: Between the items of a Parquet table's lists, as they come out.

    Returns:
        The images in the order of the rows.

    Raises:
        UserError: If the table cannot be read, or as `list_table` says.
    """
    if not path.is_file():
        raise UserError(f"data.source {path} is a folder, not a table" if path.is_dir()
                        else f"data.source {path}: there is no such table")  # fmt: skip
    used = {
        columns.image,
        *columns.labels,
        columns.split,
        columns.group,
        columns.domain,
        columns.weight,
        columns.time,
        *USUAL,
    }
    table = _read_parquet(path, used) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not any(table.columns.values()):
        raise UserError(f"data.source {path} is empty; a header and one row per image are expected")
    return list_table(table, columns, folder=path.parent, blank_targets=blank_targets, separator=separator)


def _read_csv(path: Path) -> Table:
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            # strict: else a quote that is never closed swallows all rows after it without a word.
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            numbered = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f"data.source {path} cannot be read as a UTF-8 CSV table: {error}; save it as UTF-8") from error
    except (csv.Error, OSError) as error:
        raise UserError(f"data.source {path} cannot be read as a UTF-8 CSV table: {error}") from error
    if twice := [name for name in header if header.count(name) > 1]:
        raise UserError(f"{path} has two columns {twice[0]!r}; rename one")
    if len(header) == 1 and (other := [mark for mark in ";\t" if mark in header[0]]):
        name = {";": "semicolons", "\t": "tabs"}[other[0]]
        raise UserError(f"{path} is separated by {name}; commas are expected")
    for line, row in numbered:
        if len(row) != len(header):
            what = "more cells than the header has columns; put text with commas into quotes"
            raise UserError(
                f"row {line} of {path} has {what if len(row) > len(header) else 'fewer cells than the header'}"
            )
        if any("\0" in cell for cell in row):
            raise UserError(f"row {line} of {path} holds NUL bytes, which are no text; save the table as UTF-8")
    return Table(
        name=str(path),
        columns={name: [row[number] for _, row in numbered] for number, name in enumerate(header)},
        place=lambda index: f"row {numbered[index][0]} of {path}",
    )


def _read_parquet(path: Path, used: Container[str | None]) -> Table:
    """Only columns that are used are converted: others may hold what Python cannot, such as dates after 9999."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"data.source {path} is a Parquet table, which needs a package: pip install 'tl_lightning[tables]'"
        ) from error

    def cells(column: Any) -> list[Any]:  # noqa: ANN401 - an Arrow column; the package has no types
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":  # pandas' own, unknown to datetime
            column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
        values: list[Any] = column.to_pylist()
        return values

    try:
        content = parquet.ParquetFile(path).read()
        if twice := [name for name in content.column_names if content.column_names.count(name) > 1]:
            raise UserError(f"{path} has two columns {twice[0]!r}; rename one")
        columns: dict[str, Sequence[Any]] = {
            name: cells(content[name]) if name in used else [None] * len(content) for name in content.column_names
        }
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"data.source {path} cannot be read as a Parquet table: {' '.join(str(error).split())}"
        ) from error
    return Table(name=str(path), columns=columns, place=lambda index: f"row {index + 1} of {path}")
