"""Files that are there whole or not at all: written under a temporary name, put on the disk, then renamed."""

import csv
import io
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Gives a temporary name beside a file; what was written there takes the file's place at the end.

    After an error the file is what it was. Neither name is ever shared: machines that write to one folder may have the
    same process numbers, hence a random part.

    Args:
        path: The file, replaced where it exists; its folder does.
        keep: Where the file that it replaces goes.

    Yields:
        Where to write.

    Raises:
        OSError: If it cannot be written or renamed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Args:
        path: The file, replaced where it exists.
        text: What to write; the names of files in it may be any bytes, as `os.fsdecode` makes them.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Writes a table as CSV, whole or not at all.

    Args:
        path: The file, replaced where it exists.
        rows: The names of the columns, then the rows; `None` becomes an empty cell.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
