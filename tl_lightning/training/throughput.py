"""How fast a phase trains, and what it waits for."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parallel import DistributedDataParallel

from tl_lightning.core.console import console
from tl_lightning.core.private import exchange_clocks


class Throughput(Callback):
    """Measures the training steps of a phase, says it in one line at its end, and keeps it for the summary.

    The clock runs from the end of one step to the end of the next, the wait for data between them included. It stands
    while a validation runs or a checkpoint is written, and leaves out the first step of a phase, in which workers
    start, kernels are chosen and code is compiled. A GPU is waited for once per epoch, at its last step.

    Attributes:
        measured: What was found in the phase that has just ended; empty where nothing was trained by steps: where the
            head was solved, or in a phase of one step. ``images_per_s`` of all processes together.
            ``waiting_for_data``, the share of the time in which there was no next batch yet, the mean over the
            processes (a GPU may still be computing then, so it is the most that faster loading could gain); missing
            with a data module of the user's own.
            With several processes ``waiting_for_others``, the share of the time from where a process has all of its
            own gradients until it has the mean of everybody's: the wait for slower processes, and the part of the
            exchange that does not run beside the backward pass; the mean over the processes, by DDP's own clocks in
            ten steps at first and then in each hundredth. Of a phase that was resumed, what came after.
    """

    def __init__(self) -> None:
        self.measured: dict[str, float] = {}
        self._since: float | None = None  # where the step that is measured began
        self._waited_before = 0.0
        self._warm = False
        self._images, self._batches, self._seconds, self._waited = 0, 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.measured, self._warm = {}, False
        self._images, self._batches, self._seconds, self._waited = 0, 0, 0.0, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The wait for the epoch's first batch begins."""
        self._begin(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What comes now is no training."""
        self._since = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What comes now is no training."""
        self._since = None

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        """Goes on after a validation or a checkpoint."""
        if self._since is None:
            self._begin(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        """Counts the step."""
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        if self._warm and self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._waited += _waited(trainer) - self._waited_before
            self._images += len(batch["label"])
            self._batches += 1
        self._warm = True
        self._begin(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds up over the processes, and says it."""
        steps = self._batches / trainer.accumulate_grad_batches
        exchanged = _exchange_seconds(trainer.strategy.model) * steps
        found = torch.tensor([self._images, self._seconds, self._waited, exchanged], device=pl_module.device)
        images, seconds, waited, exchanged = trainer.strategy.reduce(found, reduce_op="mean").tolist()
        if getattr(pl_module, "solved", False) or not seconds:
            return
        self.measured = {"images_per_s": images * trainer.world_size / seconds}
        parts = [f"{self.measured['images_per_s']:,.0f} images/s"]
        if hasattr(trainer.train_dataloader, "waited"):
            self.measured["waiting_for_data"] = waited / seconds
            parts.append(f"{waited / seconds:.0%} waiting for data".replace("%", " %"))
        if exchanged:
            self.measured["waiting_for_others"] = exchanged / seconds
            parts.append(f"{exchanged / seconds:.0%} for other processes".replace("%", " %"))
        console.print(f"speed      {', '.join(parts)}")

    def _begin(self, trainer: Trainer) -> None:
        self._since, self._waited_before = time.perf_counter(), _waited(trainer)


def _waited(trainer: Trainer) -> float:
    return float(getattr(trainer.train_dataloader, "waited", 0.0))


def _exchange_seconds(model: object) -> float:
    """What of the exchange of gradients comes after the backward pass in an average step; 0 where there is none."""
    if not isinstance(model, DistributedDataParallel):
        return 0.0
    clocks = exchange_clocks(model)
    together = clocks.get("avg_backward_comm_time", 0) - clocks.get("avg_backward_compute_comm_overlap_time", 0)
    return float(max(together, 0)) / 1e9
