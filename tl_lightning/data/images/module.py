"""The data module: labelled images, as Lightning wants them."""

import hashlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from tl_lightning.core.interruption import leave_signals_to_parent
from tl_lightning.data.dataset import Cached, CachedDataset, ImageDataset, Item, Targets, as_it_is
from tl_lightning.data.images.augmentations import Augmentation, View, evaluation, plain_view, views
from tl_lightning.data.images.augmentations import augmentation as make_augmentation
from tl_lightning.data.images.configured import Transform, plain
from tl_lightning.data.images.mixing import check_mixing, mix
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.leaks import (
    Duplicate,
    LeakReport,
    OnLeak,
    cached_duplicates,
    find_duplicates,
    report_leaks,
    settle_leaks,
)
from tl_lightning.data.loader import TimedLoader
from tl_lightning.data.samples import SPLITS, ProblemType, check_training_has_all, name_some
from tl_lightning.data.sampling import EpochSampler
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import read_source
from tl_lightning.data.splits import split_samples
from tl_lightning.data.workers import default_workers
from tl_lightning.errors import UserError, shown
from tl_lightning.preprocess.image import Preprocess

VIEW_SEED = 0  # of the views that are kept, whatever the run's seed, so that runs can share them


class ImageDataModule(LightningDataModule):
    """Images and their answers: listed at once, decoded by `setup`, split, augmented and batched.

    Batches are dicts: ``image`` (``uint8`` ``(n, channels, size, size)``; normalised ``float32`` on the device),
    ``index`` (``int64`` ``(n,)``) and ``label`` (see `Samples.labels`). Where the source states weights there is
    ``weight`` (``float32`` ``(n,)``, mean 1 over the training images). A training batch that was mixed also has
    ``target`` (``float32`` ``(n, classes)``, rows adding up to 1).

    Attributes:
        samples: All listed samples; the indices of `splits` point into it.
        classes: Names of the classes, levels, labels or numbers, in the order of the model's outputs.
        prepared: The preprocessing in force, with `image_size` and the like applied; plain data.
        split_digest: Tells apart which images are in which split; broken ones count.
        splits: Sorted sample indices under ``train``, ``val`` and ``test``.
        skipped: Number of broken images that were left out by `setup`.
        leaks: Which images are there more than once in the splits in force, found by `setup`; `None` where that was
            not looked for.
        moved: How many images another split got for their copies or their group.
    """

    def __init__(
        self,
        source: str,
        preprocess: dict[str, Any],
        *,
        batch_size: int = 32,
        micro_batch_size: int | Literal["auto"] | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        pixel_range: list[float] | None = None,
        interpolation: str | None = None,
        split: str = "auto",
        split_seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.25,
        fold: int | None = None,
        folds: int = 5,
        labelled_fraction: float = 1.0,
        target: str | None = None,
        image_column: str = "image",
        label_column: str | list[str] = "label",
        label_separator: str = "|",
        split_column: str | None = None,
        group_column: str | None = None,
        weight_column: str | None = None,
        time_column: str | None = None,
        classes: list[str] | None = None,
        augmentation: str | dict[str, Any] | list[dict[str, Any]] = "flips",
        sampler: Literal["shuffled", "balanced"] = "shuffled",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        on_error: Literal["stop", "skip"] = "stop",
        on_leak: OnLeak = "warn",
        num_workers: int | None = None,
        answers: ProblemType = "class",
        seed: int = 0,
    ) -> None:
        """Lists the samples and splits them; no image is read yet.

        Args:
            source: A folder with one sub-folder per class (optionally under train/, val/, test/), a .csv or .parquet
                table, torchvision/NAME, datasets/NAME[:CONFIG] or datasets/FOLDER (of the Hugging Face library), or
                elpv.
            preprocess: What the weights were pretrained with; comes from the backbone.
            batch_size: Images per step of one process; several processes train on that many each. --global_batch
                takes its place.
            micro_batch_size: Computes a batch in parts of so many images and adds up their gradients, which needs
                less memory; auto for the largest that fits into what is free.
            image_size: Side in pixels of the square that the model sees; by default the weights' own.
            channels: Number of channels of the images; by default the weights' own. Others than theirs change the
                first layer, as timm does.
            pixel_range: The numbers in the files that become black and white, as [0, 4095] for 12 bits; by default
                0 to 255 for bytes, 0 to 65535 for larger integers, and 0 to 1 for floating-point numbers.
            interpolation: How images are resized: nearest, bilinear, bicubic or lanczos; by default as in the
                pretraining.
            split: auto (what the source states, else group or stratified), stratified, group (where there are groups:
                none on both sides), blocks (contiguous ranges of the source), time (the latest test) or A_to_B for a
                source with domains (elpv: mono_to_poly, poly_to_mono).
            split_seed: Chooses the split; keep it while seed_everything varies, and the test images stay the same.
            val_fraction: Share of the training part that is put aside for validation, where the source states none.
            test_fraction: Share of all images that is put aside for testing, where the source states no split; 0 for
                no test.
            fold: Tests on this one of the folds, from 0, instead of a fraction; tl crossval runs them all.
            folds: Into how many parts the images are divided for that.
            labelled_fraction: Share of the training and validation images that is used, as if the others had no
                label yet: what would fewer have given? The test images stay the same; which ones it is, the seed
                decides.
            target: What to learn where the source has several answers (elpv: defect, level, type or probability).
            image_column: Column of the table with the images' paths, relative to the table or absolute.
            label_column: Column of the table with the answers; several for several numbers, or for labels that are
                marked with 0 and 1.
            label_separator: Between the labels of one cell, where an image may have several.
            split_column: Column that says train, val or test; by default split, where there is one.
            group_column: Column of what must not be torn apart, such as the patient; by default group, where there is
                one.
            weight_column: Column of how much an image counts in training; by default weight, where there is one.
            time_column: Column of when an image was taken, for split time: a number or a date.
            classes: Names of the classes in the order of the outputs, of levels from the lowest; by default sorted.
            augmentation: none, flips (left-right), dihedral (mirrors and quarter turns), standard (timm's: crop, flip,
                colour), randaugment or trivial (TrivialAugment), both behind a crop and a flip; or any transform of
                uint8 tensors, such as {class_path: torchvision.transforms.v2.ColorJitter, init_args: {hue: 0.1}}, or a
                list of such. Normalisation comes last and is the weights' own.
            sampler: shuffled goes through the training images once per epoch; balanced draws as many, but from all
                classes equally often.
            mixup: Alpha of mixup, which blends pairs of images in training; 0 is off, 0.1 to 0.4 is usual.
            cutmix: Alpha of CutMix, which swaps a rectangle within pairs; 0 is off, 1 is usual. With both on, each
                batch gets one of them by chance.
            on_error: What to do about images that cannot be read: stop before training, or skip and count them.
            on_leak: What to do about images that are in two splits, also re-encoded, mirrored or turned: warn of it,
                stop, or move them, out of the test split first; ignore does not look for them.
            num_workers: Processes that prepare batches of images; by default none on a CPU, where training needs
                every core, and up to 8 beside a GPU, out of the cores that this process may use. What is kept of
                images is read without them.
            answers: The kind of answer: class, level, labels or number; comes from the task.
            seed: Of shuffling and augmentation; comes from seed_everything.

        Raises:
            UserError: If the source or one of the settings cannot be used.
        """
        super().__init__()
        self.micro_batch_size, self.mixup, self.cutmix = micro_batch_size, mixup, cutmix
        self.set_batch_size(batch_size)
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers is {num_workers}; it must be 0 or more")
        if sampler not in ("shuffled", "balanced"):
            raise UserError(f"data.sampler {sampler!r} is unknown; valid are shuffled, balanced")
        if on_leak not in ("warn", "stop", "move", "ignore"):
            raise UserError(f"data.on_leak {on_leak!r} is unknown; valid are warn, stop, move, ignore")
        if on_error not in ("stop", "skip"):
            raise UserError(f"data.on_error {on_error!r} is unknown; valid are stop, skip")
        self.source = source
        self.split = split
        self.split_seed = split_seed
        self.on_error = on_error
        self.on_leak = on_leak
        self.seed = seed
        self.sampler = sampler
        self.num_workers = num_workers
        weights_own = Preprocess.from_dict(preprocess)
        own_size = weights_own.with_size(image_size).with_interpolation(interpolation)
        self._preprocess = own_size.with_channels(channels).with_pixel_range(pixel_range)
        self._inherited_range = weights_own.pixel_range if pixel_range is None else None
        self.prepared = self._preprocess.to_dict()
        if answers != "class" and (mixup or cutmix):
            raise UserError("data.mixup and data.cutmix blend classes, and these images have none: leave them")
        if answers not in ("class", "level") and sampler == "balanced":
            raise UserError("data.sampler balanced draws all classes equally often, and these have none")
        columns = Columns(image_column, label_column, split_column, group_column, weight_column, time_column)
        self.samples = read_source(
            source, answers=answers, target=target, columns=columns, separator=label_separator, classes=classes
        )
        self.classes = self.samples.classes
        self._split_for = partial(
            split_samples,
            self.samples,
            split,
            seed=split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            folds=folds,
            labelled_fraction=labelled_fraction,
            labelled_seed=seed,
        )
        self.splits = self.split_for(fold)
        if self.samples.weights is not None and (mixup or cutmix):
            raise UserError(
                "data.mixup and data.cutmix blend images, which the weight column has count differently: leave one"
            )
        self._answers = self._weighted_targets()
        self.fold = fold
        self.split_digest = _digest(self.samples.paths, self.splits)
        self.skipped = 0
        self.leaks: LeakReport | None = None
        self.moved = 0
        self.augmentation: Augmentation = plain(augmentation)
        self._augment = make_augmentation(self.augmentation, self._preprocess)
        self._kept: Callable[[], Cached | None] | None = None
        self._resume: dict[str, int] | None = None
        self._store: ImageStore | None = None

    def set_batch_size(self, batch_size: int) -> None:
        """Says how many images a step of one process has.

        Args:
            batch_size: 1 or more.

        Raises:
            UserError: If it is less, its parts do not divide it, or mixing cannot pair its images.
        """
        if batch_size < 1:
            raise UserError(f"data.batch_size is {batch_size}; it must be 1 or more")
        check_mixing(self.mixup, self.cutmix, batch_size)
        parts = self.micro_batch_size
        if isinstance(parts, int):
            if parts < 1 or batch_size % parts:
                raise UserError(f"data.micro_batch_size is {parts}; it must divide data.batch_size {batch_size}")
            check_mixing(self.mixup, self.cutmix, parts)
        self.batch_size = batch_size

    def split_for(self, fold: int | None, *, labelled_fraction: float | None = None) -> dict[str, NDArray[np.int64]]:
        """The splits of another fold, or of another share of the labels, of the same images.

        Args:
            fold: `None` for those of no fold.
            labelled_fraction: `None` for the configured one.
        """
        if labelled_fraction is None:
            return self._split_for(fold=fold)
        return self._split_for(fold=fold, labelled_fraction=labelled_fraction)

    def prepare_data(self) -> None:
        """Decodes the images, where no earlier run has; Lightning calls this in one process per machine."""
        if self._store is None:
            store = ImageStore.open(self.samples.paths, self._preprocess)
            if self.on_leak != "ignore":
                self.duplicates(store)

    def setup(self, stage: str) -> None:
        """Opens the decoded images and deals with broken ones; does its work once, however often it is called.

        The split is drawn over all listed images before broken ones are left out of it, so that a file that breaks
        moves no other image from training to testing.

        Args:
            stage: Lightning's name of what comes; every stage needs the same.

        Raises:
            UserError: If images are broken and `on_error` is ``stop``, or if a class is left without any.
        """
        if self._store is not None:
            return
        store = ImageStore.open(self.samples.paths, self._preprocess)
        if self.on_leak != "ignore":
            duplicates = self.duplicates(store)
            self.leaks = self.report_leaks(duplicates)
            settled = settle_leaks(
                self.splits, duplicates, report=self.leaks, on_leak=self.on_leak, groups=self.samples.groups
            )
            self.moved = sum(len(np.setdiff1d(self.splits[name], rows)) for name, rows in settled.items())
            # Moved, they are another split, which no run with the first one may be scored on.
            self.splits, self.split_digest = settled, _digest(self.samples.paths, settled)
            self.leaks = self.report_leaks(duplicates)
            check_training_has_all(self.samples, self.splits, self.source)
        if store.broken:
            self._leave_out(store.broken)
        self._answers = self._weighted_targets()
        self._store = store

    def _weighted_targets(self) -> Targets:
        weights = self.samples.weights
        if weights is not None:  # so that a weighted loss is as large as one without weights
            weights = weights / weights[self.splits["train"]].mean()
        return Targets(torch.from_numpy(self.samples.labels), None if weights is None else torch.from_numpy(weights))

    def duplicates(self, store: ImageStore, features: NDArray[np.float32] | None = None) -> list[Duplicate]:
        """Images that are there more than once.

        Args:
            store: The decoded images, beside which the result is kept.
            features: Of all samples, ``(n, d)``, by which sections of others are found, too, every time anew.
        """
        readable = np.setdiff1d(np.arange(len(self.samples)), list(store.broken))
        find = partial(find_duplicates, self.samples.paths, store, indices=readable, features=features)
        return find() if features is not None else cached_duplicates(store.folder, find)

    def report_leaks(self, duplicates: list[Duplicate]) -> LeakReport:
        """What duplicates mean for the splits and the answers; see `leaks.report_leaks`."""
        labels, names = self.samples.targets_in_words()
        return report_leaks(duplicates, self.splits, labels=labels, classes=names, paths=self.samples.paths)

    def _leave_out(self, broken: dict[int, str]) -> None:
        named = name_some([f"{shown(self.samples.paths[index])} ({reason})" for index, reason in broken.items()])
        found = f"{len(broken)} of {len(self.samples)} images of {self.source} cannot be read: {named}"
        if self.on_error == "stop":
            raise UserError(f"{found}; mend them, or leave them out with --data.on_error skip")
        splits = {name: np.setdiff1d(indices, list(broken)) for name, indices in self.splits.items()}
        for name in ("train", "val"):
            if not len(splits[name]):
                raise UserError(f"the {name} split is left without images: {found}")
        readable = np.setdiff1d(np.arange(len(self.samples)), list(broken))
        had, has = (self.samples.counts(rows) > 0 for rows in (np.arange(len(self.samples)), readable))
        if (had & ~has).any():
            name = self.classes[int(np.argmax(had & ~has))]
            raise UserError(f"class {name!r} is left without images: {found}")
        check_training_has_all(self.samples, splits, self.source)
        self.splits, self.skipped = splits, len(broken)

    def answers(self, split: str) -> Targets:
        """The answers of a split, in its order.

        Args:
            split: ``train``, ``val`` or ``test``.
        """
        return self._answers.at(torch.from_numpy(self.splits[split]))

    @property
    def targets_digest(self) -> str:
        """Tells apart what the images of the splits are said to show."""
        digest = hashlib.sha256()
        for rows in self.splits.values():
            digest.update(self.samples.labels[rows].tobytes())
            digest.update(b"" if self.samples.weights is None else self.samples.weights[rows].tobytes())
        return digest.hexdigest()[:16]

    def groups(self, split: str) -> NDArray[np.str_] | None:
        """The group of each image of a split, in its order; `None` where there are no groups."""
        return None if self.samples.groups is None else self.samples.groups[self.splits[split]]

    def notes(self) -> list[str]:
        """What a user should know: classes that a part of the split lacks, and what is made of columns."""
        said = []
        if self._inherited_range is not None:
            black, white = self._inherited_range
            said.append(
                f"pixels are read from {black:g} (black) to {white:g} (white), as in the run of the weights; "
                "--data.pixel_range says otherwise"
            )
        counts = {name: self.samples.counts(self.splits[name]) for name in SPLITS}
        for name in ("val", "test"):
            lacking = np.flatnonzero((counts["train"] > 0) & (counts[name] == 0))
            if len(lacking) and len(self.splits[name]):
                names = name_some([repr(self.classes[number]) for number in lacking], most=5)
                said.append(f"the {name} split has no image of {names}: its figures say nothing about that")
        if self.samples.weights is not None:
            said.append("images count in training as the weight column says")
        if self.samples.times is not None and self.split != "time":
            said.append("the time column has no effect without data.split time")
        return said

    def summary(self) -> dict[str, Any]:
        """What the data were, as plain data for ``summary.json``."""
        counts = {name: self.samples.counts(rows).tolist() for name, rows in self.splits.items()}
        return {
            "source": self.source,
            "answers": self.samples.answers,
            "classes": self.classes,
            "train": len(self.splits["train"]),
            "validation": len(self.splits["val"]),
            "test": len(self.splits["test"]),
            "skipped": self.skipped,
            "split": self.split,
            "split_seed": self.split_seed,
            "fold": self.fold,
            "split_digest": self.split_digest,
            "targets_digest": self.targets_digest,
            "leaks": None if self.leaks is None else {"moved": self.moved, **self.leaks.to_dict()},
            "groups": None if self.samples.groups is None else len(np.unique(self.samples.groups)),
            "class_counts": {name: dict(zip(self.classes, count, strict=False)) for name, count in counts.items()},
        }

    def set_augmentation(self, name: Augmentation | None) -> None:
        """Changes what the next `train_dataloader` does to the images; a phase may have its own.

        Args:
            name: As for ``augmentation``; `None` for the one that was configured.

        Raises:
            UserError: If the name is unknown; the message begins with ``augmentation``, for a caller to say whose.
        """
        if name is None:
            self._augment = make_augmentation(self.augmentation, self._preprocess)
        else:
            self._augment = make_augmentation(name, self._preprocess, key="augmentation")

    def views(self, name: Augmentation | None, count: int | None) -> list[View]:
        """Fixed versions of the training images that stand for an augmentation; see `augmentations.views`.

        Args:
            name: As for ``augmentation``; `None` for the one that was configured.
            count: How many; `None` for all that there are.
        """
        return views(name or self.augmentation, self._preprocess, count=count, key="augmentation")

    def serve(self, kept: Callable[[], Cached | None] | None) -> None:
        """Has the loaders of the next fit read kept activations instead of images; test images stay images.

        Args:
            kept: Asked when the first loader is made, once the model is in place; where it gives `None`, or is `None`,
                the loaders read images.
        """
        self._kept = kept

    def train_dataloader(self) -> DataLoader[Item]:
        """Shuffled or balanced, and augmented; a last batch that is not full is dropped, unless it is the only one."""
        sampler = self._sampler("train", shuffle=True, balanced=self.sampler == "balanced")
        if self.trainer is not None:
            # With worker processes the first batches are under way before Lightning calls set_epoch.
            epochs, _ = _progress(self.trainer)
            sampler.set_epoch(epochs.processed)
        if self._resume is not None:
            sampler.set_epoch(self._resume["epoch"])
            sampler.resume_at(self._resume["epoch"], self._resume["batches"] * self.loaded_batch_size)
            self._resume = None
        if (kept := self._kept and self._kept()) is not None:
            return self._cached_loader(CachedDataset(kept.training, self._answers, seed=self.seed), sampler)
        return self._loader(sampler, self._augment, seed=self.seed)

    @property
    def training_batches(self) -> int:
        """Batches of an epoch that `train_dataloader` will give this process."""
        return math.ceil(len(self._sampler("train", shuffle=True)) / self.loaded_batch_size)

    @property
    def loaded_batch_size(self) -> int:
        """Images that go through the model at once."""
        return self.micro_batch_size if isinstance(self.micro_batch_size, int) else self.batch_size

    def val_dataloader(self) -> DataLoader[Item]:
        """In order, as prediction sees the images."""
        if (kept := self._kept and self._kept()) is not None:
            return self._cached_loader(
                CachedDataset([kept.evaluation], self._answers), self._sampler("val", shuffle=False)
            )
        return self.plain_loader("val")

    def test_dataloader(self) -> DataLoader[Item] | list[DataLoader[Item]]:
        """In order, as prediction sees the images; an empty list where there is no test split."""
        return self.plain_loader("test") if len(self.splits["test"]) else []

    def plain_loader(self, split: str, *, shuffle: bool = False) -> DataLoader[Item]:
        """The images of a split, as evaluation sees them; with several processes, this one's share.

        Its batches hold bytes; see `normalized`.

        Args:
            split: ``train``, ``val`` or ``test``.
            shuffle: Whether they come in the random order of the first epoch, in whole batches only.

        Raises:
            UserError: If the split has fewer images than there are processes.
        """
        return self._loader(self._sampler(split, shuffle=shuffle), evaluation(self._preprocess))

    def view_loader(self, view: View, indices: NDArray[np.int64], batch_size: int) -> DataLoader[Item]:
        """One fixed version of some images, in order; its batches hold bytes, see `normalized`.

        Args:
            view: Which version.
            indices: Of the images among `samples`.
            batch_size: Images per batch; of the last one as many as are left.
        """
        seed = None if view.draw is None else VIEW_SEED
        sampler = EpochSampler(indices, shuffle=False, seed=0)
        sampler.set_epoch(view.draw or 0)
        return self._loader(sampler, view.transform, seed=seed, batch_size=batch_size)

    @property
    def plain_view(self) -> View:
        """The version of the images that evaluation sees."""
        return plain_view(self._preprocess)

    @property
    def images_key(self) -> str:
        """Tells apart lists of image files, as they are on the disk now."""
        return self.store.key

    @property
    def store(self) -> ImageStore:
        """The decoded images, once `setup` has opened them."""
        if self._store is None:
            raise RuntimeError("ImageDataModule.setup comes before its loaders")
        return self._store

    def _sampler(self, split: str, *, shuffle: bool, balanced: bool = False) -> EpochSampler:
        indices = self.splits[split]
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if len(indices) < world_size:
            raise UserError(
                f"the {split} split has {len(indices)} images, too few for {world_size} processes: "
                "use fewer devices, or put more images into it"
            )
        return EpochSampler(
            indices,
            shuffle=shuffle,
            seed=self.seed,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            balance=self.samples.single[indices] if balanced else None,
        )

    def _loader(
        self, sampler: EpochSampler, transform: Transform, *, seed: int | None = None, batch_size: int | None = None
    ) -> DataLoader[Item]:
        workers = self._workers()
        return TimedLoader(
            ImageDataset(self.store, self._answers, transform=transform, seed=seed),
            batch_size=batch_size or self.loaded_batch_size,
            sampler=sampler,  # leaves out the incomplete batch in training, hence no drop_last
            collate_fn=as_it_is,  # type: ignore[arg-type]  # the data set makes whole batches
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own a loader draws from the global generator, and dropout would depend on it.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        # The trainer's GPU rather than the machine's: `--trainer.accelerator cpu` leaves that idle.
        on_cpu = self.trainer is not None and isinstance(self.trainer.accelerator, CPUAccelerator)
        processes = 1 if self.trainer is None else self.trainer.num_devices
        return default_workers(processes=processes, beside_gpu=torch.cuda.is_available() and not on_cpu)

    def _cached_loader(self, dataset: CachedDataset, sampler: EpochSampler) -> DataLoader[Item]:
        return TimedLoader(
            dataset,  # type: ignore[arg-type]  # its batches have activations in the place of the image
            batch_size=self.loaded_batch_size,
            sampler=sampler,
            collate_fn=as_it_is,  # type: ignore[arg-type]  # of a dataset with __getitems__ it gets the batch itself
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),
        )

    def state_dict(self) -> dict[str, int]:
        """Where training stands, for Lightning's checkpoint.

        Returns:
            The ``epoch`` that is under way or comes next, and how many ``batches`` of it are done; empty without a
            trainer.
        """
        if self.trainer is None:
            return {}
        epochs, batches = _progress(self.trainer)
        if epochs.started <= epochs.processed:  # between two epochs, where the batches are those of the last one
            return {"epoch": epochs.processed, "batches": 0}
        if batches.processed >= self.trainer.num_training_batches:  # only validation or the epoch's end is missing
            return {"epoch": epochs.processed + 1, "batches": 0}
        return {"epoch": epochs.processed, "batches": batches.processed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Has the next `train_dataloader` go on where `state_dict` was taken.

        Args:
            state_dict: What `state_dict` gave.
        """
        # Lightning also restores it before testing or predicting, which has nothing to go on with.
        if state_dict and (self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING):
            self._resume = {"epoch": state_dict["epoch"], "batches": state_dict["batches"]}

    def normalized(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch of a loader as the model wants it.

        Args:
            batch: As the loaders make it; stays as it is.

        Returns:
            The batch with ``image`` as ``float32`` in the channels-last memory format.
        """
        image = self._preprocess.normalize(batch["image"])
        return {**batch, "image": image.contiguous(memory_format=torch.channels_last)}

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Normalises on the device, as the images crossed over as bytes, and mixes training batches.

        Args:
            batch: As the loaders make it.
            dataloader_idx: Unused.

        Returns:
            The batch as `normalized` makes it, with ``target`` where it was mixed.
        """
        if "image" not in batch:  # kept activations
            return batch
        batch = self.normalized(batch)
        if self.trainer is None or not self.trainer.training or not (self.mixup or self.cutmix):
            return batch
        if len(batch["label"]) % 2:  # the only batch of a set smaller than data.batch_size
            return batch
        epochs, batches = _progress(self.trainer)
        # Lightning counts a batch as ready after this hook, so `ready` is its number from 0, also after a resume.
        place = (self.seed, epochs.processed, batches.ready, self.trainer.global_rank)
        image, target = mix(
            batch["image"],
            batch["label"],
            classes=len(self.classes),
            mixup=self.mixup,
            cutmix=self.cutmix,
            place=place,
        )
        return {**batch, "image": image, "target": target}


def _progress(trainer: Trainer) -> tuple[Any, Any]:
    """Lightning's counts of epochs, and of batches in the epoch under way; its types leave out half of their fields."""
    loop = trainer.fit_loop
    return loop.epoch_progress.current, loop.epoch_loop.batch_progress.current


def _digest(paths: list[Path], splits: dict[str, NDArray[np.int64]]) -> str:
    """Of the images' names in each split; the folder that holds them may move."""
    digest = hashlib.sha256()
    for name, indices in splits.items():
        for index in indices:
            digest.update(f"{name}\0{paths[index].parent.name}/{paths[index].name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
