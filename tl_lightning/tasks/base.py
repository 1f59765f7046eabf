"""What every task shares: a backbone, the phase it is in, its optimizer and its learning rates."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from tl_lightning.backbones import build_backbone
from tl_lightning.errors import UserError
from tl_lightning.finetuning.freezing import StageRow, freeze_all_but, set_training_modes, stage_rows
from tl_lightning.finetuning.groups import learning_rates, parameter_groups, phase_schedule
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.selection import select
from tl_lightning.precision import train_depthwise_in_float32
from tl_lightning.preprocess import Preprocess


class TransferTask(LightningModule):
    """A pretrained backbone under a head; a task adds the head, the loss and the metrics.

    A subclass sets ``self.head`` and saves its hyper-parameters in its ``__init__``, and implements Lightning's steps.
    All hyper-parameters are plain values, so a checkpoint loads with torch's safe loader.
    """

    head: nn.Module

    def __init__(
        self,
        backbone: str,
        *,
        weights: str,
        preprocess: Mapping[str, Any] | None,
        lr: float,
        weight_decay: float,
        backbone_lr_scale: float,
        bottom_ratio: float,
        drop_path_rate: float,
    ) -> None:
        """Builds the backbone.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0``.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation in use, `Preprocess.to_dict`; `None` for the weights' own.
            lr: Peak learning rate of the head.
            weight_decay: Of AdamW, for everything but biases and normalisation weights.
            backbone_lr_scale: The top stage's learning rate relative to the head's.
            bottom_ratio: The first stage's learning rate relative to the top stage's.
            drop_path_rate: Stochastic depth of the backbone's trainable stages, 0 to below 1.

        Raises:
            UserError: If a number is out of range, or the backbone or its weights cannot be had.
        """
        super().__init__()
        for name, value in (("lr", lr), ("backbone_lr_scale", backbone_lr_scale), ("bottom_ratio", bottom_ratio)):
            if not 0 < value < math.inf:
                raise UserError(f"model.{name} is {value}; it must be above 0")
        if not 0 <= weight_decay < math.inf:
            raise UserError(f"model.weight_decay is {weight_decay}; it must be 0 or more")
        prepared = None if preprocess is None else Preprocess.from_dict(preprocess)
        built = build_backbone(backbone, weights, preprocess=prepared, drop_path_rate=drop_path_rate)
        # Depthwise convolutions run 2-4 times faster on a CPU in this layout, and GPUs' tensor cores want it too.
        self.backbone = built.module.to(memory_format=torch.channels_last)
        self.stages = built.stages
        self.num_features = built.num_features
        self.lineage = built.lineage
        self.preprocess = built.preprocess.to_dict()
        self.rates = learning_rates(built.stages, lr, backbone_lr_scale=backbone_lr_scale, bottom_ratio=bottom_ratio)
        self.weight_decay = weight_decay
        self.phase = Phase()
        self._depthwise_prepared = False
        self._optimizer: torch.optim.Optimizer | None = None

    def on_fit_start(self) -> None:
        """Prepares for the arithmetic of the machine; Lightning calls it at the start of every phase."""
        if self.device.type == "cpu" and not self._depthwise_prepared:
            train_depthwise_in_float32(self.backbone)
            self._depthwise_prepared = True

    def start_phase(self, phase: Phase) -> None:
        """Sets what trains from here on; the next ``trainer.fit`` gives it a fresh learning-rate schedule.

        Raises:
            UserError: If the phase's selection matches nothing in this backbone.
        """
        freeze_all_but(self.backbone, select(self.stages, phase.train))
        self.phase = phase
        self.train()

    def train(self, mode: bool = True) -> "TransferTask":
        """Sets train or eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        if mode:
            set_training_modes(self.backbone, bn=self.phase.bn)
        return self

    def phase_rows(self) -> list[StageRow]:
        """What each stage does in the current phase, the head last."""
        rates = {name: rate * self.phase.lr_scale for name, rate in self.rates.items()}
        return stage_rows(self.backbone, self.head, self.stages, rates=rates, bn=self.phase.bn)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The same optimizer in every phase, so that its state lives on, under a schedule of the phase's own."""
        if self._optimizer is None:
            groups = parameter_groups(
                self.backbone, self.head, self.stages, rates=self.rates, weight_decay=self.weight_decay
            )
            self._optimizer = torch.optim.AdamW(groups)
        total_steps = int(self.trainer.estimated_stepping_batches)
        epochs = self.trainer.max_epochs or 1
        steps = total_steps * (self.phase.epochs or epochs) // epochs
        schedule = phase_schedule(self._optimizer, self.phase, steps=max(steps, 1))
        return {"optimizer": self._optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Logs the learning rate that each trainable stage's step is about to use."""
        if self._optimizer is None or self.global_step % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        rates = {
            f"lr/{group['name'].removesuffix('/no_decay')}": group["lr"]
            for group in self._optimizer.param_groups
            if any(parameter.requires_grad for parameter in group["params"])
        }
        for logger in self.trainer.loggers:
            logger.log_metrics(rates, step=self.global_step)
