"""Paying only for what trains: which part of a phase's backbone is computed once, and served instead of images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from lightning.pytorch import Trainer

from tl_lightning.backbones import CannotSplit
from tl_lightning.backbones.engines import EngineChoice
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.core.console import console
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.cached import Cached
from tl_lightning.data.dataset import View
from tl_lightning.data.images.augmentations import title
from tl_lightning.errors import UserError
from tl_lightning.feature_cache.extractor import Extractor, below
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.selection import frozen_stages
from tl_lightning.tasks.base import TransferTask
from tl_lightning.tasks.solvability import replaced

CacheMode = Literal["off", "auto", "require"]

SERVING = (
    "train_dataloader",
    "val_dataloader",
    "normalized",
    "on_after_batch_transfer",
)  # what cached activations go round


@dataclass(frozen=True)
class Plan:
    """What of a phase is computed once.

    Attributes:
        cut: How many stages, from the input up; 0 for none.
        views: Versions of the training samples that are cached.
        solved: Whether the head is then solved rather than trained.
        reason: Why nothing is cached, or why the head is not solved, where that might be expected; else empty.
    """

    cut: int = 0
    views: tuple[View, ...] = ()
    solved: bool = False
    reason: str = ""


class PhaseCache:
    """Decides for each phase what is cached, has it computed, and has the data module serve it.

    Attributes:
        plan: What of the phase that was begun last is computed once.
        cached: What the loaders of that phase read; `None` where they read samples.
        seconds: Time spent on computing, in all phases, also before a resume.

    Args:
        task: The task whose backbone is cut.
        data: The samples that are run through the part below the cut.
        trainer: The trainer of the run.
        mode: ``off`` caches nothing; ``auto`` whatever can be and is worth it; ``require`` fails where something is
            frozen but cannot be cached.
        engine: What runs the part below the cut.
    """

    def __init__(
        self,
        task: TransferTask,
        data: TransferDataModule,
        trainer: Trainer,
        mode: CacheMode,
        engine: EngineChoice = "auto",
    ) -> None:
        self._task, self._data, self._trainer, self._mode, self._engine = task, data, trainer, mode, engine
        self.plan = Plan()
        self.cached: Cached | None = None
        self.seconds = 0.0
        self._phase = Phase()
        self._opened = False
        self._unsplittable: dict[int, str] = {}  # why, by cut; empty where it can be split

    def plan_for(self, phase: Phase, *, anyway: bool = False) -> Plan:
        """Decides what is cached in a phase.

        Args:
            phase: Which.
            anyway: Whether to cache what can be cached, even if it does not pay.

        Raises:
            UserError: If the mode is ``require`` and nothing can be cached, or the phase asks for views there are not.
        """
        stages = self._task.stages
        cut = frozen_stages(stages, phase.train)
        if phase.views is not None:
            self._data.views(phase.augmentation, phase.views)
            if not cut:
                raise UserError(f"views is {phase.views}, but the first stage trains: there is nothing to cache")
        if not cut or self._mode == "off":
            return Plan(reason="cache is off: views has no effect" if phase.views is not None else "")
        plan, obstacle = Plan(), self._obstacle(phase, cut)
        if not obstacle:
            views = tuple(self._data.views(phase.augmentation, phase.views))
            unsolvable = self._unsolvable(len(views)) if cut == len(stages) else ""
            plan = Plan(cut, views, solved=unsolvable is None, reason=unsolvable or "")
            epochs = phase.epochs or 1
            pays = anyway or plan.solved or phase.views is not None or len(views) < epochs
            if not pays and self._mode == "auto":
                obstacle = f"computing {_count(len(views), 'view')} once is no less work than {_count(epochs, 'epoch')}"
        if obstacle and self._mode == "require":
            raise UserError(f"cache is require, but what is frozen cannot be cached: {obstacle}")
        return Plan(reason=obstacle) if obstacle else plan

    def _unsolvable(self, views: int) -> str | None:
        """Why a head alone has to be trained by steps; `None` where it is solved."""
        ridge = any(objective.solver == "ridge" for objective in self._task.objectives.values())
        if self._task.unsolvable is None and ridge and views > 1:
            return "ridge leaves one row out, which means little where other views of the image stay"
        if self._task.unsolvable is None and self._data.sampler == "balanced":
            return "data.sampler is balanced, which draws anew in each epoch (model.class_weights balanced is solved)"
        return self._task.unsolvable

    def _obstacle(self, phase: Phase, cut: int) -> str:
        """Why a phase's frozen part cannot be cached; empty where it can."""
        data, trainer = self._data, self._trainer
        if not isinstance(data, TransferDataModule):
            return f"{type(data).__name__} can serve samples only"
        ours = next(owner for owner in type(data).__mro__ if owner.__module__.startswith("tl_lightning."))
        if reason := self._task.unkeepable or replaced(data, ours, SERVING):
            return reason
        # As a number of batches 1 is a limit, as a share it is none.
        limits = (trainer.limit_train_batches, trainer.limit_val_batches)
        if any(limit is not None and (type(limit) is int or limit != 1.0) for limit in limits):
            return "trainer.limit_*_batches asks for a part of the images"
        if data.mixes:
            return f"{data.mixes} mix samples anew in each epoch"
        if not data.views(phase.augmentation, phase.views):
            name = title(phase.augmentation or data.augmentation)
            return f"augmentation {name} draws anew in each epoch (views: 4 would cache four versions of each sample)"
        if cut not in self._unsplittable:
            try:
                self._task.transferred.split(cut)
                self._unsplittable[cut] = ""
            except CannotSplit as error:
                self._unsplittable[cut] = str(error)
        return self._unsplittable[cut]

    def begin(self, phase: Phase, *, keep: bool | None = None, solved: bool | None = None) -> Plan:
        """Sets what the loaders of the next fit read.

        Args:
            phase: About to start.
            keep: Whether to cache anything; `None` to cache what can be cached and pays.
            solved: Whether its head is solved; `None` to solve what can be solved.

        Returns:
            What is cached.
        """
        plan = Plan() if keep is False else self.plan_for(phase, anyway=keep is True)
        self._phase, self.cached, self._opened = phase, None, False
        possible = keep is False or plan.cut > 0  # a resume may forbid what the run began with
        self.plan = plan if solved is None else replace(plan, solved=solved and possible)
        self._serve()
        return self.plan

    @contextmanager
    def validating(self, phase: Phase) -> Iterator[None]:
        """Has a validation read what is cached of its samples; weights that have changed since have another key.

        Args:
            phase: One in which the whole backbone was frozen and cached.
        """
        self.begin(phase, keep=True, solved=False)
        self.plan = replace(self.plan, views=())
        try:
            yield
        finally:
            self.end()

    @property
    def cached_after(self) -> str | None:
        """The stage whose output is cached; `None` where samples are read."""
        return self._task.stages[self.plan.cut - 1].name if self.plan.cut else None

    def end(self) -> None:
        """Goes back to images, which is where testing and prediction start."""
        self.plan, self.cached = Plan(), None
        self._serve()

    def _serve(self) -> None:
        self._task.start_above(None)
        if isinstance(self._data, TransferDataModule):
            self._data.serve(self._open if self.plan.cut else None)

    def _open(self) -> Cached | None:
        """Computes what is missing; called when the first loader is made, after BatchNorm has adapted."""
        if self._opened:
            return self.cached
        self._opened, begun = True, time.perf_counter()
        try:
            self.cached = self._compute()
        except (NoRoom, CannotSplit) as error:
            if self._mode == "require":
                raise UserError(
                    f"phase {self._phase.name}: cache is require, but what is frozen cannot be cached: {error}"
                ) from error
            console.print(f"not cached {error}; going on from {self._data.noun}", style="yellow")
            if self.plan.solved:  # one epoch was to be enough, to look at the result
                self._trainer.fit_loop.max_epochs = self._trainer.current_epoch + (self._phase.epochs or 1)
            self.plan = Plan(reason=str(error))
            self._task.train_by_steps()
        self.seconds += time.perf_counter() - begun
        return self.cached

    def _compute(self) -> Cached:
        begun = time.perf_counter()
        part = below(self._task.transferred, self.plan.cut)
        extractor = Extractor(self._task, self._data, self._trainer, self._engine)
        plain = self._data.plain_view
        wanted = {view.name: (view, self._data.training_rows) for view in self.plan.views}
        held_out = self._data.splits["val"]
        rows = np.union1d(wanted[plain.name][1], held_out) if plain.name in wanted else held_out
        wanted[plain.name] = (plain, rows)
        stores = extractor.extract(part, list(wanted.values()))
        total = sum(len(indices) for _, indices in wanted.values())
        found = total - extractor.computed
        parts = [f"{found:,} found in the cache"] if found else []
        if extractor.computed:
            parts.append(f"{extractor.computed:,} computed in {time.perf_counter() - begun:.1f} s")
        versions = f" in {len(self.plan.views)} views" if len(self.plan.views) > 1 else ""
        size = total * stores[plain.name].row_bytes / 2**20
        if self.plan.views:  # of the phase, and not of its validation samples once more
            console.print(
                f"cached     {total:,} {self._data.noun}{versions} after {part.name} ({size:,.1f} MiB): "
                + ", ".join(parts)
            )
        self._task.start_above(part.rest)
        return Cached([stores[view.name] for view in self.plan.views], stores[plain.name])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
