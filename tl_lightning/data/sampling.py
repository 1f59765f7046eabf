"""Which images an epoch goes through, and in which order, as a function of seed and epoch alone."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

# Keeps these draws apart from those of the order and of kept versions; see `seeded` for why it comes last.
_STREAM = 4


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs: the share of one process, shuffled by (seed, epoch) or in order.

    Shuffled, only whole batches come, the rest of an epoch's order is left out: batch k of all processes together is
    batch k of one process with a batch size `world_size` times as large. Where there is less than one such batch, each
    process gets one smaller batch, all of the same size. In order, every index comes in exactly one process.

    Balanced, an epoch is as long, but all classes come equally often in it, give or take one; so they do in all epochs
    together. A class goes through all of its images in an order of its own before it starts on another, within an
    epoch where it is small, over several epochs where it is large.

    Lightning calls `set_epoch`.
    """

    def __init__(
        self,
        indices: NDArray[np.int64],
        *,
        shuffle: bool,
        seed: int,
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        balance: NDArray[np.int64] | None = None,
    ) -> None:
        """Starts at epoch 0.

        Args:
            indices: What to go through.
            shuffle: Whether each epoch has an order of its own.
            seed: Seeds the shuffling; at least 0.
            batch_size: Samples of one process at once.
            rank: Number of this process, from 0.
            world_size: How many processes share the indices.
            balance: The class of each of `indices`, to draw all classes equally often; needs `shuffle`.
        """
        self.indices = indices
        self.shuffle = shuffle
        self.seed = seed
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._members = None if balance is None else [indices[balance == number] for number in np.unique(balance)]
        self._resumed_epoch = 0
        self._done = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def resume_at(self, epoch: int, done: int) -> None:
        """Leaves out what an interrupted run has already trained on.

        The length stays that of a whole epoch: Lightning counts the missing batches itself.

        Args:
            epoch: The epoch that was under way; all others stay whole.
            done: How many of this process's first indices to leave out.
        """
        self._resumed_epoch = epoch
        self._done = done

    def __len__(self) -> int:
        return len(self._share(self.indices))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = self.indices if self._members is None else self._balanced(self._members, epoch)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        done = self._done if epoch == self._resumed_epoch else 0
        for index in self._share(order)[done:].tolist():
            yield epoch, index

    def _balanced(self, members: list[NDArray[np.int64]], epoch: int) -> NDArray[np.int64]:
        """What an epoch draws: each class's endless row of orders is cut into epochs of equal length.

        Dealt out one image per class in turn, epoch after epoch, a class has been drawn so often before an epoch.
        """
        length = len(self) * self.world_size  # without the rest that is left out, or it would unbalance what stays
        before, after = (
            [(number * length + len(members) - 1 - k) // len(members) for k in range(len(members))]
            for number in (epoch, epoch + 1)
        )
        drawn = []
        for k, (own, start, stop) in enumerate(zip(members, before, after, strict=True)):
            rounds = range(start // len(own), -(-stop // len(own)))
            orders = [np.random.default_rng((self.seed, k, number, 0, _STREAM)).permutation(own) for number in rounds]
            skipped = start % len(own)
            drawn.append(np.concatenate([*orders, own[:0]])[skipped : skipped + stop - start])
        return np.concatenate(drawn)

    def _share(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.shuffle:
            return order[self.rank :: self.world_size]
        together = self.batch_size * self.world_size
        whole = len(order) // together
        if whole:
            batches = order[: whole * together].reshape(whole, self.world_size, self.batch_size)
            return batches[:, self.rank].reshape(-1)
        size = len(order) // self.world_size
        return order[self.rank * size : (self.rank + 1) * size]
