"""Image files without labels, prepared for ``trainer.predict`` as the images of a test are."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from lightning import LightningDataModule
from torch import Tensor

from tl_lightning.data.images.image_files import quiet_decoders
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.images.preparing import prepare
from tl_lightning.preprocess.image import ImagePreprocess


class FileBatches:
    """Batches of the readable ones among image files, prepared in threads while the model is at work.

    Attributes:
        broken: Why a file could not be read, by its position; filled while it is gone through.

    Args:
        paths: The files.
        preprocess: What the model expects.
        batch_size: Images per batch; of the last one as many as are left.
        stop: Whether to give no more batches once a file could not be read; the rest is read all the same.
    """

    def __init__(self, paths: Sequence[Path], preprocess: ImagePreprocess, *, batch_size: int, stop: bool) -> None:
        self._paths, self._preprocess, self._batch_size, self._stop = paths, preprocess, batch_size, stop
        self.broken: dict[int, str] = {}

    def __len__(self) -> int:
        """How many batches there are if all can be read."""
        return -(-len(self._paths) // self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches with ``image`` (``uint8``) and ``index``, the position among the files."""
        positions: list[int] = []
        images: list[Tensor] = []
        for position, image in enumerate(self._prepared()):
            if isinstance(image, str):
                self.broken[position] = image
            elif not (self._stop and self.broken):
                positions.append(position)
                images.append(image)
            if len(images) == self._batch_size:
                yield {"image": torch.stack(images), "index": torch.tensor(positions)}
                positions, images = [], []
        if images and not (self._stop and self.broken):
            yield {"image": torch.stack(images), "index": torch.tensor(positions)}

    def _prepared(self) -> Iterator[Tensor | str]:
        """The pixels of each file, or why it cannot be read, one batch ahead of what is asked for."""

        def attempt(path: Path) -> Tensor | str:
            try:
                return prepare(path, self._preprocess)
            except BrokenImage as error:
                return str(error)

        with ThreadPoolExecutor() as pool, quiet_decoders():
            ahead: list[Future[Tensor | str]] = []
            for start in range(0, len(self._paths) + self._batch_size, self._batch_size):
                ready, ahead = (
                    ahead,
                    [pool.submit(attempt, path) for path in self._paths[start : start + self._batch_size]],
                )
                for future in ready:
                    yield future.result()


class PredictionData(LightningDataModule):
    """What ``trainer.predict`` gets: batches of files, normalised on the device as evaluation normalises its own.

    Args:
        batches: Of the files.
        preprocess: What the model expects.
    """

    def __init__(self, batches: FileBatches, preprocess: ImagePreprocess) -> None:
        super().__init__()
        self._batches, self._preprocess = batches, preprocess

    def predict_dataloader(self) -> FileBatches:
        """The batches."""
        return self._batches

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Normalises the images.

        Args:
            batch: As the loader makes it.
            dataloader_idx: Unused.
        """
        image = self._preprocess.normalize(batch["image"])
        return {**batch, "image": image.contiguous(memory_format=torch.channels_last)}
