"""The loader of all batches: torch's own, which also notes how long it was waited for."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from tl_lightning.core.interruption import leave_signals_to_parent
from tl_lightning.data.dataset import Sample
from tl_lightning.data.sampling import EpochSampler


class TimedLoader(DataLoader[Sample]):
    """A `DataLoader` that knows how long its batches took to arrive, or to be made where it has no workers.

    Attributes:
        waited: Seconds, over all passes.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # what Lightning and loops need of it
        """A pass over the data."""
        return self._timed(super().__iter__())

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            begun = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - begun
            yield batch


def make_loader(
    dataset: Dataset[Sample], sampler: EpochSampler, *, batch_size: int, seed: int, workers: int = 0
) -> TimedLoader:
    """Puts a data set that makes whole batches behind a loader.

    Args:
        dataset: Addressed by what the sampler gives.
        sampler: Which samples, in which order; it leaves out the incomplete batch in training, hence no ``drop_last``.
        batch_size: Samples per batch.
        seed: Seeds a generator of its own: without, a loader draws from the global one, and dropout would depend on it.
        workers: Processes that prepare batches.
    """
    return TimedLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=as_it_is,  # type: ignore[arg-type]  # the data set makes whole batches
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=leave_signals_to_parent,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """Collates what is a batch already, as a dataset with ``__getitems__`` gives it."""
    return batch
