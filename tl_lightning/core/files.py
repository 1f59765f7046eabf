"""Files that are there whole or not at all: written under a temporary name, put on the disk, then renamed."""

import csv
import errno
import io
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_NAMES = 100_000


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
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Args:
        path: The file, replaced where it exists.
        text: What to write; the names of files in it may be any bytes, as `os.fsdecode` makes them.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_new(path: Path, text: str) -> bool:
    """Writes a text file whole, where there is none; of several that try at once, one does.

    Args:
        path: The file.
        text: What to write.

    Returns:
        Whether it was written; else there is one, or a link of that name, which is left as it is.
    """
    temporary = _beside(path)
    try:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        try:
            os.link(temporary, path)  # unlike a renaming it replaces nothing
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with suppress(FileExistsError):
                path.touch(exist_ok=False)
                temporary.replace(path)
                return True
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where they are missing.

    Raises:
        OSError: If it cannot be made; its ``strerror`` says which link leads nowhere, or what is no folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        for part in (*reversed(path.parents), path):
            if part.is_symlink() and not part.exists():
                what = f"{part} is a link to {os.readlink(part)}, which is not there"
                raise FileNotFoundError(errno.ENOENT, what, str(path)) from error
            if part.exists() and not part.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{part} is no folder", str(path)) from error
        raise


def numbered(folder: Path, name: str, suffix: str = "") -> Iterator[Path]:
    """Names to try one after the other: ``<folder>/<name>-1``, ``-2`` and so on.

    Args:
        folder: Where.
        name: What they begin with.
        suffix: What they end with.

    Yields:
        Each; in the end an error comes, as a file system may say of every name that it is taken.

    Raises:
        OSError: If none of very many was free.
    """
    for number in range(1, MOST_NAMES + 1):
        yield folder / f"{name}-{number}{suffix}"
    raise FileExistsError(errno.EEXIST, f"{folder} takes no new name: {name}-1 to {name}-{MOST_NAMES} are taken")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Writes a table as CSV, whole or not at all.

    Args:
        path: The file, replaced where it exists.
        rows: The names of the columns, then the rows; `None` becomes an empty cell.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
