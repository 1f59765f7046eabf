"""The loader of all batches: torch's own, which also notes how long it was waited for."""

import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from tl_lightning.data.dataset import Sample


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


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """Collates what is a batch already, as a dataset with ``__getitems__`` gives it."""
    return batch
