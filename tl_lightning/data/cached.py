"""Batches of activations that were computed before, in the place of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tl_lightning.data.dataset import Targets


class Reader(Protocol):
    """Hands out what the frozen part of a backbone makes of samples, computed before."""

    def read(self, indices: NDArray[np.int64]) -> list[Tensor]:
        """The tensors of the samples with these indices, each ``(n, ...)``."""


@dataclass(frozen=True)
class Cached:
    """What the loaders read instead of samples.

    Attributes:
        training: A reader for each version of the training samples.
        evaluation: The reader of the samples as evaluation sees them.
    """

    training: Sequence[Reader]
    evaluation: Reader


class CachedDataset(Dataset[dict[str, Any]]):
    """Cached activations, a batch at a time; each epoch draws one version of each sample."""

    def __init__(self, readers: Sequence[Reader], targets: Targets, *, seed: int = 0) -> None:
        """Puts the parts together.

        Args:
            readers: One for each version.
            targets: The targets of all samples.
            seed: Seeds the draws.
        """
        self.readers = readers
        self.targets = targets
        self.seed = seed
        self._drawn: tuple[int, NDArray[np.int64]] | None = None  # the versions of an epoch

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, places: list[tuple[int, int]]) -> dict[str, Any]:
        """A batch: ``activations`` (a list of tensors ``(n, ...)``), ``index``, ``label`` and so on."""
        indices = np.array([index for _, index in places])
        rows = torch.from_numpy(indices)
        return {"activations": self._read(places[0][0], indices), "index": rows, **self.targets.of(rows)}

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
