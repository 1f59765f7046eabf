"""Parquet tables, of one file or several: their images are named by a column, or lie in it."""

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from tl_lightning.data.archives.parquet import image_columns, parquet_file
from tl_lightning.data.sources.columns import USUAL, Columns, Table
from tl_lightning.data.sources.several import stated_splits
from tl_lightning.errors import UserError, nearest


def read_parquet(paths: Sequence[Path], source: str, columns: Columns) -> tuple[Table, Columns]:
    """Reads the columns that say something of the images; encoded images in a column stay where they are.

    Args:
        paths: The files.
        source: What messages call them.
        columns: Which column holds what. Where nobody chose, the only column of images is taken, and for the target
            the only one that has classes.

    Returns:
        The table, classes by their names as the Hugging Face library notes them, with a column ``split`` where the
        names of several files state one; and the columns to read.

    Raises:
        UserError: If a package is missing, a file cannot be read, or files differ in the columns that are used.
    """
    splits = stated_splits(paths, source)
    files = [parquet_file(path) for path in paths]
    first = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        if twice := [name for name in file.schema_arrow.names if file.schema_arrow.names.count(name) > 1]:
            raise UserError(f"{path} has two columns {twice[0]!r}; rename one")
    columns, inside = _chosen(source, columns, first)
    known = _class_names(first)
    if columns.label == "label" and "label" not in first.names and len(known) == 1:
        columns = replace(columns, label=next(iter(known)))
    asked = (columns.split, columns.group, columns.domain, columns.weight, columns.time)
    used = {*columns.labels, *asked, *USUAL} | (set() if inside else {columns.image})
    cells: dict[str, list[Any]] = {name: [] for name in first.names}
    images: list[Path] = []
    counts = [file.metadata.num_rows for file in files]
    starts = [0, *accumulate(counts)]
    for path, file, count in zip(paths, files, counts, strict=True):
        if lacking := [name for name in first.names if name in used and name not in file.schema_arrow.names]:
            raise UserError(f"{path} has no column {lacking[0]!r}, which {paths[0]} has: they are not of one data set")
        if inside and columns.image not in image_columns(file.schema_arrow):
            raise UserError(f"{path} has no images in a column {columns.image!r}, as {paths[0]} has")
        found = _read(path, file, used)
        for name in first.names:
            cells[name] += found.get(name, [None] * count)
        if inside:
            images += [path / f"{row}.{columns.image}" for row in range(count)]
        elif len(paths) > 1 and columns.image in found:
            last = slice(len(cells[columns.image]) - count, None)
            cells[columns.image][last] = [_from(path.parent, cell) for cell in cells[columns.image][last]]
    if splits is not None and "split" not in first.names and columns.split is None:
        cells["split"] = [split for split, count in zip(splits, counts, strict=True) for _ in range(count)]
    table = Table(
        name=source,
        columns={name: _named(column, known.get(name)) for name, column in cells.items()},
        place=_place(paths, starts),
        paths=images if inside else None,
        classes=known,
    )
    return table, columns


def _chosen(source: str, columns: Columns, schema: Any) -> tuple[Columns, bool]:  # noqa: ANN401 - an Arrow schema
    """The columns with that of the images, and whether images lie in it."""
    found = image_columns(schema)
    if columns.image in schema.names or not found:
        return columns, columns.image in found
    if columns.image != "image":
        return columns, False  # which the table says with its nearest names
    if len(found) > 1:
        raise UserError(
            f"data.source {source} has several columns of images ({', '.join(found)}); choose one as "
            f"data.image_column, which is {columns.image!r}" + nearest(columns.image, found)
        )
    return replace(columns, image=found[0]), True


def _read(path: Path, file: Any, used: Container[str | None]) -> dict[str, list[Any]]:  # noqa: ANN401 - a ParquetFile
    """Only columns that are used are read: others may hold what Python cannot, such as dates after 9999."""
    import pyarrow

    def cells(column: Any) -> list[Any]:  # noqa: ANN401 - an Arrow column; the package has no types
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":  # pandas' own, unknown to datetime
            column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
        values: list[Any] = column.to_pylist()
        return values

    try:
        content = file.read(columns=[name for name in file.schema_arrow.names if name in used])
        return {name: cells(content[name]) for name in content.column_names}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"data.source {path} cannot be read as a Parquet table: {' '.join(str(error).split())}"
        ) from error


def _from(folder: Path, cell: object) -> object:
    return os.path.join(folder, cell) if isinstance(cell, str) and not cell.startswith("~/") else cell


def _class_names(schema: Any) -> dict[str, list[str]]:  # noqa: ANN401 - an Arrow schema
    """The classes by column, as the Hugging Face library notes them beside the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        inner = {
            name: feature[0] if isinstance(feature, list) else feature.get("feature", feature)
            for name, feature in features.items()
        }
        return {name: each["names"] for name, each in inner.items() if each.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return {}


def _named(cells: list[Any], names: list[str] | None) -> list[Any]:
    """Classes by their names; the hub's -1 is no class, hence blank."""
    if names is None:
        return cells

    def name(number: Any) -> Any:  # noqa: ANN401 - a cell
        if not isinstance(number, int):
            return number
        return names[number] if 0 <= number < len(names) else None

    return [[name(each) for each in cell] if isinstance(cell, list) else name(cell) for cell in cells]


def _place(paths: Sequence[Path], starts: Sequence[int]) -> Callable[[int], str]:
    def place(index: int) -> str:
        number = bisect_right(starts, index) - 1
        return f"row {index - starts[number] + 1} of {paths[number]}"

    return place
