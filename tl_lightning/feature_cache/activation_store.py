"""Activations cached on disk: rows of tensors, one per sample, filled once and read by every later epoch and run."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.core.cache_folder import KEY_LENGTH, building, cache_dir, discard, hold, writing
from tl_lightning.core.cache_room import make_room
from tl_lightning.core.locks import Hold

FORMAT = 1  # Raise it whenever the same activations would be stored as other bytes.

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TensorLayout:
    """How a tensor of one image is stored.

    Attributes:
        shape: Without the batch dimension.
        dtype: torch's name, such as ``bfloat16``.
        channels_last: Whether ``(channels, height, width)`` lies on disk as height, width, channels, and comes back as
            a view of that, which is torch's channels-last format.
    """

    shape: tuple[int, ...]
    dtype: str
    channels_last: bool

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type itself."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


class ActivationStore:
    """Rows of one or several tensors in files, of which each row is either done, and then on the disk, or missing.

    On disk a store is the folder ``<cache>/activations/<key>/`` with ``tensor0.bin``, ``tensor1.bin``, ... (the rows
    one after another, holes where none was written), ``done.bin`` (one byte per row, 1 when it is done),
    ``layout.json`` (everything that decides the content) and ``about.json`` (for people). Several processes may fill
    disjoint rows at the same time, each through a store of its own.

    Attributes:
        folder: Where the store lies.
        layouts: One for each tensor.
        row_bytes: Bytes of one image.
    """

    def __init__(self, folder: Path, rows: int, layouts: Sequence[TensorLayout], held: Hold) -> None:
        self.folder = folder
        self.layouts = tuple(layouts)
        self.row_bytes = sum(layout.row_bytes for layout in layouts)
        self._rows = rows
        self._hold = held
        self._done: NDArray[np.bool_] = np.zeros(rows, dtype=np.bool_)
        self._written: list[Indices] = []
        self._files: list[int] = []
        self._maps: list[NDArray[np.uint8]] = []
        self._look()

    @classmethod
    def open(
        cls, identity: Mapping[str, Any], rows: int, layouts: Sequence[TensorLayout], *, about: Mapping[str, Any]
    ) -> "ActivationStore":
        """Opens the store of these activations, and makes an empty one where there is none or a damaged one.

        Args:
            identity: Plain data that decides the content: weights, preprocessing, images, cut, view, versions.
            rows: How many images the list has, of which only some may ever be stored.
            layouts: One for each tensor.
            about: For people: ``backbone``, ``cut``, ``view`` and ``source`` are shown by ``tl cache list``.

        Returns:
            The store, held until it is collected.

        Raises:
            NoRoom: If it does not fit into the cache.
            OSError: If the cache folder cannot be written.
        """
        if rows < 1 or not all(layout.row_bytes for layout in layouts):
            raise ValueError(f"{rows} rows of {layouts} are nothing to store")
        content = {"format": FORMAT, "rows": rows, "layouts": [asdict(layout) for layout in layouts]}
        text = json.dumps({**content, "identity": identity}, sort_keys=True)
        folder = _folder(identity, rows)
        sizes = _sizes(rows, layouts)
        held = hold(folder)
        if not _is_whole(folder, text, sizes):
            with building(folder):
                if not _is_whole(folder, text, sizes):
                    discard(folder)
                    make_room(sum(sizes.values()))
                    _create(folder, text, sizes, {**about, "rows": rows})
        return cls(folder, rows, layouts, held)

    @staticmethod
    def known_layouts(identity: Mapping[str, Any], rows: int) -> list[TensorLayout] | None:
        """How the tensors of a store are laid out, where there is one, so that the model need not be asked.

        Args:
            identity: The plain data that decides the content, as for `open`.
            rows: How many samples the list has, as for `open`.
        """
        try:
            stored = json.loads((_folder(identity, rows) / "layout.json").read_text(encoding="utf-8"))["layouts"]
            return [TensorLayout(tuple(each["shape"]), each["dtype"], each["channels_last"]) for each in stored]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def key(self) -> str:
        """The store's name in ``tl cache list``."""
        return self.folder.name

    def __len__(self) -> int:
        return self._rows

    def missing(self, indices: Indices) -> Indices:
        """The rows among some that no process has computed yet, in order.

        Args:
            indices: Positions in the list of images.
        """
        self._check_range(indices)
        self._look()
        return indices[~self._done[indices]]

    @contextmanager
    def building(self, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Lets one process at a time compute; ask inside what is still missing.

        The ranks of one job need it once: the first takes it, the others write beside it.

        Args:
            on_wait: Called if another process is at it, before waiting for that.
        """
        with building(self.folder, on_wait=on_wait):
            self._look()
            yield

    def write(self, indices: Indices, tensors: Sequence[Tensor]) -> None:
        """Writes rows, which count as missing until `commit`. Rows that are done stay as they are.

        Args:
            indices: Their positions.
            tensors: One batch for each layout, on any device.

        Raises:
            ValueError: If a tensor is not as its layout says.
            OSError: If the disk is full.
        """
        self._check_range(indices)
        if not self._files:
            # Written through files: on a full disk a memory map would kill the process, and maps of several ranks
            # would overwrite each other's pages on a shared disk.
            for name in self._names:
                self._files.append(os.open(self.folder / name, os.O_WRONLY))
        new = np.flatnonzero(~self._done[indices])
        rows = indices[new]
        for file, layout, tensor in zip(self._files, self.layouts, tensors, strict=True):
            data = _to_bytes(tensor, layout, count=len(indices))
            data = data if len(new) == len(indices) else data[new]
            for part in _runs(rows):
                _write_all(file, data[part], offset=int(rows[part.start]) * layout.row_bytes)
        self._written.append(rows)

    def commit(self) -> None:
        """Makes what was written done: on the disk first, then flagged; a crash leaves rows missing, never wrong.

        Raises:
            OSError: If the disk fails or is full; what was not committed stays missing.
        """
        written, self._written = self._written, []  # after a failed fsync the system forgets what it had not written
        files, self._files = self._files, []
        try:
            for file in files:
                os.fsync(file)
        finally:
            for file in files:
                os.close(file)
        if written:
            self._flag(np.unique(np.concatenate(written)))

    def _flag(self, rows: Indices) -> None:
        file = os.open(self.folder / "done.bin", os.O_WRONLY)
        try:
            for part in _runs(rows):
                _write_all(file, np.ones(part.stop - part.start, dtype=np.uint8), offset=int(rows[part.start]))
            os.fsync(file)
        finally:
            os.close(file)
        self._done[rows] = True

    def read(self, indices: Indices) -> list[Tensor]:
        """Copies rows, of each tensor ``(len(indices), *shape)``, in the type and memory format they were written in.

        Args:
            indices: Their positions.

        Raises:
            IndexError: If a row is missing.
        """
        self._check_done(indices)
        return [self._read(number, indices) for number in range(len(self.layouts))]

    def rows(self, indices: Indices, tensor: int = 0) -> "StoredRows":
        """Rows as a matrix that is read slice by slice.

        Args:
            indices: Their positions.
            tensor: Which of the tensors; it has one dimension.

        Raises:
            IndexError: If a row is missing.
        """
        self._check_done(indices)
        return StoredRows(self, indices, tensor=tensor)

    def _read(self, number: int, indices: Indices) -> Tensor:
        layout = self.layouts[number]
        if not self._maps:  # Opened late and dropped by __getstate__: each worker process maps the files itself.
            for name, each in zip(self._names, self.layouts, strict=True):
                shape = (self._rows, each.row_bytes)
                # An ndarray of its own, since each slice of a memmap costs more than the copying.
                self._maps.append(np.asarray(np.memmap(self.folder / name, dtype=np.uint8, mode="r", shape=shape)))
        batch = torch.empty(len(indices), math.prod(layout.shape), dtype=layout.torch_dtype)
        data = batch.view(torch.uint8).numpy()
        if len(indices) and _is_run(indices):
            data[:] = self._maps[number][indices[0] : indices[-1] + 1]
        else:
            # The rows have been checked; without a mode, take would copy everything once more.
            np.take(self._maps[number], indices, axis=0, out=data, mode="clip")
        if layout.channels_last:
            channels, height, width = layout.shape
            return batch.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return batch.view(-1, *layout.shape)

    @property
    def _names(self) -> list[str]:
        return [f"tensor{number}.bin" for number in range(len(self.layouts))]

    def _look(self) -> None:
        """Learns what other processes have done meanwhile."""
        self._done = np.fromfile(self.folder / "done.bin", dtype=np.uint8) == 1

    def _check_range(self, indices: Indices) -> None:
        if len(indices) and not 0 <= indices.min() <= indices.max() < self._rows:
            raise IndexError(f"rows {indices.min()} to {indices.max()} of a store with {self._rows:,} rows")

    def _check_done(self, indices: Indices) -> None:
        self._check_range(indices)
        if not self._done[indices].all():
            missing = self.missing(indices)
            if len(missing):
                raise IndexError(
                    f"{len(missing):,} of {len(indices):,} rows are not computed yet, such as {missing[0]}"
                )

    def __del__(self) -> None:
        for file in self.__dict__.get("_files", []):
            os.close(file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": [], "_files": [], "_written": []}


class StoredRows:
    """Some rows of a store as a matrix; a slice of it is read when asked for.

    Attributes:
        shape: Rows and width.
    """

    def __init__(self, store: ActivationStore, indices: Indices, *, tensor: int) -> None:
        (width,) = store.layouts[tensor].shape
        self.shape = (len(indices), width)
        self._store = store
        self._indices = indices
        self._tensor = tensor

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> Tensor:
        return self._store._read(self._tensor, self._indices[part])


def _folder(identity: Mapping[str, Any], rows: int) -> Path:
    text = json.dumps({"format": FORMAT, "rows": rows, "identity": identity}, sort_keys=True)
    return cache_dir() / "activations" / hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _sizes(rows: int, layouts: Sequence[TensorLayout]) -> dict[str, int]:
    """Bytes of each file with a fixed size, by name."""
    return {f"tensor{number}.bin": rows * layout.row_bytes for number, layout in enumerate(layouts)} | {
        "done.bin": rows
    }


def _is_whole(folder: Path, text: str, sizes: Mapping[str, int]) -> bool:
    try:
        json.loads((folder / "about.json").read_text(encoding="utf-8"))
        same = (folder / "layout.json").read_text(encoding="utf-8") == text
        return same and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _create(folder: Path, text: str, sizes: Mapping[str, int], about: Mapping[str, Any]) -> None:
    with writing(folder) as unfinished:
        for name, size in sizes.items():
            (unfinished / name).touch()
            os.truncate(unfinished / name, size)
        (unfinished / "layout.json").write_text(text, encoding="utf-8")
        (unfinished / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _to_bytes(tensor: Tensor, layout: TensorLayout, *, count: int) -> NDArray[np.uint8]:
    """A batch as one line of bytes per row."""
    if tensor.shape != (count, *layout.shape) or tensor.dtype != layout.torch_dtype:
        raise ValueError(f"{count} rows of {layout} expected, but got {tensor.dtype} of shape {tuple(tensor.shape)}")
    if not count:
        return np.empty((0, layout.row_bytes), dtype=np.uint8)
    ordered = tensor.permute(0, 2, 3, 1) if layout.channels_last else tensor
    data: NDArray[np.uint8] = ordered.detach().cpu().contiguous().view(count, -1).view(torch.uint8).numpy()
    return data


def _is_run(indices: Indices) -> bool:
    return bool(indices[-1] - indices[0] == len(indices) - 1 and (np.diff(indices) == 1).all())


def _runs(indices: Indices) -> list[slice]:
    """Where stretches of consecutive rows lie in a list of them."""
    if not len(indices):
        return []
    starts = [0, *(np.flatnonzero(np.diff(indices) != 1) + 1).tolist()]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(indices)], strict=True)]


def _write_all(file: int, data: NDArray[np.uint8], *, offset: int) -> None:
    """Writes to a place of a file; the system may take it in several goes."""
    rest = data.data.cast("B")
    while rest:
        count = os.pwrite(file, rest, offset)
        rest, offset = rest[count:], offset + count
