"""Optimizer steps of a phase at any share of its learning rates, without a trainer that runs."""

import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.enums import GradClipAlgorithmType

from tl_lightning.finetuning.batch_norm import estimate_statistics
from tl_lightning.finetuning.phases import Phase
from tl_lightning.tasks.base import TransferTask


def batches(data: LightningDataModule, trainer: Trainer) -> Iterator[Any]:
    """The training batches, epoch after epoch without end, as a task gets them.

    Args:
        data: Set up.
        trainer: They come to its device.

    Yields:
        Each batch.
    """
    # By these the data module knows that a batch is for training, and mixes each in a way of its own.
    data.trainer, trainer.training = trainer, True
    progress = trainer.fit_loop.epoch_loop.batch_progress
    loader = data.train_dataloader()
    for epoch in itertools.count():
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        for batch in loader:
            yield _moved(data, batch, trainer.strategy.root_device)
            progress.increment_ready()


def _moved(data: LightningDataModule, batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - a batch of any task
    return data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)


class LrStep:
    """One optimizer step at a given share of a phase's learning rates; it trains the model it is given.

    Args:
        task: Moved to the trainer's device, and put into the phase.
        data: Set up.
        trainer: The trainer, whose device, precision, gradient clipping and accumulation are used; it does not run.
        phase: What trains.
    """

    def __init__(self, task: TransferTask, data: LightningDataModule, trainer: Trainer, *, phase: Phase) -> None:
        device = trainer.strategy.root_device
        self.task = task.to(device)
        self.trainer = trainer
        self.precision = trainer.precision_plugin
        if phase.bn == "adapt":  # the task would, with a trainer that runs; afterwards the statistics are frozen
            loader = data.plain_loader("train", shuffle=True)  # type: ignore[attr-defined]  # of the package's own data modules
            inputs = (task.inputs_of(_moved(data, batch, device)) for batch in loader)
            with self.precision.forward_context():
                estimate_statistics(task.backbone, inputs)
            phase = replace(phase, bn="frozen")
        task.start_phase(phase)
        task.on_fit_start()
        self.optimizer = task.build_optimizer(fused=False)  # Lightning's clipping, which is used here, refuses it
        scaled = getattr(self.precision, "scaler", None) is not None  # float16 loses small gradients without
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.batches = batches(data, trainer)
        self.number = 0

    def __call__(self, factor: float) -> float:
        """Takes the step.

        Args:
            factor: Multiplies the rate of every group.

        Returns:
            The loss before the step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.task.phase.lr_scale * factor
        total = 0.0
        parts = self.trainer.accumulate_grad_batches
        for _ in range(parts):
            loss = self._loss() / parts
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        self.precision.clip_gradients(
            self.optimizer,
            self.trainer.gradient_clip_val or 0.0,
            self.trainer.gradient_clip_algorithm or GradClipAlgorithmType.NORM,
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return total

    def _loss(self) -> torch.Tensor:
        batch = next(self.batches)
        with self.precision.forward_context(), warnings.catch_warnings():
            # A task of the user's own may log, which means nothing where no trainer runs.
            warnings.filterwarnings("ignore", message=r"You are trying to `self\.log")
            output = self.task.training_step(batch, self.number)
        self.number += 1
        loss = output["loss"] if isinstance(output, Mapping) else output
        assert isinstance(loss, torch.Tensor)
        return loss
