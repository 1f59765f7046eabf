"""Images decoded once: their resized pixels lie in one memory-mapped file that every later epoch and run reads."""

import hashlib
import json
import os
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.core.cache_folder import KEY_LENGTH, building, cache_dir, discard, hold, writing
from tl_lightning.core.cache_room import NoRoom, make_room
from tl_lightning.core.console import console, track
from tl_lightning.core.locks import Hold
from tl_lightning.data.archives.files import state_of
from tl_lightning.data.images.image_files import NO_SUCH_FILE, quiet_decoders
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.images.preparing import read_resized
from tl_lightning.data.parts import file_of
from tl_lightning.data.workers import usable_cores
from tl_lightning.errors import UserError, shown
from tl_lightning.preprocess.image import ImagePreprocess

FORMAT = 2  # Raise it whenever the same file would be stored as other pixels.


class ImageStore:
    """The resized ``uint8`` pixels of a list of images, each in its own shape, grey kept as one channel.

    On disk a store is the folder ``<cache>/images/<key>/`` with ``pixels.bin`` (height x width x channels bytes, one
    image after another), ``index.npz`` (offsets and shapes), ``broken.json`` (reasons by path) and ``about.json``
    (for people). The key covers paths, sizes and times of the files and whatever changes the stored pixels, so nothing
    stale is ever read.

    Attributes:
        folder: Where the store lies.
        broken: Why an image could not be read, by its index.
    """

    def __init__(self, folder: Path, paths: list[Path], held: Hold) -> None:
        self.folder = folder
        self._hold = held
        with np.load(folder / "index.npz") as index:
            self._offsets: NDArray[np.int64] = index["offsets"]
            self._shapes: NDArray[np.int64] = index["shapes"]
        reasons: dict[str, str] = json.loads((folder / "broken.json").read_text())
        self.broken = {i: reasons[str(path)] for i, path in enumerate(paths) if str(path) in reasons}
        self._pixels: NDArray[np.uint8] | None = None

    @classmethod
    def open(cls, paths: list[Path], preprocess: ImagePreprocess) -> "ImageStore":
        """Opens the store of these images, and makes it first where there is none yet.

        Of several processes one makes it. The images are needed, hence a limit on the cache's size only makes others
        go.

        Args:
            paths: The image files.
            preprocess: Only what comes before the crop matters: resized side, crop mode, interpolation, channels and
                range.

        Returns:
            The store, held until it is collected; see `broken` for what it could not read.

        Raises:
            UserError: If the cache folder cannot be written, as when the disk is full, or ``TL_CACHE_SIZE`` is no size;
                or if the machine cannot read an image now, then no store is left.
        """
        paths = [Path(os.path.abspath(path)) for path in paths]
        parent = cache_dir() / "images"
        folder = parent / _key(paths, preprocess)
        held = hold(folder)
        try:
            if not _is_whole(folder):
                with building(folder, on_wait=_say_waiting):
                    if not _is_whole(folder):
                        discard(folder)
                        _write_store(folder, paths, preprocess)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"the cache of decoded images cannot be written to {parent}: {reason}; "
                "make room there, or set TL_CACHE_DIR to another folder"
            ) from error
        return cls(folder, paths, held)

    @property
    def key(self) -> str:
        """Tells apart lists of files, as they are on the disk, and ways to resize them."""
        return self.folder.name

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Tensor:
        """The pixels of one image: ``uint8`` of shape ``(channels, height, width)``, a copy of its own."""
        height, width, channels = self._shapes[index]
        if not height:
            raise IndexError(f"image {index} is broken: {self.broken.get(index)}")
        if self._pixels is None:  # Opened late and dropped by __getstate__: each worker process maps the file itself.
            self._pixels = np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")
        start = self._offsets[index]
        # Copied, since torch warns about read-only memory; a writable mapping would count as memory in use.
        pixels = np.array(self._pixels[start : start + height * width * channels])
        return torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)

    def sample(self, index: int) -> dict[str, Tensor]:
        """The pixels of one image as the ``image`` of a sample."""
        return {"image": self[index]}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def _say_waiting() -> None:
    console.print("waiting for another process that is decoding the same images")


def _key(paths: list[Path], preprocess: ImagePreprocess) -> str:
    resizing = (preprocess.resized, preprocess.crop_mode, preprocess.interpolation)
    settings = (FORMAT, *resizing, preprocess.channels, preprocess.pixel_range)
    digest = hashlib.sha256(repr(settings).encode())
    for path in paths:
        try:
            found = state_of(file_of(path))
            # Permission to read belongs to the key: granting it changes neither size nor time.
            state = (found.size, found.time, found.readable)
        except OSError:
            state = (-1, -1, False)
        digest.update(f"{path}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:KEY_LENGTH]


def _is_whole(folder: Path) -> bool:
    """Whether nothing is missing, as where a clean-up of old files took some of a store."""
    try:
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            size = int(index["shapes"].prod(axis=1).sum())
        return (folder / "pixels.bin").stat().st_size == size and (folder / "broken.json").is_file()
    except (FileNotFoundError, NotADirectoryError, ValueError, zipfile.BadZipFile, KeyError, EOFError):
        return False


def _write_store(folder: Path, paths: list[Path], preprocess: ImagePreprocess) -> None:
    with suppress(NoRoom):  # about so much; a long image takes more, a grey one less
        make_room(3 * preprocess.resized**2 * len(paths), all_or_nothing=False)
    with writing(folder) as unfinished:
        shapes = np.zeros((len(paths), 3), dtype=np.int64)
        broken = {}
        with quiet_decoders(), (unfinished / "pixels.bin").open("wb") as file:
            decoded = track(_decode_in_order(paths, preprocess), "decoding images", total=len(paths))
            for index, pixels in enumerate(decoded):
                if isinstance(pixels, str):
                    broken[str(paths[index])] = pixels
                else:
                    shapes[index] = pixels.shape
                    file.write(np.ascontiguousarray(pixels).data)
        gone = next((path for path, reason in broken.items() if reason == NO_SUCH_FILE), None)
        if gone and _key(paths, preprocess) != folder.name:  # which says that it was there before
            raise UserError(f"{shown(gone)} went away while the images were being read; try again")
        offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))[:-1]])
        np.savez(unfinished / "index.npz", offsets=offsets, shapes=shapes)
        about = {
            "source": os.fsencode(os.path.commonpath([path.parent for path in paths])).decode(errors="replace"),
            "view": f"{preprocess.resized} pixels, {preprocess.crop_mode}, {preprocess.interpolation}",
            "rows": len(paths),
            "done": len(paths) - len(broken),
        }
        (unfinished / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        (unfinished / "broken.json").write_text(json.dumps(broken, indent=1))


def _decode_in_order(paths: list[Path], preprocess: ImagePreprocess) -> Iterator[NDArray[np.uint8] | str]:
    """Decodes in threads (PIL releases the lock); a bounded number waits, so memory does not grow with the data."""
    threads = usable_cores()
    waiting: deque[Future[NDArray[np.uint8] | str]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for path in paths:
                if len(waiting) == 4 * threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(_decode, path, preprocess))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode(path: Path, preprocess: ImagePreprocess) -> NDArray[np.uint8] | str:
    """The resized pixels, or the reason why there are none."""
    try:
        return read_resized(path, preprocess)
    except BrokenImage as error:
        return str(error)
