"""The training loss, of steps and of epochs."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed

from tl_lightning.core.private import ends_step


class TrainingLoss(Callback):
    """Logs the training loss: of single steps as ``train/loss_step``, the mean of an epoch as ``train/loss_epoch``.

    Lightning's own mean forgets, after a resume in the middle of an epoch, what came before; this one is in the
    checkpoint. It stands before the callbacks that write checkpoints, so that what it logs is never lost.
    """

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._batches = 0
        self._parts: list[Tensor] = []  # the batches of the step under way

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the loss so far in the epoch under way, of each process: that a run was saved must not be seen in it."""
        own = torch.as_tensor(self._total, device=pl_module.device)
        totals = [own.clone() for _ in range(trainer.world_size)]
        if len(totals) > 1:
            distributed.all_gather(totals, own)
        checkpoint["training_loss"] = {"totals": [float(total) for total in totals], "batches": self._batches}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on from there; with another number of processes from the mean."""
        saved = checkpoint["training_loss"]
        totals = saved.get("totals") or [saved["total"]]  # older runs have their mean
        alike = len(totals) == trainer.world_size
        self._total = totals[trainer.global_rank] if alike else sum(totals) / len(totals)
        self._batches = saved["batches"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: object) -> None:  # noqa: ANN401
        """Adds a batch."""
        loss = outputs["loss"].detach().float() * trainer.accumulate_grad_batches  # Lightning has divided it
        self._total = self._total + loss
        self._batches += 1
        self._parts.append(loss)
        if not ends_step(trainer):
            return
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer, "train/loss_step", torch.stack(self._parts).mean())
        self._parts = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the mean and starts anew."""
        mean = self._mean(trainer, self._total, pl_module) / max(self._batches, 1)
        pl_module.log("train/loss_epoch", mean.float(), logger=False, sync_dist=True)  # for whoever monitors it
        self._log(trainer, "train/loss_epoch", mean)
        self._total, self._batches = 0.0, 0

    @staticmethod
    def _mean(trainer: Trainer, total: Tensor | float, pl_module: LightningModule) -> Tensor:
        """Over all processes, the same for each."""
        mean: Tensor = trainer.strategy.reduce(torch.as_tensor(total, device=pl_module.device), reduce_op="mean")
        return mean

    def _log(self, trainer: Trainer, name: str, value: Tensor) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, name: float(value)}, step=trainer.global_step - 1)
