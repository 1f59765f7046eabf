"""Files that are there whole or not at all: written under a temporary name, put on the disk, then renamed.

A link stays a link: what it leads to is replaced. A device, a pipe or ``/dev/stdout`` is no file to be replaced: it is
written into.
"""

import csv
import errno
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tl_lightning.errors import UserError, shown

MOST_NAMES = 100_000
_OPEN_FILE = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)")


def user_path(path: str | Path) -> Path:
    """The path that a person means: ``~`` and ``~name`` at its beginning are home folders; ``./~`` is no such."""
    meant = Path(os.path.expanduser(path))
    # Asked again, a folder that is really called ~ would be another.
    return meant.absolute() if str(meant).startswith("~") else meant


def read_text(path: str | Path) -> str:
    """Reads a text file that a person has named.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read, or is no text in UTF-8.
    """
    try:
        return user_path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)} is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a name with a null byte
        raise UserError(f"{shown(path)} cannot be read: {error}") from error


def open_file_of(path: Path) -> int | None:
    """The number of the open file of this process that a path such as ``/dev/stdout`` or ``/dev/fd/1`` names."""
    name = os.path.abspath(path)
    for _ in range(40):  # links
        if found := _OPEN_FILE.fullmatch(name):
            return int(found[1])
        if not os.path.islink(name):
            break
        name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(name)))
    return None


def is_written_into(path: Path) -> bool:
    """Whether a path names something that cannot be replaced by a file: a device, a pipe, an open file.

    Args:
        path: What need not exist.

    Raises:
        OSError: If links lead in a circle, or a folder on the way cannot be looked into.
    """
    if open_file_of(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Gives a temporary name; what was written there takes the file's place at the end.

    After an error the file is what it was. The name is never shared: machines that write to one folder may have the
    same process numbers, hence a random part.

    Args:
        path: The file, replaced where it exists; its folder does. A link is followed, and its target is replaced. What
            is no regular file, such as a pipe, gets the content at the end.
        keep: Where the file that it replaces goes.

    Yields:
        Where to write.

    Raises:
        OSError: If it cannot be written or renamed; its ``filename`` is the file's.
    """
    try:
        if is_written_into(path):
            with tempfile.TemporaryDirectory() as folder:
                made = Path(folder, "content")
                yield made
                with made.open("rb") as content, _opened(path) as file:
                    shutil.copyfileobj(content, file)
            return
        path = Path(os.path.realpath(path))
        temporary = _beside(path)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            with suppress(OSError):  # there was none, or its owner is another
                shutil.copymode(path, temporary)
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(".tmp")):
            error.filename = str(path)  # a full disk says none
        raise


def _opened(path: Path) -> BinaryIO:
    number = open_file_of(path)
    # A copy writes on where the process has written so far; opened by name, a file would be begun anew.
    return path.open("wb") if number is None else os.fdopen(os.dup(number), "wb")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")  # long names have an end, too


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
