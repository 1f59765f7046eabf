"""What all data modules have in common: from a source to samples, splits and batches, to be gone on with exactly."""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, default_collate

from tl_lightning.data.arguments import check_arguments, check_batch_size
from tl_lightning.data.broken import check_without, splits_without
from tl_lightning.data.cached import Cached, CachedDataset
from tl_lightning.data.dataset import Sample, SampleDataset, Store, Targets, Transform, View, make_targets
from tl_lightning.data.describing import data_notes, data_summary, digest_contents, digest_splits, digest_targets
from tl_lightning.data.leaks import (
    Duplicate,
    LeakReport,
    OnLeak,
    cached_duplicates,
    groups_of,
    report_leaks,
    settle_leaks,
)
from tl_lightning.data.loader import make_loader
from tl_lightning.data.resume import place_of, progress
from tl_lightning.data.samples import EVALUATION, ProblemType, Samples, check_training_has_all
from tl_lightning.data.sampling import EpochSampler
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import read_source
from tl_lightning.data.splits import split_samples
from tl_lightning.data.targets import Unlabelled
from tl_lightning.data.unlabelled import may_train, without_label
from tl_lightning.data.workers import default_workers
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess

VIEW_SEED = 0  # of the views that are cached, whatever the run's seed, so that runs can share them


class TransferDataModule(LightningDataModule):
    """Samples and their targets: listed at once, opened by `setup`, split and batched.

    Batches are dicts: what the model takes, ``index`` (``int64`` ``(n,)``) and ``label`` (see `Target.labels`; of
    several targets a dict by their names). Where the source states weights there is ``weight`` (``float32`` ``(n,)``,
    mean 1 over the training samples), where it has domains ``domain`` (``int64`` ``(n,)``, a place in `domains`), and
    where there are samples without a label ``labelled`` (``bool`` ``(n,)``).

    A subclass says how samples are read and prepared: `open_store`, `transform` and `find_duplicates`,
    and where it needs one its own `collate` or `list_samples`. What it draws or mixes anew in each epoch it says by
    `views`, `set_augmentation` and `mixes`.

    Attributes:
        noun: What the samples are called in messages, in the plural.
        reading: What is entered around all threads that read files to predict.
        augmentation: The configured augmentation; a subclass with several has an argument for it.
        samples: All listed samples; the indices of `splits` point into it.
        classes: Names of the classes, levels, labels or numbers, in the order of the model's outputs; of several
            targets by the target's name.
        domains: Names of the domains, which the numbers in the batches point into; empty without domains.
        preprocess: The preprocessing in force, with `image_size` and the like applied.
        prepared: The same as plain data.
        drawn_digest: Tells apart which samples were drawn into which split, before copies were moved.
        split_digest: Tells apart which samples are in which split; broken ones count.
        splits: Sorted sample indices under ``train``, ``val`` and ``test``.
        unlabelled_rows: Sorted indices of samples without a label that may train, see `training_rows`.
        skipped: Number of broken samples that were left out by `setup`.
        leaks: Which samples are there more than once in the splits in force, found by `setup`; `None` where that was
            not looked for.
        moved: How many samples another split got for their copies or their group.
    """

    noun: ClassVar[str] = "samples"
    reading: ClassVar[Callable[[], AbstractContextManager[None]]] = staticmethod(nullcontext)
    augmentation: Any = "none"

    def __init__(
        self,
        source: str,
        preprocess: dict[str, Any],
        *,
        input_column: str,
        batch_size: int = 32,
        micro_batch_size: int | Literal["auto"] | None = None,
        split: str = "auto",
        split_seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.25,
        fold: int | None = None,
        folds: int = 5,
        labelled_fraction: float = 1.0,
        target: str | None = None,
        label_column: str | list[str] = "label",
        label_separator: str = "|",
        split_column: str | None = None,
        group_column: str | None = None,
        domain_column: str | None = None,
        weight_column: str | None = None,
        time_column: str | None = None,
        classes: list[str | int | float] | dict[str, list[str | int | float]] | None = None,
        unlabelled: Unlabelled = "stop",
        sampler: Literal["shuffled", "balanced"] = "shuffled",
        on_error: Literal["stop", "skip"] = "stop",
        on_leak: OnLeak = "warn",
        num_workers: int | None = None,
        problem_type: ProblemType | dict[str, ProblemType] = "multiclass",
        seed: int = 0,
    ) -> None:
        """Lists the samples and splits them; no file is read yet.

        Args:
            source: A folder with one sub-folder per class (optionally under train/, val/, test/), a .csv or .parquet
                table, a zip or tar archive, WebDataset shards, an export of Label Studio, CVAT or Roboflow,
                torchvision/NAME, datasets/NAME[:CONFIG] or datasets/FOLDER (of the Hugging Face library), or elpv.
            preprocess: The preprocessing in force, as plain data.
            input_column: Column of a table that names or holds the samples.
            batch_size: Samples per step of one process; several processes train on that many each. --global_batch
                takes its place.
            micro_batch_size: Computes a batch in parts of so many samples and adds up their gradients, which needs
                less memory; auto for the largest that fits into what is free.
            split: auto (what the source states, else group or stratified), stratified, group (where there are groups:
                none on both sides), blocks (contiguous ranges of the source), time (the latest test) or A_to_B for a
                source with domains (elpv: mono_to_poly, poly_to_mono). tl test reads another source than the run's by
                evaluation: all of it, or what it states.
            split_seed: Chooses the split; keep it while seed_everything varies, and the test samples stay the same.
            val_fraction: Share of the training part that is put aside for validation, where the source states none.
            test_fraction: Share of all samples that is put aside for testing, where the source states no split; 0 for
                no test.
            fold: Tests on this one of the folds, from 0, instead of a fraction; tl crossval runs them all.
            folds: Into how many parts the samples are divided for that.
            labelled_fraction: Share of the training and validation samples that is used, as if the others had no
                label yet: what would fewer have given? The test samples stay the same; which ones it is, the seed
                decides.
            target: What to learn where the source has several targets (elpv: defect, level, type or probability).
            label_column: Column of the table with the targets; several for several numbers, or for labels that are
                marked with 0 and 1.
            label_separator: Between the labels of one cell, where a sample may have several.
            split_column: Column that says train, val or test; by default split, where there is one.
            group_column: Column of what must not be torn apart, such as the patient; by default group, where there is
                one.
            domain_column: Column of where a sample comes from, such as the hospital; by default domain, where there is
                one.
            weight_column: Column of how much a sample counts in training; by default weight, where there is one.
            time_column: Column of when a sample was taken, for split time: a number or a date.
            classes: Names of the classes in the order of the outputs, of levels from the lowest; by default sorted.
                Numbers are the source's by their value, 1 and 1.0.
                For several targets by their names.
            unlabelled: What to do about rows without a label: stop, or keep them, and those that labelled_fraction
                takes the label from, for tasks that learn from such samples; others train on labelled ones alone.
            sampler: shuffled goes through the training samples once per epoch; balanced draws as many, but from all
                classes equally often.
            on_error: What to do about files that cannot be read: stop before training, or skip and count them.
            on_leak: What to do about samples that are in two splits, for images also re-encoded, mirrored or turned:
                warn of it, stop, or move them, out of the test split first; ignore does not look for them.
            num_workers: Processes that prepare batches; by default none on a CPU, where training needs every core, and
                up to 8 beside a GPU, out of the cores that this process may use. What is cached is read without them.
            problem_type: multiclass, ordinal, multilabel or regression, for several targets by their names (columns, or
                elpv's); comes from the task.
            seed: Seeds shuffling and augmentation; comes from seed_everything.

        Raises:
            UserError: If the source or one of the settings cannot be used.
        """
        super().__init__()
        self.set_batch_size(batch_size, micro_batch_size)
        check_arguments(
            num_workers=num_workers, sampler=sampler, on_leak=on_leak, on_error=on_error, unlabelled=unlabelled
        )
        self.source = source
        self.preprocess = Preprocess.from_dict(preprocess)
        self.prepared = self.preprocess.to_dict()
        self.split = split
        self.split_seed = split_seed
        self.on_error = on_error
        self.on_leak = on_leak
        self.seed = seed
        self.sampler = sampler
        self.num_workers = num_workers
        columns = Columns(
            image=input_column,
            label=label_column,
            split=split_column,
            group=group_column,
            domain=domain_column,
            weight=weight_column,
            time=time_column,
        )
        self.samples = self.list_samples(
            source,
            problem_type=problem_type,
            target=target,
            columns=columns,
            separator=label_separator,
            classes=classes,
            unlabelled=unlabelled,
            evaluating=split == EVALUATION,
        )
        if sampler == "balanced" and self.samples.first.problem_type not in ("multiclass", "ordinal"):
            raise UserError("data.sampler balanced draws all classes equally often, and these have none")
        by_name = {name: each.classes for name, each in self.samples.targets.items()}
        self.classes: Any = self.samples.classes if isinstance(problem_type, str) else by_name
        self.domains = [] if self.samples.domains is None else sorted(set(self.samples.domains.tolist()))
        self._labelled = np.flatnonzero(self.samples.labelled)
        self._split_for = partial(
            split_samples,
            self.samples if len(self._labelled) == len(self.samples) else self.samples.at(self._labelled),
            split,
            seed=split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            folds=folds,
            labelled_fraction=labelled_fraction,
            labelled_seed=seed,
        )
        self.splits = self.split_for(fold)
        self.unlabelled_rows = self._hidden = np.zeros(0, dtype=np.int64)
        if unlabelled == "keep" and split != EVALUATION:
            self._hidden = without_label(self.split_for(fold, labelled_fraction=1.0), self.splits)
            bare = np.union1d(np.flatnonzero(~self.samples.labelled), self._hidden)
            self.unlabelled_rows = may_train(self.samples, self.splits, bare, split)
        self._uses_unlabelled = False
        self._targets = self._make_targets()
        self.fold = fold
        self.drawn_digest = self.split_digest = digest_splits(self.samples.paths, self.splits, self.unlabelled_rows)
        self.skipped = 0
        self.leaks: LeakReport | None = None
        self.moved = 0
        self._cached: Callable[[], Cached | None] | None = None
        self._resume: dict[str, int] | None = None
        self._store: Store | None = None

    # What a subclass says of its samples.

    def list_samples(self, source: str, **asked: Any) -> Samples:  # noqa: ANN401 - what `read_source` takes
        """Lists the samples of a source with their targets; a subclass whose targets are of another kind has its own.

        Args:
            source: Where they are.
            **asked: What the arguments say of it; see `read_source`.
        """
        return read_source(source, **asked)

    def open_store(self) -> Store:
        """Reads the files of `samples`, where no earlier run has, and opens what was made of them."""
        raise NotImplementedError

    def transform(self, view: Literal["training", "plain"]) -> Transform:
        """From what the store holds to what the model sees; samples to predict, and others, come without targets.

        Args:
            view: ``training`` may draw at random; ``plain`` is what evaluation and prediction see.
        """
        raise NotImplementedError

    def find_duplicates(
        self, store: Store, indices: NDArray[np.int64], features: NDArray[np.float32] | None
    ) -> list[Duplicate]:
        """Looks for samples that are there more than once.

        Args:
            store: The opened samples.
            indices: The samples to look at, which can be read.
            features: What a backbone makes of all samples, ``(n, d)``, where that was asked to help.
        """
        raise NotImplementedError

    @staticmethod
    def collate(samples: Sequence[Sample]) -> dict[str, Any]:
        """Makes a batch of a list of samples; a static method, as worker processes that are spawned get it pickled."""
        batch: dict[str, Any] = default_collate(list(samples))
        return batch

    @staticmethod
    def find_files(path: Path) -> list[Path]:
        """Lists the file at a path, or all files below a folder that can be samples, sorted: those to predict.

        Args:
            path: A file or a folder.

        Raises:
            UserError: If there is nothing there.
        """
        raise NotImplementedError

    @staticmethod
    def parts_of(paths: Sequence[Path], preprocess: Preprocess) -> list[Path]:
        """The samples in some files to predict, in their order; each file is one, unless a subclass knows better.

        Args:
            paths: The files.
            preprocess: What the model expects.
        """
        return list(paths)

    @staticmethod
    def read_file(path: Path, preprocess: Preprocess) -> Sample:
        """Reads a file to predict, prepared as evaluation sees the samples of the store.

        Args:
            path: The file.
            preprocess: What the model expects.

        Raises:
            BrokenSample: If it cannot be read.
        """
        raise NotImplementedError

    def normalized(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch of a loader as the model wants it; on the batch's device.

        Args:
            batch: As the loaders make it; stays as it is.
        """
        return self.preprocess.on_device(batch)

    @property
    def mixes(self) -> str:
        """Which settings mix the samples of a batch in pairs, anew in each epoch; empty where none do."""
        return ""

    def set_augmentation(self, name: Any) -> None:  # noqa: ANN401 - a name, or what a subclass takes
        """Changes what the next `train_dataloader` does to the samples; a phase may have its own.

        Args:
            name: The augmentation; `None` for the one that was configured.

        Raises:
            UserError: If it is unknown; the message begins with ``augmentation``, for a caller to say whose.
        """
        if name not in (None, "none"):
            raise UserError(f"augmentation {name!r} is unknown; {type(self).__name__} has none")

    def views(self, name: Any, count: int | None) -> list[View]:  # noqa: ANN401 - as for `set_augmentation`
        """Fixed versions of the training samples that stand for an augmentation; drawing one is drawing from it.

        Args:
            name: The augmentation; `None` for the one that was configured.
            count: How many; `None` for all that there are.

        Raises:
            UserError: If the augmentation is unknown, or has not as many.
        """
        if count is not None and count > 1:
            raise UserError(f"views is {count}, but {type(self).__name__} has only 1")
        return [self.plain_view]

    # Batches, splits and targets.

    def set_batch_size(self, batch_size: int, micro_batch_size: int | Literal["auto"] | None) -> None:
        """Says how many samples a step of one process has, and in which parts they go through the model.

        Args:
            batch_size: 1 or more.
            micro_batch_size: Samples that go through the model at once, ``auto``, or `None` for the whole batch.

        Raises:
            UserError: If it is less, or its parts do not divide it.
        """
        check_batch_size(batch_size, micro_batch_size)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size

    @property
    def loaded_batch_size(self) -> int:
        """Samples that go through the model at once."""
        return self.micro_batch_size if isinstance(self.micro_batch_size, int) else self.batch_size

    def split_for(self, fold: int | None, *, labelled_fraction: float | None = None) -> dict[str, NDArray[np.int64]]:
        """The splits of another fold, or of another share of the labels, of the same samples.

        Args:
            fold: `None` for the splits of no fold.
            labelled_fraction: `None` for the configured one.
        """
        own: dict[str, Any] = {} if labelled_fraction is None else {"labelled_fraction": labelled_fraction}
        return {name: self._labelled[rows] for name, rows in self._split_for(fold=fold, **own).items()}

    @property
    def training_rows(self) -> NDArray[np.int64]:
        """The samples that `train_dataloader` goes through, those without a label where the task can use them."""
        return np.union1d(self.splits["train"], self.unlabelled_rows) if self._uses_unlabelled else self.splits["train"]

    def use_unlabelled(self, used: bool) -> None:
        """Says whether the samples without a label train too.

        Args:
            used: What the task says; see `TransferTask.uses_unlabelled`.
        """
        self._uses_unlabelled = used

    def targets(self, split: str) -> Targets:
        """The targets of a split, in its order.

        Args:
            split: ``train``, ``val`` or ``test``.
        """
        return self._targets.at(torch.from_numpy(self.splits[split]))

    @property
    def targets_digest(self) -> str:
        """Tells apart what the samples of the splits are said to show."""
        return digest_targets(self.samples, self.splits)

    @property
    def contents_digest(self) -> str | None:
        """Tells apart what the samples of the splits show, however they are split; `None` before `setup`."""
        return None if self._store is None else digest_contents(self._store, self.splits)

    def groups(self, split: str) -> NDArray[np.str_] | None:
        """The group of each sample of a split, in its order; `None` where there are no groups."""
        return None if self.samples.groups is None else self.samples.groups[self.splits[split]]

    # Opening.

    def prepare_data(self) -> None:
        """Reads the samples, where no earlier run has; Lightning calls this in one process per machine."""
        if self._store is None:
            store = self.open_store()
            if self.on_leak != "ignore":
                self.duplicates(store)

    def setup(self, stage: str) -> None:
        """Opens the samples and deals with broken ones; does its work once, however often it is called.

        The split is drawn over all listed samples before broken ones are left out of it, so that a file that breaks
        moves no other sample from training to testing.

        Args:
            stage: Lightning's name of what comes; every stage needs the same.

        Raises:
            UserError: If samples are broken and `on_error` is ``stop``, or if a class is left without any.
        """
        if self._store is not None:
            return
        store = self.open_store()
        if self.on_leak != "ignore":
            self._settle(self.duplicates(store))
        if store.broken:
            skip = self.on_error == "skip"
            check_without(
                self.samples,
                self.splits,
                store.broken,
                skip=skip,
                trains=self.split != EVALUATION,
                source=self.source,
                noun=self.noun,
            )
            self.leave_out(store.broken)
        self._targets = self._make_targets()
        self._store = store

    @property
    def store(self) -> Store:
        """The opened samples, once `setup` has opened them."""
        if self._store is None:
            raise RuntimeError(f"{type(self).__name__}.setup comes before its loaders")
        return self._store

    @property
    def inputs_key(self) -> str:
        """Tells apart lists of files, as they are on the disk now."""
        return self.store.key

    def expect_leaks(self) -> None:
        """Has `setup` not look for leaks where it would do no more than warn, as the caller has others to say so."""
        if self.on_leak == "warn":
            self.on_leak = "ignore"

    def duplicates(self, store: Store, features: NDArray[np.float32] | None = None) -> list[Duplicate]:
        """Samples that are there more than once.

        Args:
            store: The opened samples, beside which the result is cached.
            features: What a backbone makes of all samples, ``(n, d)``, by which sections of others
                are found, too, every time anew.
        """
        readable = np.setdiff1d(np.arange(len(self.samples)), list(store.broken))
        find = partial(self.find_duplicates, store, readable, features)
        return find() if features is not None else cached_duplicates(store.folder, find)

    def report_leaks(self, duplicates: list[Duplicate]) -> LeakReport:
        """What duplicates mean for the splits and the targets; see `leaks.report_leaks`."""
        labels, names = self.samples.targets_in_words()
        return report_leaks(duplicates, self.splits, labels=labels, classes=names, paths=self.samples.paths)

    def _settle(self, duplicates: list[Duplicate]) -> None:
        self.leaks = self.report_leaks(duplicates)
        settled = settle_leaks(
            self.splits, duplicates, report=self.leaks, on_leak=self.on_leak, groups=self.samples.groups
        )
        self.moved = sum(len(np.setdiff1d(self.splits[name], rows)) for name, rows in settled.items())
        # Moved, they are another split, which no run with the first one may be scored on.
        self.splits = settled
        held_out = np.union1d(settled["val"], settled["test"])
        together = groups_of(duplicates, len(self.samples))
        self.unlabelled_rows = self.unlabelled_rows[~np.isin(together[self.unlabelled_rows], together[held_out])]
        self.split_digest = digest_splits(self.samples.paths, self.splits, self.unlabelled_rows)
        self.leaks = self.report_leaks(duplicates)
        check_training_has_all(self.samples, self.splits, self.source)

    def leave_out(self, rows: Collection[int]) -> None:
        """Takes samples out of all splits, and counts them as skipped; whether enough is left is not looked at.

        Args:
            rows: Indices of the samples.
        """
        self.splits = splits_without(self.splits, rows)
        self.unlabelled_rows = np.setdiff1d(self.unlabelled_rows, list(rows))
        self.skipped = len(rows)

    def _make_targets(self) -> Targets:
        return make_targets(
            self.samples,
            self.splits["train"],
            domains=self.domains,
            hidden=self._hidden,
            tell_labelled=len(self.unlabelled_rows) > 0,
            several=isinstance(self.classes, dict),
        )

    # What there is to say.

    def notes(self) -> list[str]:
        """What a user should know: classes that a part of the split lacks, and what is made of columns."""
        return data_notes(self)

    def summary(self) -> dict[str, Any]:
        """What the data were, as plain data for ``summary.json``."""
        return data_summary(self)

    # Loaders.

    def serve(self, cached: Callable[[], Cached | None] | None) -> None:
        """Has the loaders of the next fit read cached activations instead of samples; test samples stay samples.

        Args:
            cached: Asked when the first loader is made, once the model is in place; where it gives `None`, or is
                `None`, the loaders read samples.
        """
        self._cached = cached

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled or balanced, and augmented; a last batch that is not full is dropped, unless it is the only one."""
        rows, balanced = self.training_rows, self.sampler == "balanced"
        if balanced and len(rows) > len(self.splits["train"]):
            raise UserError("data.sampler balanced draws all classes equally often, and unlabelled samples have none")
        sampler = self._sampler("train", shuffle=True, balanced=balanced, rows=rows)
        if self.trainer is not None:
            # With worker processes the first batches are under way before Lightning calls set_epoch.
            epochs, _ = progress(self.trainer)
            sampler.set_epoch(epochs.processed)
        if self._resume is not None:
            sampler.set_epoch(self._resume["epoch"])
            sampler.resume_at(self._resume["epoch"], self._resume["batches"] * self.loaded_batch_size)
            self._resume = None
        if (cached := self._cached and self._cached()) is not None:
            return self._cached_loader(CachedDataset(cached.training, self._targets, seed=self.seed), sampler)
        return self._loader(sampler, self.transform("training"), seed=self.seed)

    @property
    def training_batches(self) -> int:
        """Batches of an epoch that `train_dataloader` will give this process."""
        return math.ceil(len(self._sampler("train", shuffle=True, rows=self.training_rows)) / self.loaded_batch_size)

    def val_dataloader(self) -> DataLoader[Sample]:
        """In order, as prediction sees the samples."""
        if (cached := self._cached and self._cached()) is not None:
            dataset = CachedDataset([cached.evaluation], self._targets)
            return self._cached_loader(dataset, self._sampler("val", shuffle=False))
        return self.plain_loader("val")

    def test_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """In order, as prediction sees the samples; an empty list where there is no test split."""
        return self.plain_loader("test") if len(self.splits["test"]) else []

    def plain_loader(self, split: str, *, shuffle: bool = False) -> DataLoader[Sample]:
        """The samples of a split, as evaluation sees them; with several processes, this one's share.

        Its batches are to be `normalized`.

        Args:
            split: ``train``, ``val`` or ``test``.
            shuffle: Whether they come in the random order of the first epoch, in whole batches only.

        Raises:
            UserError: If the split has fewer samples than there are processes.
        """
        return self._loader(self._sampler(split, shuffle=shuffle), self.transform("plain"))

    @property
    def plain_view(self) -> View:
        """The version of the samples that evaluation sees."""
        return View("plain", self.transform("plain"))

    def view_loader(self, view: View, indices: NDArray[np.int64], batch_size: int) -> DataLoader[Sample]:
        """One fixed version of some samples, in order; its batches are to be `normalized`.

        Args:
            view: Which version.
            indices: Indices of the samples among `samples`.
            batch_size: Samples per batch; of the last one as many as are left.
        """
        seed = None if view.draw is None else VIEW_SEED
        sampler = EpochSampler(indices, shuffle=False, seed=0)
        sampler.set_epoch(view.draw or 0)
        return self._loader(sampler, view.transform, seed=seed, batch_size=batch_size)

    def _sampler(
        self, split: str, *, shuffle: bool, balanced: bool = False, rows: NDArray[np.int64] | None = None
    ) -> EpochSampler:
        indices = self.splits[split] if rows is None else rows
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if len(indices) < world_size:
            raise UserError(
                f"the {split} split has {len(indices)} {self.noun}, too few for {world_size} processes: "
                f"use fewer devices, or put more {self.noun} into it"
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
    ) -> DataLoader[Sample]:
        dataset = SampleDataset(self.store, self._targets, transform=transform, collate=self.collate, seed=seed)
        size = batch_size or self.loaded_batch_size
        return make_loader(dataset, sampler, batch_size=size, seed=self.seed, workers=self._workers())

    def _cached_loader(self, dataset: CachedDataset, sampler: EpochSampler) -> DataLoader[Sample]:
        return make_loader(dataset, sampler, batch_size=self.loaded_batch_size, seed=self.seed)

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        # The trainer's GPU rather than the machine's: `--trainer.accelerator cpu` leaves that idle.
        on_cpu = self.trainer is not None and isinstance(self.trainer.accelerator, CPUAccelerator)
        processes = 1 if self.trainer is None else self.trainer.num_devices
        return default_workers(processes=processes, beside_gpu=torch.cuda.is_available() and not on_cpu)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Prepares a batch on the device, to which it crossed over as small as it is.

        Args:
            batch: As the loaders make it.
            dataloader_idx: Unused.

        Returns:
            The batch as `normalized` makes it; cached activations as they are.
        """
        return batch if "activations" in batch else self.normalized(batch)

    # Exact resume.

    def state_dict(self) -> dict[str, int]:
        """Where training stands, for Lightning's checkpoint; see `place_of`. Empty without a trainer."""
        return {} if self.trainer is None else place_of(self.trainer)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Has the next `train_dataloader` go on where `state_dict` was taken.

        Args:
            state_dict: What `state_dict` gave.
        """
        # Lightning also restores it before testing or predicting, which has nothing to go on with.
        if state_dict and (self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING):
            self._resume = {"epoch": state_dict["epoch"], "batches": state_dict["batches"]}
