"""Measures, phase by phase, how far fine-tuning has gone from the pretrained weights, and what that has cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_lightning.backbones import CannotSplit
from tl_lightning.core.console import console, track
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.dataset import Store
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.feature_cache.extractor import BATCH, Extractor, weights_digest
from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.tasks.base import TransferTask
from tl_lightning.training.forgetting.cka import FEWEST, linear_cka
from tl_lightning.training.forgetting.source import KEY, Source, open_source
from tl_lightning.training.forgetting.tables import forgetting_table, in_a_sentence

Weights = dict[str, Tensor]  # parameters and buffers of the backbone


@dataclass(frozen=True)
class Forgetting:
    """What is measured of forgetting after each phase that changes a pretrained backbone.

    Args:
        images: Validation images on which features before and after are compared; 0 compares weights alone.
        source: A folder with one sub-folder per class of what the weights were trained for (of ImageNet by number,
            WordNet id or label), to see how many of them the original head still gets right.
    """

    images: int = 128
    source: str | None = None

    def __post_init__(self) -> None:
        """Checks the number of images."""
        if self.images < 0 or 0 < self.images < FEWEST:
            raise UserError(
                f"forgetting.images is {self.images}; it must be 0 for none, or {FEWEST} or more to compare"
            )


class ForgettingMeter:
    """Remembers the weights with which a run begins, and compares the backbone with them.

    It changes nothing of the run: no weights, no modes, no random state. Only the first of several processes measures,
    alone, so there is nothing to wait for but for it.

    Args:
        task: With the weights that its configuration builds, before any checkpoint is loaded.
        data: The data, whose validation images are looked at.
        trainer: Says precision and device.
        options: What is measured.
    """

    def __init__(self, task: TransferTask, data: TransferDataModule, trainer: Trainer, options: Forgetting) -> None:
        self._task, self._data, self._trainer, self._options = task, data, trainer, options
        self._pretrained = task.hparams["weights"] != "none"
        measures = self._pretrained and trainer.is_global_zero
        self._start = {name: tensor.clone() for name, tensor in _weights(task.backbone).items()} if measures else {}
        self._source: Source | None = None
        self._source_before = 0.0
        self._start_outputs: list[Tensor] | None = None
        self._last: tuple[str, dict[str, Any]] | None = None  # the weights' digest, and what was found of them

    def prepare(self) -> None:
        """Opens the source, if there is one, so that what is wrong with it is said before anything trains.

        Raises:
            UserError: If there are no pretrained weights, or see `open_source`.
        """
        if self._options.source is None:
            return
        if not self._pretrained:
            raise UserError(f"{KEY} tells what pretrained weights forget, but model.weights is none; leave it out")
        if not isinstance(self._data, ImageDataModule):
            raise UserError(f"{KEY} needs images prepared as the run's, which {type(self._data).__name__} cannot do")
        if not self._start:
            return
        self._source = open_source(
            self._options.source,
            backbone=self._task.hparams["backbone"],
            weights=self._task.hparams["weights"],
            num_features=self._task.num_features,
            preprocess=ImagePreprocess.from_dict(self._task.preprocess),
        )

    def measure(self, phase: str) -> dict[str, Any] | None:
        """Compares the backbone as it is with how it began, and shows what is new.

        Args:
            phase: The name of the phase that has just ended.

        Returns:
            Plain data: ``images`` (how many features were compared on); ``stages``, a row each with ``stage``,
            ``weight_distance`` (||w - w0|| / ||w0|| over its parameters, 0 or more) and ``cka`` (between what the stage
            hands on, at most 1; `None` where it cannot be seen); and, with a source, ``source`` with the accuracies
            ``before`` and ``after`` on so many ``images``. `None` where there is nothing to tell: the backbone is as
            it was and there is no source, it began at random, or another process measures.
        """
        if not self._start or not self._trainer.is_global_zero:  # ranks may be given out after this was made
            return None
        now = _weights(self._task.backbone)
        start = {name: tensor.to(now[name].dtype) for name, tensor in self._start.items()}  # as of bf16-true
        # What a stage hands on is as it was where all stages up to it are.
        names = [(*stage.parameters, *stage.buffers) for stage in self._task.stages]
        moved = (any(not torch.equal(start[name], now[name]) for name in each) for each in names)
        changed = list(accumulate(moved, max))
        if self._source is None and not changed[-1]:
            return None
        digest = weights_digest(self._task.backbone, self._task.stages)
        if self._last is not None and self._last[0] == digest:
            return self._last[1]
        rows, similarities = self._rows(), [1.0 if not each else None for each in changed]
        if changed[-1] and len(rows):
            similarities = self._similarities(start, now, rows, changed)
        record: dict[str, Any] = {
            "images": len(rows),
            "stages": [
                {
                    "stage": stage.name,
                    "weight_distance": _distance(start, now, stage.parameters),
                    "cka": similarity if len(rows) else None,
                }
                for stage, similarity in zip(self._task.stages, similarities, strict=True)
            ],
        }
        if self._source is not None:
            record["source"] = self._source_accuracy(self._source, start, now, changed=changed[-1])
        self._last = digest, record
        if changed[-1]:
            seen = f", {len(rows)} validation images" if len(rows) else ""
            console.print(forgetting_table(record, title=f"what differs from the start after phase {phase}{seen}"))
        if sentence := in_a_sentence(record):
            console.print(f"forgetting {sentence}")
        return record

    def _rows(self) -> NDArray[np.int64]:
        """The images to compare on: the same for every seed of the run; none where there are too few."""
        rows = np.random.default_rng(0).permutation(self._data.splits["val"])[: self._options.images]
        return np.sort(rows) if len(rows) >= FEWEST else rows[:0]

    def _similarities(
        self, start: Weights, now: Weights, rows: NDArray[np.int64], changed: Sequence[bool]
    ) -> list[float | None]:
        stages = self._task.stages
        try:
            part, seen = self._task.transferred.stage_outputs(), len(stages)
        except CannotSplit:  # then only what comes out at the end can be seen
            part, seen = self._task.backbone, 1
        if self._start_outputs is None:
            self._start_outputs = self._outputs(part, start, self._data.store, rows)
        pairs = zip(self._start_outputs, self._outputs(part, now, self._data.store, rows), strict=True)
        found = [
            linear_cka(before, after) if differs else 1.0
            for (before, after), differs in zip(pairs, changed[-seen:], strict=True)
        ]
        return [None] * (len(stages) - seen) + found

    def _source_accuracy(self, source: Source, start: Weights, now: Weights, *, changed: bool) -> dict[str, Any]:
        whole, every = self._task.backbone, np.arange(len(source.labels))
        if self._last is None:
            self._source_before = source.accuracy(*self._outputs(whole, start, source.store, every))
        after = source.accuracy(*self._outputs(whole, now, source.store, every)) if changed else self._source_before
        return {"before": self._source_before, "after": after, "images": len(every)}

    def _outputs(
        self, part: nn.Module, weights: Mapping[str, Tensor], store: Store, rows: NDArray[np.int64]
    ) -> list[Tensor]:
        """What the backbone, or a view into it, gives with these weights: tensors ``(len(rows), width)``.

        The weights are lent to it for the call: between two phases Lightning has the model on the CPU, and there it
        stays.
        """
        device, transform = self._trainer.strategy.root_device, self._data.plain_view.transform
        own = {name: weights[name].to(device) for name in _weights(part)}
        size = min(BATCH, self._data.loaded_batch_size)
        batches = [rows[first : first + size] for first in range(0, len(rows), size)]
        given: list[list[Tensor]] = []
        with Extractor(self._task, self._data, self._trainer).computing():
            for batch in track(batches, "comparing with the pretrained weights", total=len(batches)):
                samples = self._data.collate([transform(store.sample(int(row))) for row in batch])
                prepared = self._data.normalized(move_data_to_device(samples, device))
                outputs = torch.func.functional_call(part, own, tuple(self._task.inputs_of(prepared)))
                given.append([each.cpu() for each in ([outputs] if isinstance(outputs, Tensor) else outputs)])
        return [torch.cat(column) for column in zip(*given, strict=True)]


def _weights(module: nn.Module) -> Weights:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().cpu() for name, tensor in named}


def _distance(start: Weights, now: Weights, names: Sequence[str]) -> float:
    """How far some parameters have moved, relative to how long they were together; floats only."""
    floats = [name for name in names if start[name].is_floating_point()]
    moved = sum(float((now[name].double() - start[name].double()).square().sum()) for name in floats)
    length = sum(float(start[name].double().square().sum()) for name in floats)
    return (moved / length) ** 0.5 if length else float("inf") if moved else 0.0
