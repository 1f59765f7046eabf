"""Files by their path, whether they lie on the disk or within an archive; see `tl_lightning.data.archives`."""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tl_lightning.data.archives.members import Member, Members
from tl_lightning.data.archives.parquet import open_parquet
from tl_lightning.data.archives.tar import COMPRESSED, open_tar
from tl_lightning.data.archives.zip import open_zip

ZIP, PARQUET, TAR, TAR_AT = (b"PK\3\4", b"PK\5\6"), b"PAR1", b"ustar", 257

_opened: dict[tuple[str, int], tuple[tuple[int, int], Members]] = {}
_lock = Lock()


@dataclass(frozen=True)
class State:
    """What tells one content of a file from another without reading it.

    Attributes:
        size: In bytes; `None` for what has to be read for that.
        time: When it, or the archive that it lies in, was written, in nanoseconds.
        readable: Whether there is permission to read it.
    """

    size: int | None
    time: int
    readable: bool


def open_file(path: Path) -> io.FileIO | io.BytesIO:
    """Opens a file for reading.

    Raises:
        OSError: As `open` does, also where the archive has no such member; without a number where that is damaged.
    """
    member = _member(path)
    if member is None:
        return io.FileIO(path)
    try:
        content = io.BytesIO(member.read())
    except (OSError, MemoryError):
        raise
    except Exception as error:  # libraries raise whatever a damaged archive leads them to
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
    content.name = str(path)
    return content


def state_of(path: Path) -> State:
    """What is known of a file without reading it.

    Raises:
        OSError: If there is none.
    """
    member = _member(path)
    if member is None:
        status = path.stat()
        return State(status.st_size, status.st_mtime_ns, os.access(path, os.R_OK))
    archive, _ = _parted(path)
    return State(member.size, os.stat(archive).st_mtime_ns, os.access(archive, os.R_OK))


def is_file(path: Path | str) -> bool:
    """Whether there is a regular file, or a member of that name."""
    if os.path.isfile(path):
        return True
    try:
        return _member(Path(path)) is not None
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder, on the disk or in an archive; an archive is one itself."""
    return path.is_dir() or _folder_in(path) is not None


def entries(path: Path) -> list[Path]:
    """What lies in a folder, on the disk or in an archive.

    Raises:
        OSError: If it is none.
    """
    found = _folder_in(path)
    if found is None:
        return list(path.iterdir())
    members, name = found
    return [path / each for each in members.folders[name]]


def folders_of(path: Path) -> list[Path]:
    """The folders among `entries`; an archive that lies in a folder is none.

    Raises:
        OSError: If it cannot be listed.
    """
    found = _folder_in(path)
    if found is None:
        with os.scandir(path) as inside:  # which knows the kind of most without asking again
            return [path / entry.name for entry in inside if _is_folder(entry)]
    members, top = found
    inner = {name: f"{top}/{name}" if top else name for name in members.folders[top]}
    return [path / name for name, whole in inner.items() if whole in members.folders]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere, or round in a circle
        return False


def walk(path: Path, onerror: Callable[[OSError], object]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Goes through a folder as `os.walk` does, on the disk or in an archive.

    Args:
        path: The folder.
        onerror: Called where a folder cannot be listed.

    Yields:
        The path of a folder, the names of those in it, which the caller may take out of the list, and of its files.
    """
    found = _folder_in(path)
    if found is None:
        yield from os.walk(path, onerror=onerror)
        return
    members, top = found
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        inside = {name: f"{folder}/{name}" if folder else name for name in members.folders[folder]}
        folders = [name for name, whole in inside.items() if whole in members.folders]
        files = [name for name, whole in inside.items() if whole not in members.folders]
        yield os.path.join(members.path, folder) if folder else str(members.path), folders, files
        waiting += [inside[name] for name in folders]


def archive_at(path: Path) -> Members | None:
    """Opens the archive at a path; `None` where no file is, or one of another kind.

    Raises:
        UserError: If it is damaged, or cannot be trusted.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    place, version = (os.path.abspath(path), os.getpid()), (status.st_size, status.st_mtime_ns)
    with _lock:
        if place not in _opened or _opened[place][0] != version:
            members = _open(path)
            if members is None:
                return None
            _opened[place] = version, members
        return _opened[place][1]


def _open(path: Path) -> Members | None:
    if path.name.lower().endswith(".nii.gz"):  # one packed volume, which begins as a packed tar archive does
        return None
    with path.open("rb") as file:
        start = file.read(TAR_AT + len(TAR))
    if start.startswith(ZIP):
        return open_zip(path)
    if start.startswith(PARQUET):
        return open_parquet(path)
    if start[TAR_AT:] == TAR or start.startswith(tuple(COMPRESSED)):
        return open_tar(path)
    return None


def _parted(path: Path) -> tuple[Path, str]:
    """The file that a path leads into, and the rest of the path.

    Raises:
        OSError: If there is none.
    """
    for parent in path.parents:
        if parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _member(path: Path) -> Member | None:
    """The member that a path names; `None` where it is a file, or whatever else, on the disk."""
    try:
        os.stat(path)
        return None
    except (NotADirectoryError, FileNotFoundError):
        archive, name = _parted(path)
    members = archive_at(archive)
    found = None if members is None else members.member(name)
    if found is not None:
        return found
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _folder_in(path: Path) -> tuple[Members, str] | None:
    """The archive and the name of a folder in it; `None` where there is no such thing."""
    if path.is_file():
        members, name = archive_at(path), ""
    elif os.path.lexists(path):  # a folder on the disk, or whatever else
        return None
    else:
        try:
            archive, name = _parted(path)
        except FileNotFoundError:
            return None
        members = archive_at(archive)
    return (members, name) if members is not None and name in members.folders else None
