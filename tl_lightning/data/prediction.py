"""Files without labels, prepared for ``trainer.predict`` as the samples of a test are."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.dataset import BrokenSample, Sample
from tl_lightning.preprocess import Preprocess


class FilesToPredict(LightningDataModule):
    """What ``trainer.predict`` gets: batches of the readable ones among some files, read by a data module's class.

    They are prepared in threads while the model is at work.

    Attributes:
        broken: Why a file could not be read, by its position; filled while it is gone through.

    Args:
        paths: The files.
        kind: Reads and collates them.
        preprocess: What the model expects.
        batch_size: Samples per batch; of the last one as many as are left.
        stop: Whether to give no more batches once a file could not be read; the rest is read all the same.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        kind: type[TransferDataModule],
        preprocess: Preprocess,
        *,
        batch_size: int,
        stop: bool,
    ) -> None:
        super().__init__()
        self._paths, self._kind, self._preprocess = paths, kind, preprocess
        self._batch_size, self._stop = batch_size, stop
        self.broken: dict[int, str] = {}

    def predict_dataloader(self) -> "FilesToPredict":
        """The batches."""
        return self

    def __len__(self) -> int:
        """How many batches there are if all files can be read."""
        return -(-len(self._paths) // self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches with what the model takes, and ``index``, the position among the files."""
        samples: list[Sample] = []
        for position, sample in enumerate(self._read()):
            if isinstance(sample, str):
                self.broken[position] = sample
            elif not (self._stop and self.broken):
                samples.append({**sample, "index": position})
            if len(samples) == self._batch_size:
                yield self._kind.collate(samples)
                samples = []
        if samples and not (self._stop and self.broken):
            yield self._kind.collate(samples)

    def _read(self) -> Iterator[Sample | str]:
        """The sample of each file, or why it cannot be read, one batch ahead of what is asked for."""

        def attempt(path: Path) -> Sample | str:
            try:
                return self._kind.read_file(path, self._preprocess)
            except BrokenSample as error:
                return str(error)

        with self._kind.reading(), ThreadPoolExecutor() as pool:
            ahead: list[Future[Sample | str]] = []
            for start in range(0, len(self._paths) + self._batch_size, self._batch_size):
                paths = self._paths[start : start + self._batch_size]
                ready, ahead = ahead, [pool.submit(attempt, path) for path in paths]
                for future in ready:
                    yield future.result()

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Prepares a batch on the device, as evaluation prepares its own.

        Args:
            batch: As the loader makes it.
            dataloader_idx: Unused.
        """
        return self._preprocess.on_device(batch)
