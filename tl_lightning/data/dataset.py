"""Samples, augmented as a function of seed, epoch and index alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from tl_lightning.core.randomness import seeded
from tl_lightning.data.images.configured import Transform
from tl_lightning.data.images.store import ImageStore


class Item(TypedDict):
    """One sample: ``uint8`` pixels ``(channels, size, size)``, its answer, its index among all samples, its weight.

    The answer is a class, ``int64``, or ``float32`` ``(outputs,)``; a weight is there where the source states weights.
    """

    image: Tensor
    label: Tensor
    index: int
    weight: NotRequired[Tensor]


@dataclass(frozen=True)
class Targets:
    """The answers of all samples.

    Attributes:
        labels: See `Samples.labels`.
        weights: ``float32`` ``(n,)``; `None` for all the same.
    """

    labels: Tensor
    weights: Tensor | None = None

    def of(self, rows: int | Tensor) -> dict[str, Tensor]:
        """``label`` and, where there is one, ``weight`` of a row or of several."""
        weight = {} if self.weights is None else {"weight": self.weights[rows]}
        return {"label": self.labels[rows], **weight}

    def at(self, rows: Tensor) -> "Targets":
        """Those of some samples."""
        return Targets(self.labels[rows], None if self.weights is None else self.weights[rows])


class ImageDataset(Dataset[Item]):
    """Stored images, addressed by (epoch, index) so that worker processes need no state of their own."""

    def __init__(self, store: ImageStore, answers: Targets, *, transform: Transform, seed: int | None = None) -> None:
        """Puts the parts together.

        Args:
            store: The pixels.
            answers: Of each image of the store.
            transform: From stored pixels to what the model sees.
            seed: For a transform that draws at random; `None` for one that does not.
        """
        self.store = store
        self.answers = answers
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, place: tuple[int, int]) -> Item:
        epoch, index = place
        pixels = self.store[index]
        if self.seed is None:
            image = self.transform(pixels)
        else:
            with seeded(self.seed, epoch, index):
                image = self.transform(pixels)
        return {"image": image, "index": index, **self.answers.of(index)}  # type: ignore[typeddict-item]

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, Tensor]:
        """A batch of items; in one thread, and the number of threads is changed once only, as that has its price."""
        with _one_thread():
            batch: dict[str, Tensor] = default_collate([self[place] for place in places])
        return batch


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker process: one image is too little for several, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Reader(Protocol):
    """Hands out what the frozen part of a backbone makes of images, computed before."""

    def read(self, indices: NDArray[np.int64]) -> list[Tensor]:
        """The tensors of the images with these indices, each ``(n, ...)``."""


@dataclass(frozen=True)
class Cached:
    """What the loaders read instead of images.

    Attributes:
        training: A reader for each version of the training images.
        evaluation: Of the images as evaluation sees them.
    """

    training: Sequence[Reader]
    evaluation: Reader


class CachedDataset(Dataset[dict[str, Any]]):
    """Kept activations, a batch at a time; each epoch draws one version of each image."""

    def __init__(self, readers: Sequence[Reader], answers: Targets, *, seed: int = 0) -> None:
        """Puts the parts together.

        Args:
            readers: One for each version.
            answers: Of each image.
            seed: Of the draws.
        """
        self.readers = readers
        self.answers = answers
        self.seed = seed
        self._drawn: tuple[int, NDArray[np.int64]] | None = None  # the versions of an epoch

    def __len__(self) -> int:
        return len(self.answers.labels)

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, Any]:
        """A batch: ``activations`` (a list of tensors ``(n, ...)``), ``index``, ``label``, maybe ``weight``."""
        indices = np.array([index for _, index in places])
        rows = torch.from_numpy(indices)
        return {"activations": self._read(places[0][0], indices), "index": rows, **self.answers.of(rows)}

    def _read(self, epoch: int, indices: NDArray[np.int64]) -> list[Tensor]:
        if len(self.readers) == 1:
            return self.readers[0].read(indices)
        drawn = self._versions(epoch)[indices]
        tensors: list[Tensor] = []
        for version in np.unique(drawn):
            where = np.flatnonzero(drawn == version)
            parts = self.readers[version].read(indices[where])
            tensors = tensors or [_empty(part, rows=len(drawn)) for part in parts]
            for tensor, part in zip(tensors, parts, strict=True):
                tensor[torch.from_numpy(where)] = part
        return tensors

    def _versions(self, epoch: int) -> NDArray[np.int64]:
        if self._drawn is None or self._drawn[0] != epoch:
            generator = np.random.default_rng((self.seed, epoch, 0, 0, 3))
            self._drawn = epoch, generator.integers(len(self.readers), size=len(self))
        return self._drawn[1]


def _empty(part: Tensor, *, rows: int) -> Tensor:
    last = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((rows, *part.shape[1:]), dtype=part.dtype, memory_format=layout)


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """Collates what is a batch already."""
    return batch
