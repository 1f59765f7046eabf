"""Tar archives, read in place by an index of where each member begins."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tl_lightning.core.cache_folder import KEY_LENGTH, building, cache_dir, discard, hold, writing
from tl_lightning.core.cache_room import NoRoom, make_room
from tl_lightning.core.console import console
from tl_lightning.data.archives.members import Member, Members, is_absurd, tidy
from tl_lightning.errors import UserError, shown

BLOCK, PIECE = 512, 1 << 20
COMPRESSED: dict[bytes, Callable[..., gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
PLAIN = "plain.tar"


def open_tar(path: Path) -> Members:
    """Goes through the headers of a tar archive once; its members are read from where they begin.

    A compressed one is unpacked into the cache first, as one file.

    Raises:
        UserError: If it is cut off, damaged or cannot be unpacked.
    """
    with path.open("rb") as file:
        compressed = file.read(6).startswith(tuple(COMPRESSED))
    if not compressed:
        return _index(path, path)
    plain, held = _unpacked(path)
    return _Held(_index(path, plain), held)


class _Held(Members):
    """Members whose cache entry nobody removes while they are in use."""

    def __init__(self, members: Members, held: object) -> None:
        super().__init__(members.path, members.files)
        self._held = held


def _index(path: Path, plain: Path) -> Members:
    infos: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(plain, "r:") as archive:
            for info in archive:
                if not info.isdir():
                    if info.name in infos:
                        raise UserError(f"{path} holds two files {shown(info.name)!r}: remove one")
                    infos[info.name] = info
            end = archive.offset
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise _damaged(path, error) from error
    with plain.open("rb") as file:  # without its end mark, members after the cut are missing that nobody would miss
        file.seek(end)
        if file.read(BLOCK) != b"\0" * BLOCK:
            raise _damaged(path, "it does not end as tar archives do")
    members = {}
    for name, whole in tidy(path, infos).items():
        if (found := _followed(infos, name)) is not None:
            members[whole] = Member(found.size, partial(_read, plain, found.offset_data, found.size))
    return Members(path, members)


def _followed(infos: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo | None:
    """Where the content of a name lies, links followed; `None` for what is no file, or leads out."""
    for _ in range(8):
        info = infos.get(name)
        if info is None or (info.isreg() and not info.issparse()):
            return info
        if info.islnk():
            name = info.linkname
        elif info.issym():
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname))
        else:
            return None
    return None


def _read(plain: Path, start: int, size: int) -> bytes:
    # Opened each time: threads and processes that were forked share the place in an open file.
    with plain.open("rb") as file:
        file.seek(start)
        content = file.read(size)
    if len(content) < size:
        raise EOFError("cut off: the archive has changed")
    return content


def _damaged(path: Path, reason: object) -> UserError:
    text = " ".join(str(reason).split())
    return UserError(f"{path} is a damaged or cut off tar archive ({text}): download or write it again")


def _unpacked(path: Path) -> tuple[Path, object]:
    """The archive without its compression, in the cache."""
    status = path.stat()
    key = repr(("tar", os.path.abspath(path), status.st_size, status.st_mtime_ns))
    parent = cache_dir().absolute() / "images"
    folder = parent / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:KEY_LENGTH]
    held = hold(folder)
    plain = folder / PLAIN
    try:
        if not plain.is_file():
            with building(folder, on_wait=lambda: console.print(f"waiting for another process that unpacks {path}")):
                if not plain.is_file():
                    discard(folder)
                    _unpack(path, folder, status.st_size)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(
            f"{path} cannot be unpacked into {parent}: {reason}; make room there, or set TL_CACHE_DIR to another folder"
        ) from error
    return plain, held


def _unpack(path: Path, folder: Path, size: int) -> None:
    with suppress(NoRoom):  # about so much: images hardly get smaller
        make_room(2 * size, all_or_nothing=False)
    with writing(folder) as unfinished:
        written = 0
        try:
            with (unfinished / PLAIN).open("wb") as file:
                for piece in _pieces(path):
                    written += file.write(piece)
                    if is_absurd(written, packed=size):
                        raise UserError(
                            f"{path}: its {size:,} bytes would become more than {written:,}: do not trust it; "
                            "unpack and look at it first"
                        )
        except (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _damaged(path, error) from error
        about: dict[str, Any] = {"source": str(path), "view": "unpacked tar archive", "rows": 1, "done": 1}
        (unfinished / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        start = file.read(6)
    unpacking = next(how for magic, how in COMPRESSED.items() if start.startswith(magic))
    with unpacking(path) as file:
        while piece := file.read(PIECE):
            yield piece
