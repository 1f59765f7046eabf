"""Pictures decoded once: their resized pixels lie in one memory-mapped file that every later epoch and run reads."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.console import track
from tl_lightning.data.pictures import BrokenPicture, read_picture, resize
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess

FORMAT = 1  # Raise it whenever the same file would be stored as other pixels.


class PictureStore:
    """The resized ``uint8`` pixels of a list of pictures, each in its own shape, grey kept as one channel.

    On disk a store is the folder ``<cache>/pictures/<key>/`` with ``pixels.bin`` (height x width x channels bytes, one
    picture after another), ``index.npz`` (offsets and shapes) and ``broken.json`` (reasons by path). The key covers
    paths, sizes and times of the files and whatever changes the stored pixels, so nothing stale is ever read.

    Attributes:
        folder: Where the store lies.
        broken: Why a picture could not be read, by its index.
    """

    def __init__(self, folder: Path, paths: list[Path]) -> None:
        self.folder = folder
        with np.load(folder / "index.npz") as index:
            self._offsets: NDArray[np.int64] = index["offsets"]
            self._shapes: NDArray[np.int64] = index["shapes"]
        reasons: dict[str, str] = json.loads((folder / "broken.json").read_text())
        self.broken = {i: reasons[str(path)] for i, path in enumerate(paths) if str(path) in reasons}
        self._pixels: NDArray[np.uint8] | None = None

    @classmethod
    def open(cls, paths: list[Path], preprocess: Preprocess, *, cache_dir: Path | None = None) -> "PictureStore":
        """Opens the store of these pictures, and makes it first where there is none yet.

        Args:
            paths: The picture files.
            preprocess: Only what comes before the crop matters: resized side, crop mode and interpolation.
            cache_dir: Folder of all caches; by default `default_cache_dir()`.

        Returns:
            The store; see `broken` for what it could not read.

        Raises:
            UserError: If the cache folder cannot be written, as when the disk is full.
        """
        paths = [Path(os.path.abspath(path)) for path in paths]
        parent = (default_cache_dir() if cache_dir is None else cache_dir) / "pictures"
        folder = parent / _key(paths, preprocess)
        if not folder.exists():
            try:
                _write_store(folder, paths, preprocess)
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else error
                raise UserError(
                    f"the cache of decoded pictures cannot be written to {parent}: {reason}; "
                    "make room there, or set TL_CACHE_DIR to another folder"
                ) from error
        return cls(folder, paths)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Tensor:
        """The pixels of one picture: ``uint8`` of shape ``(1 or 3, height, width)``, a copy of its own."""
        height, width, channels = self._shapes[index]
        if not height:
            raise IndexError(f"picture {index} is broken: {self.broken.get(index)}")
        if self._pixels is None:  # Opened late and dropped by __getstate__: each worker process maps the file itself.
            self._pixels = np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")
        start = self._offsets[index]
        # Copied, since torch warns about read-only memory; a writable mapping would count as memory in use.
        pixels = np.array(self._pixels[start : start + height * width * channels])
        return torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def default_cache_dir() -> Path:
    """The folder of all caches: ``TL_CACHE_DIR``, else ``tl_lightning`` under the user's cache folder."""
    if chosen := os.environ.get("TL_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tl_lightning"


def _key(paths: list[Path], preprocess: Preprocess) -> str:
    settings = (FORMAT, preprocess.resized, preprocess.crop_mode, preprocess.interpolation)
    digest = hashlib.sha256(repr(settings).encode())
    for path in paths:
        try:
            status = path.stat()
            # Permission to read belongs to the key: granting it changes neither size nor time.
            state = (status.st_size, status.st_mtime_ns, os.access(path, os.R_OK))
        except OSError:
            state = (-1, -1, False)
        digest.update(f"{path}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _write_store(folder: Path, paths: list[Path], preprocess: Preprocess) -> None:
    """Writes under a temporary name and renames at the end, so that a store is whole or is not there."""
    # Not tempfile.mkdtemp, whose folders nobody else may read: a cache may be shared.
    unfinished = folder.parent / f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}"
    unfinished.mkdir(parents=True)
    try:
        shapes = np.zeros((len(paths), 3), dtype=np.int64)
        broken = {}
        with (unfinished / "pixels.bin").open("wb") as file:
            decoded = track(_decode_in_order(paths, preprocess), "decoding pictures", total=len(paths))
            for index, pixels in enumerate(decoded):
                if isinstance(pixels, str):
                    broken[str(paths[index])] = pixels
                else:
                    shapes[index] = pixels.shape
                    file.write(np.ascontiguousarray(pixels).data)
        offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))[:-1]])
        np.savez(unfinished / "index.npz", offsets=offsets, shapes=shapes)
        (unfinished / "broken.json").write_text(json.dumps(broken, indent=1))
        for path in [*unfinished.iterdir(), unfinished]:
            _flush_to_disk(path)
        try:
            unfinished.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process was first; its store has the same content.
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _decode_in_order(paths: list[Path], preprocess: Preprocess) -> Iterator[NDArray[np.uint8] | str]:
    """Decodes in threads (PIL releases the lock); a bounded number waits, so memory does not grow with the data."""
    threads = os.cpu_count() or 1
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


def _decode(path: Path, preprocess: Preprocess) -> NDArray[np.uint8] | str:
    """The resized pixels, or the reason why there are none."""
    try:
        return resize(read_picture(path), preprocess)
    except BrokenPicture as error:
        return str(error)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
