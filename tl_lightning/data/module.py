"""The data module: labelled pictures, as Lightning wants them."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from tl_lightning.data.augmentations import augmentation as make_augmentation
from tl_lightning.data.augmentations import evaluation
from tl_lightning.data.dataset import EpochSampler, Item, PictureDataset
from tl_lightning.data.samples import check_training_has_all, name_some
from tl_lightning.data.sources import read_source
from tl_lightning.data.splits import split_samples
from tl_lightning.data.store import PictureStore
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess


class ImageDataModule(LightningDataModule):
    """Pictures with one label each: listed at once, decoded by `setup`, split, augmented and batched.

    Batches are dicts: ``image`` (``uint8`` ``(n, channels, size, size)``; normalised ``float32`` on the device),
    ``label`` and ``index`` (``int64`` ``(n,)``).

    Attributes:
        samples: All listed samples; the indices of `splits` point into it.
        classes: Names of the classes, in the order of the model's outputs.
        prepared: The preprocessing in force, with `image_size` applied; plain data.
        split_digest: Tells apart which pictures are in which split; broken ones count.
        splits: Sorted sample indices under ``train``, ``val`` and ``test``.
        skipped: Number of broken pictures that were left out by `setup`.
    """

    def __init__(
        self,
        source: str,
        preprocess: dict[str, Any],
        *,
        batch_size: int = 32,
        image_size: int | None = None,
        split: str = "auto",
        split_seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.25,
        target: str | None = None,
        image_column: str = "image",
        label_column: str = "label",
        classes: list[str] | None = None,
        augmentation: str = "flips",
        on_error: Literal["stop", "skip"] = "stop",
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        """Lists the samples and splits them; no picture is read yet.

        Args:
            source: A folder with one sub-folder per class (optionally under train/, val/, test/), a .csv table or elpv.
            preprocess: What the weights were pretrained with; comes from the backbone.
            batch_size: Pictures per batch.
            image_size: Side in pixels of the square that the model sees; by default the weights' own.
            split: auto (what the source states, else stratified), stratified, blocks (contiguous ranges of the source)
                or A_to_B for a source with domains (elpv: mono_to_poly, poly_to_mono).
            split_seed: Chooses the split; keep it while seed_everything varies, and the test pictures stay the same.
            val_fraction: Share of the training part that is put aside for validation, where the source states none.
            test_fraction: Share of all pictures that is put aside for testing, where the source states no split; 0 for
                no test.
            target: What to learn where the source has several answers (elpv: defect, level or type).
            image_column: Column of the table with the pictures' paths, relative to the table or absolute.
            label_column: Column of the table with the labels.
            classes: Names of the classes in the order of the outputs; by default sorted.
            augmentation: none, flips (left-right), dihedral (mirrors and quarter turns) or standard (timm's: crop,
                flip, colour).
            on_error: What to do about pictures that cannot be read: stop before training, or skip and count them.
            num_workers: Processes that prepare batches; by default none on a CPU, where training needs every core, and
                up to 8 beside a GPU.
            seed: Of shuffling and augmentation; comes from seed_everything.

        Raises:
            UserError: If the source or one of the settings cannot be used.
        """
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size is {batch_size}; it must be 1 or more")
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers is {num_workers}; it must be 0 or more")
        if on_error not in ("stop", "skip"):
            raise UserError(f"data.on_error {on_error!r} is unknown; valid are stop, skip")
        self.source = source
        self.split = split
        self.split_seed = split_seed
        self.batch_size = batch_size
        self.on_error = on_error
        self.seed = seed
        if num_workers is None:
            num_workers = min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0
        self.num_workers = num_workers
        self._preprocess = Preprocess.from_dict(preprocess).with_size(image_size)
        self.prepared = self._preprocess.to_dict()
        self.samples = read_source(
            source, target=target, image_column=image_column, label_column=label_column, classes=classes
        )
        self.classes = self.samples.classes
        self.splits = split_samples(
            self.samples, split, seed=split_seed, val_fraction=val_fraction, test_fraction=test_fraction
        )
        self.split_digest = _digest(self.samples.paths, self.splits)
        self.skipped = 0
        self._augment = make_augmentation(augmentation, self._preprocess)
        self._store: PictureStore | None = None

    def prepare_data(self) -> None:
        """Decodes the pictures, where no earlier run has; Lightning calls this in one process per machine."""
        if self._store is None:
            PictureStore.open(self.samples.paths, self._preprocess)

    def setup(self, stage: str) -> None:
        """Opens the decoded pictures and deals with broken ones; does its work once, however often it is called.

        The split is drawn over all listed pictures before broken ones are left out of it, so that a file that breaks
        moves no other picture from training to testing.

        Args:
            stage: Lightning's name of what comes; every stage needs the same.

        Raises:
            UserError: If pictures are broken and `on_error` is ``stop``, or if a class is left without any.
        """
        if self._store is not None:
            return
        store = PictureStore.open(self.samples.paths, self._preprocess)
        if store.broken:
            self._leave_out(store.broken)
        self._store = store

    def _leave_out(self, broken: dict[int, str]) -> None:
        named = name_some([f"{self.samples.paths[index]} ({reason})" for index, reason in broken.items()])
        found = f"{len(broken)} of {len(self.samples)} pictures of {self.source} cannot be read: {named}"
        if self.on_error == "stop":
            raise UserError(f"{found}; mend them, or leave them out with --data.on_error skip")
        splits = {name: np.setdiff1d(indices, list(broken)) for name, indices in self.splits.items()}
        for name in ("train", "val"):
            if not len(splits[name]):
                raise UserError(f"the {name} split is left without pictures: {found}")
        readable = np.setdiff1d(np.arange(len(self.samples)), list(broken))
        vanished = np.setdiff1d(self.samples.labels, self.samples.labels[readable])
        if len(vanished):
            raise UserError(f"class {self.classes[vanished[0]]!r} is left without pictures: {found}")
        check_training_has_all(self.samples, splits, self.source)
        self.splits, self.skipped = splits, len(broken)

    def _counts(self, split: str) -> NDArray[np.int64]:
        return np.bincount(self.samples.labels[self.splits[split]], minlength=len(self.classes))

    @property
    def class_counts(self) -> list[int]:
        """Number of training pictures of each class."""
        return [int(count) for count in self._counts("train")]

    def majority_accuracy(self, split: str) -> float:
        """Accuracy on a split, in 0..1, of always answering the class that is most frequent in training.

        Args:
            split: ``train``, ``val`` or ``test``; `nan` where it is empty.
        """
        counts = self._counts(split)
        return float(counts[self._counts("train").argmax()] / counts.sum()) if counts.sum() else float("nan")

    def summary(self) -> dict[str, Any]:
        """What the data were, as plain data for ``summary.json``."""
        per_class = {name: dict(zip(self.classes, self._counts(name).tolist(), strict=True)) for name in self.splits}
        return {
            "source": self.source,
            "classes": self.classes,
            "train": len(self.splits["train"]),
            "validation": len(self.splits["val"]),
            "test": len(self.splits["test"]),
            "skipped": self.skipped,
            "split": self.split,
            "split_seed": self.split_seed,
            "split_digest": self.split_digest,
            "class_counts": per_class,
        }

    def train_dataloader(self) -> DataLoader[Item]:
        """Shuffled and augmented; a last batch that is not full is dropped, unless it is the only one."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Item]:
        """In order, as prediction sees the pictures."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Item] | list[DataLoader[Item]]:
        """In order, as prediction sees the pictures; an empty list where there is no test split."""
        return self._loader("test") if len(self.splits["test"]) else []

    def _loader(self, split: str, *, training: bool = False) -> DataLoader[Item]:
        if self._store is None:
            raise RuntimeError("ImageDataModule.setup comes before its loaders")
        indices = self.splits[split]
        return DataLoader(
            PictureDataset(
                self._store,
                self.samples.labels,
                transform=self._augment if training else evaluation(self._preprocess),
                seed=self.seed if training else None,
            ),
            batch_size=self.batch_size,
            sampler=EpochSampler(indices, shuffle=training, seed=self.seed),
            drop_last=training and len(indices) >= self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own a loader draws from the global generator, and dropout would depend on it.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Normalises on the device; the pictures crossed over as bytes.

        Args:
            batch: As the loaders make it.
            dataloader_idx: Unused.

        Returns:
            The batch with ``image`` as ``float32`` in the channels-last memory format.
        """
        image = self._preprocess.normalize(batch["image"])
        return {**batch, "image": image.contiguous(memory_format=torch.channels_last)}


def _digest(paths: list[Path], splits: dict[str, NDArray[np.int64]]) -> str:
    """Of the pictures' names in each split; the folder that holds them may move."""
    digest = hashlib.sha256()
    for name, indices in splits.items():
        for index in indices:
            digest.update(f"{name}\0{paths[index].parent.name}/{paths[index].name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
