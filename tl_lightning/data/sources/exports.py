"""Images of other libraries as files, written once into the cache; whatever works on files then works on them."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_lightning.core.cache_folder import KEY_LENGTH, building, cache_dir, discard, hold, writing
from tl_lightning.core.cache_room import NoRoom, make_room
from tl_lightning.core.console import console, track
from tl_lightning.core.locks import Hold
from tl_lightning.data.sources.columns import Table
from tl_lightning.errors import UserError

FORMAT = 2  # Raise it whenever the same source would be exported in another way.
PER_FOLDER = 1000
BEGINNINGS = {  # of files, by the suffix that they get; a suffix is only for people
    b"\x89PNG": ".png",
    b"\xff\xd8": ".jpg",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a library holds of a data set.

    Attributes:
        images: The encoded bytes of each, or a file that stays where it is. Read once, in order.
        total: How many there are.
        columns: Cells by column, as in `Table`; complete once the images have been read.
        classes: The classes of a column in their own order, where it has one; complete likewise.
    """

    images: Iterable[bytes | Path]
    total: int
    columns: dict[str, list[Any]]
    classes: dict[str, list[str]]


class HeldPaths(list[Path]):
    """Files in the cache that nobody removes while this list lives; a pickled copy holds nothing."""

    def __init__(self, paths: Iterable[Path], held: Hold) -> None:
        super().__init__(paths)
        self._hold = held


def open_export(source: str, key: Iterable[str], read: Callable[[], Content]) -> Table:
    """Opens the files of a data set, and writes them first where that has not been done.

    An export is the folder ``<cache>/images/<key>/`` with ``listing.json`` (names of the files, columns, classes),
    ``about.json`` (for people) and the files in sub-folders of 1,000. A file's time is made of its content: written
    again it is the same to the store of decoded images, and with another content it is not. Of several processes one
    writes; an export that is interrupted leaves nothing.

    Args:
        source: Name of the data set, for messages.
        key: Whatever the content depends on.
        read: Gives the content; called only where something has to be written.

    Returns:
        The table of the images, which are held in the cache as long as its paths live.

    Raises:
        UserError: If the cache folder cannot be written; whatever `read` raises.
    """
    parent = cache_dir().absolute() / "images"
    folder = parent / hashlib.sha256(repr((FORMAT, *key)).encode(errors="surrogateescape")).hexdigest()[:KEY_LENGTH]
    held = hold(folder)
    listing = _read(folder)
    try:
        if listing is None:
            with building(folder, on_wait=lambda: console.print(f"waiting for another process that exports {source}")):
                if (listing := _read(folder)) is None:
                    discard(folder)
                    _write(folder, source, read())
                    listing = _read(folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"the images of {source} cannot be written to {parent}: {reason}; "
            "make room there, or set TL_CACHE_DIR to another folder"
        ) from error
    if listing is None:
        raise UserError(f"the images of {source} vanished from {folder} while they were written; try again")
    return Table(
        name=source,
        columns=listing["columns"],
        place=lambda index: f"image {index} of {source}",
        paths=HeldPaths(map(Path, listing["files"]), held),
        classes=listing["classes"],
    )


def _read(folder: Path) -> dict[str, Any] | None:
    """The listing, with whole paths; `None` where there is none, or where a file is gone."""
    try:
        listing: dict[str, Any] = json.loads((folder / "listing.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    listing["files"] = [os.path.join(folder, name) for name in listing["files"]]
    return listing if all(map(os.path.isfile, listing["files"])) else None


def _write(folder: Path, source: str, content: Content) -> None:
    files = []
    with writing(folder) as unfinished:
        for index, image in enumerate(track(content.images, f"exporting {source}", total=content.total)):
            if isinstance(image, Path):
                files.append(os.path.abspath(image))
                continue
            if index == 0:
                with suppress(NoRoom):  # about so much; the images are needed, so this only makes others go
                    make_room(max(4096, len(image)) * content.total, all_or_nothing=False)
            suffix = next((suffix for start, suffix in BEGINNINGS.items() if image.startswith(start)), ".bin")
            name = f"{index // PER_FOLDER:05}/{index:08}{suffix}"
            path = unfinished / name
            if index % PER_FOLDER == 0 or not path.parent.is_dir():
                path.parent.mkdir(exist_ok=True)
            path.write_bytes(image)
            stamp = zlib.crc32(image) >> 1  # seconds that a signed 32-bit time can hold
            os.utime(path, (stamp, stamp))
            files.append(name)
        about = {"source": source, "view": "exported files", "rows": content.total, "done": len(files)}
        listing = {"files": files, "columns": content.columns, "classes": content.classes}
        (unfinished / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        (unfinished / "listing.json").write_text(json.dumps(listing, default=str), encoding="utf-8")
        os.sync()  # all at once: waiting for the disk file by file takes minutes
