"""A CSV or Parquet table that names images and their targets."""

import csv
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from tl_lightning.data.archives.files import is_file, open_file
from tl_lightning.data.listing import Listing
from tl_lightning.data.sources.columns import Columns, Table, list_table
from tl_lightning.data.sources.parquet import read_parquet
from tl_lightning.errors import UserError


def read_table(*paths: Path, columns: Columns, blank_targets: bool = False, separator: str = "|") -> Listing:
    """Lists the images that a table names.

    Args:
        *paths: The file: CSV in UTF-8 with commas and a header, or Parquet, also several. Images are absolute, relative
            to its folder or below ``~/``; those of a Parquet table may lie in a column.
        columns: Which column holds what; see `list_table`.
        blank_targets: Whether the cell of a target may be blank, as for an image that has none of the labels.
        separator: Between the items of a Parquet table's lists, as they come out.

    Returns:
        The images in the order of the rows.

    Raises:
        UserError: If the table cannot be read, or as `list_table` says.
    """
    path, source = paths[0], str(paths[0] if len(paths) == 1 else paths[0].parent)
    if not is_file(path):
        raise UserError(f"data.source {path} is a folder, not a table" if path.is_dir()
                        else f"data.source {path}: there is no such table")  # fmt: skip
    if path.suffix.lower() == ".parquet":
        table, columns = read_parquet(paths, source, columns)
    else:
        table = read_csv(path)
    if not any(table.columns.values()) and not table.paths:
        raise UserError(f"data.source {source} is empty; a header and one row per image are expected")
    return list_table(table, columns, folder=path.parent, blank_targets=blank_targets, separator=separator)


def read_csv(path: Path) -> Table:
    """Reads the cells of a CSV table, all of which are text.

    Args:
        path: The file, also within an archive.

    Raises:
        UserError: If it is no table with a header, or a row differs from that.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with TextIOWrapper(BufferedReader(open_file(path)), newline="", encoding="utf-8-sig") as file:
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
