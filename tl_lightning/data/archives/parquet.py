"""Parquet files whose rows hold encoded images; a group of rows is read at once, and the last few stay in memory."""

from bisect import bisect_right
from collections import OrderedDict
from functools import partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from tl_lightning.data.archives.members import Member, Members
from tl_lightning.errors import UserError

GROUPS = 2  # in memory at a time: readers are threads that go forward, some of which are still at the group before


def open_parquet(path: Path) -> "Rows":
    """Offers the images in the rows of a Parquet file, each as ``ROW.COLUMN``, rows counted from 0.

    Raises:
        UserError: If a package is missing, or the file is damaged.
    """
    return Rows(path, parquet_file(path))


def parquet_file(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Opens a Parquet file.

    Raises:
        UserError: If pyarrow is missing, or the file is damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"data.source {path} is a Parquet table, which needs a package: pip install 'tl_lightning[tables]'"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"data.source {path} cannot be read as a Parquet table: {' '.join(str(error).split())}"
        ) from error


def image_columns(schema: Any) -> list[str]:  # noqa: ANN401 - an Arrow schema
    """The columns that hold encoded images: bytes, or what the Hugging Face library makes of an image."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:  # noqa: ANN401 - an Arrow type
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    def holds(kind: Any) -> bool:  # noqa: ANN401 - an Arrow type
        return is_bytes(kind) or (types.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind))

    return [column.name for column in schema if holds(column.type)]


class Rows(Members):
    """The images in the rows of a Parquet file.

    Attributes:
        columns: Those that hold images.
    """

    def __init__(self, path: Path, file: Any) -> None:  # noqa: ANN401 - a ParquetFile
        self._file = file
        self.columns = image_columns(file.schema_arrow)
        self._ends = list(accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)))
        super().__init__(path, {})

    def of_column(self, column: str) -> list[str]:
        """The names of all images of a column."""
        return [f"{row}.{column}" for row in range(self._ends[-1] if self._ends else 0)]

    def member(self, name: str) -> Member | None:
        """Made when it is asked for: one for each of millions of rows would take long."""
        number, _, column = name.partition(".")
        row = int(number) if number.isascii() and number.isdigit() else -1
        if column not in self.columns or not 0 <= row < (self._ends[-1] if self._ends else 0):
            return None
        group = bisect_right(self._ends, row)
        start = self._ends[group - 1] if group else 0
        return Member(None, partial(self._read, group, column, row - start))

    def _read(self, group: int, column: str, row: int) -> bytes:
        cell = _cells(self._file, group, column)[row].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        return content or b""  # an empty file, which is a broken image like others


_read_groups: OrderedDict[tuple[Any, int, str], Any] = OrderedDict()
_lock = Lock()


def _cells(file: Any, group: int, column: str) -> Any:  # noqa: ANN401 - Arrow's
    """A column of a group of rows; of all files together the last few are held."""
    key = (file, group, column)
    with _lock:
        if key not in _read_groups:
            nested = hasattr(file.schema_arrow.field(column).type, "fields")
            _read_groups[key] = file.read_row_group(group, columns=[f"{column}.bytes" if nested else column])[0]
            while len(_read_groups) > GROUPS:
                _read_groups.popitem(last=False)
        _read_groups.move_to_end(key)
        return _read_groups[key]
