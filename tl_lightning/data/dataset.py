"""Samples in an order, and augmented, as a function of seed, epoch and index alone."""

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tl_lightning.data.augmentations import Transform, seeded
from tl_lightning.data.store import PictureStore


class Item(TypedDict):
    """One sample: ``uint8`` pixels ``(channels, size, size)``, its class, and its index among all samples."""

    image: Tensor
    label: int
    index: int


class PictureDataset(Dataset[Item]):
    """Stored pictures, addressed by (epoch, index) so that worker processes need no state of their own."""

    def __init__(
        self, store: PictureStore, labels: NDArray[np.int64], *, transform: Transform, seed: int | None = None
    ) -> None:
        """Puts the parts together.

        Args:
            store: The pixels.
            labels: The class of each picture of the store.
            transform: From stored pixels to what the model sees.
            seed: For a transform that draws at random; `None` for one that does not.
        """
        self.store = store
        self.labels = labels
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
        return {"image": image, "label": int(self.labels[index]), "index": index}


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs, shuffled by (seed, epoch) or in order. Lightning calls `set_epoch`."""

    def __init__(self, indices: NDArray[np.int64], *, shuffle: bool, seed: int) -> None:
        """Starts at epoch 0.

        Args:
            indices: What to go through.
            shuffle: Whether each epoch has an order of its own.
            seed: Of the shuffling, at least 0.
        """
        self.indices = indices
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self.indices
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        for index in order.tolist():
            yield self.epoch, index
