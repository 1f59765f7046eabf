"""Samples as the model sees them, as a function of seed, epoch and index alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tl_lightning.core.randomness import seeded
from tl_lightning.data.samples import Samples

Sample = dict[str, Any]
"""One sample by name: what the model takes (such as ``image``), its ``index`` among all samples, its targets (such as
``label``), what else goes with it (such as ``weight``, boxes and masks)."""

Transform = Callable[[Sample], Sample]
"""From what the store and the targets say of a sample to what the model is to see, boxes and masks moved alike."""


class BrokenSample(Exception):
    """A file that cannot be read as a sample; the message says why."""


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

    def sample(self, index: int, /) -> Sample:
        """What the model takes of one file, under the names that it takes it by, before any `Transform`."""


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
    """What is to be learned of all samples, and what goes with it.

    Attributes:
        labels: A tensor, see `Target.labels`; of several targets one for each, by its name.
        weights: How much each counts, ``float32`` ``(n,)``; `None` for all the same.
        domains: The number of its domain, ``int64`` ``(n,)``; `None` where there are no domains.
        labelled: Whether it has a target at all, ``bool`` ``(n,)``; `None` where all have.
    """

    labels: Any
    weights: Tensor | None = None
    domains: Tensor | None = None
    labelled: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())) if isinstance(self.labels, dict) else self.labels)

    def of(self, rows: int | Tensor) -> dict[str, Any]:
        """``label`` and, where there are any, ``weight``, ``domain`` and ``labelled`` of a row or of several."""
        parts = {"label": _at(self.labels, rows)}
        if self.weights is not None:
            parts["weight"] = self.weights[rows]
        if self.domains is not None:
            parts["domain"] = self.domains[rows]
        if self.labelled is not None:
            parts["labelled"] = self.labelled[rows]
        return parts

    def at(self, rows: Tensor) -> "Targets":
        """The targets of some samples."""
        parts = (self.weights, self.domains, self.labelled)
        return Targets(_at(self.labels, rows), *(None if part is None else part[rows] for part in parts))


def _at(labels: Any, rows: int | Tensor) -> Any:  # noqa: ANN401 - a tensor, or tensors by name
    if isinstance(labels, dict):
        return {name: tensor[rows] for name, tensor in labels.items()}
    return labels[rows]


def make_targets(
    samples: Samples,
    train: NDArray[np.int64],
    *,
    domains: Sequence[str],
    hidden: NDArray[np.int64],
    tell_labelled: bool,
    several: bool,
) -> Targets:
    """The targets of all samples, as tensors.

    Args:
        samples: All of them.
        train: Indices of the training samples, over which weights get the mean 1.
        domains: Names of the domains in ascending order, which are numbered.
        hidden: Indices of the samples whose label is to be taken from them.
        tell_labelled: Whether it is told which samples have a label.
        several: Whether targets come by their names.
    """
    weights = samples.weights
    if weights is not None and not len(train):  # they count in training alone
        weights = None
    if weights is not None:  # so that a weighted loss is as large as one without weights
        weights = weights / weights[train].mean()
    numbers = None if samples.domains is None else np.searchsorted(domains, samples.domains)
    labelled = None
    if tell_labelled:
        labelled = samples.labelled
        labelled[hidden] = False
    labels = {name: torch.from_numpy(target.without(hidden).labels) for name, target in samples.targets.items()}
    extras = (None if each is None else torch.from_numpy(each) for each in (weights, numbers, labelled))
    return Targets(labels if several else next(iter(labels.values())), *extras)


class SampleDataset(Dataset[Sample]):
    """Stored samples, addressed by (epoch, index) so that worker processes need no state of their own."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        *,
        transform: Transform,
        collate: Callable[[Sequence[Sample]], dict[str, Any]],
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

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        epoch, index = place
        sample = self.store.sample(index)
        sample["index"] = index
        sample |= self.targets.of(index)
        if self.seed is None:
            return self.transform(sample)
        with seeded(self.seed, epoch, index):
            return self.transform(sample)

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, Any]:
        """A batch of samples; in one thread, and the number of threads is changed once only, as that has its price."""
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
