"""Samples as the model sees them, as a function of seed, epoch and index alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tl_lightning.core.randomness import seeded

Transform = Callable[[Tensor], Tensor]


class Item(TypedDict):
    """One sample: ``uint8`` pixels ``(channels, size, size)``, its answer, its index among all samples, its weight.

    The answer is a class, ``int64``, or ``float32`` ``(outputs,)``; a weight is there where the source states weights.
    """

    image: Tensor
    label: Tensor
    index: int
    weight: NotRequired[Tensor]


class Store(Protocol):
    """The samples of a list of files, read and ready: what is done once lies on the disk, under a key.

    Attributes:
        folder: Where it lies.
        broken: Why a file could not be read, by its index.
    """

    folder: Path
    broken: dict[int, str]

    @property
    def key(self) -> str:
        """Tells apart lists of files, as they are on the disk, and ways to read them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class View:
    """One fixed version of every sample, which an augmentation might have drawn.

    Attributes:
        name: Says which; equal names make equal tensors.
        transform: From what the store holds to what the model sees.
        draw: Which of the versions that a random transform would draw; `None` where it draws none.
    """

    name: str
    transform: Transform
    draw: int | None = None


@dataclass(frozen=True)
class Targets:
    """What is to be learned of all samples.

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
        """The targets of some samples."""
        return Targets(self.labels[rows], None if self.weights is None else self.weights[rows])


class SampleDataset(Dataset[Item]):
    """Stored samples, addressed by (epoch, index) so that worker processes need no state of their own."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        *,
        transform: Transform,
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        seed: int | None = None,
    ) -> None:
        """Puts the parts together.

        Args:
            store: What was read of the samples.
            targets: The targets of each sample of the store.
            transform: From what the store holds to what the model sees.
            collate: From a list of samples to a batch.
            seed: For a transform that draws at random; `None` for one that does not.
        """
        self.store = store
        self.targets = targets
        self.transform = transform
        self.collate = collate
        self.seed = seed

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, place: tuple[int, int]) -> Item:
        epoch, index = place
        stored = self.store[index]
        if self.seed is None:
            image = self.transform(stored)
        else:
            with seeded(self.seed, epoch, index):
                image = self.transform(stored)
        return {"image": image, "index": index, **self.targets.of(index)}  # type: ignore[typeddict-item]

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, Any]:
        """A batch of items; in one thread, and the number of threads is changed once only, as that has its price."""
        with _one_thread():
            return self.collate([self[place] for place in places])


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker process: one image is too little for several, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
