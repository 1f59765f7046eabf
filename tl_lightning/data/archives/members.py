"""What an archive holds, by name, and the folders that the names make."""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tl_lightning.errors import UserError, shown

MOST_FOLD, SMALL = 200, 1 << 26  # no image is packed as tightly as this, but for small ones of one colour
NO_CONTENT = "__MACOSX"  # what a Mac's archiver adds, at the top


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        size: Of what it reads as, in bytes; `None` where that is not known without reading it.
        read: Reads it; whatever is raised says that it is damaged.
    """

    size: int | None
    read: Callable[[], bytes]


class Members:
    """The files of one archive, read where they lie.

    Args:
        path: The archive.
        members: Its files by name, parts of which stand between slashes.
    """

    def __init__(self, path: Path, members: dict[str, Member]) -> None:
        self.path = path
        self.files = members

    def member(self, name: str) -> Member | None:
        """A file by its name; `None` where there is none."""
        return self.files.get(name)

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """The names within each folder, itself by its whole name; the top is the empty one."""
        found: dict[str, dict[str, None]] = {"": {}}
        for name in self.files:
            parent, _, last = name.rpartition("/")
            while last not in found.setdefault(parent, {}):
                found[parent][last] = None
                if not parent:
                    break
                parent, _, last = parent.rpartition("/")
        return {name: list(inside) for name, inside in found.items()}


def is_absurd(size: int, *, packed: int) -> bool:
    """Whether so few bytes can only become so many to do harm."""
    return size > max(SMALL, MOST_FOLD * packed)


def tidy(path: Path, names: Iterable[str]) -> dict[str, str]:
    """The names of an archive as they are shown, by those that it has.

    Args:
        path: The archive.
        names: Of its files.

    Returns:
        Names without ``./``; what a Mac adds is left out.

    Raises:
        UserError: If a name leads out of the archive, or two are the same.
    """
    found: dict[str, str] = {}
    taken = set()
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise UserError(
                f"{path} names a file outside of itself, {shown(name)!r}: do not trust it; unpack and look at it first"
            )
        if not parts or parts[0] == NO_CONTENT:
            continue
        whole = "/".join(parts)
        if whole in taken:
            raise UserError(f"{path} holds two files {shown(whole)!r}: remove one")
        taken.add(whole)
        found[name] = whole
    return found
