"""How the steps of a phase go: its schedule, clipped gradients, a plateau, and the learning rates that are logged."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.schedules import build_schedule


def loss_is_scaled(trainer: Trainer) -> bool:
    """Whether 16-bit floating point scales the loss, which forbids a fused optimizer where gradients are clipped."""
    return str(trainer.precision).startswith("16")


def schedule_phase(optimizer: torch.optim.Optimizer, phase: Phase, trainer: Trainer) -> OptimizerLRScheduler:
    """Puts an optimizer under the phase's own learning-rate schedule, in the form that Lightning wants.

    Args:
        optimizer: The same one in every phase, so that its state lives on.
        phase: Says which schedule, and how long it is.
        trainer: Knows the number of batches, and what is monitored.
    """
    epochs = phase.epochs or trainer.max_epochs or 1
    monitored = trainer.checkpoint_callback
    running = build_schedule(
        optimizer,
        phase.schedule,
        lr_scale=phase.lr_scale,
        warmup=phase.warmup,
        steps=max(_steps_per_epoch(trainer) * epochs, 1),
        epochs=epochs,
        mode=getattr(monitored, "mode", "min"),
    )
    schedule: dict[str, Any] = {"scheduler": running.scheduler, "interval": running.interval}
    if running.plateau:
        schedule["monitor"] = getattr(monitored, "monitor", None)
    return {"optimizer": optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]


def _steps_per_epoch(trainer: Trainer) -> int:
    batches = getattr(trainer.datamodule, "training_batches", None)  # type: ignore[attr-defined]
    if batches is None:
        return int(trainer.estimated_stepping_batches) // (trainer.max_epochs or 1)
    # The trainer would make the loaders to count them, and they are to be made once the phase has begun.
    limit = trainer.limit_train_batches
    limited = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
    return math.ceil(limited / trainer.accumulate_grad_batches)


def last_step_factor(trainer: Trainer) -> float:
    """What a batch's loss is multiplied by, so that the gradient of every step is a mean over its own batches.

    Lightning divides by the batches of a whole step also where an epoch ends with fewer, whose gradient is then too
    small (Lightning-AI/pytorch-lightning #19987, #21808).

    Returns:
        1 but for the batches of such a last step.
    """
    batches, whole = trainer.num_training_batches, trainer.accumulate_grad_batches
    if not isinstance(batches, int) or whole == 1:  # an endless loader has no last step
        return 1.0
    last = batches % whole
    return whole / last if last and trainer.fit_loop.batch_idx >= batches - last else 1.0


def group_sizes(optimizer: torch.optim.Optimizer | Mapping[str, Any]) -> list[int]:
    """How many parameters each group holds, of an optimizer or of its state dict."""
    groups = optimizer["param_groups"] if isinstance(optimizer, Mapping) else optimizer.param_groups
    return [len(group["params"]) for group in groups]


def clip_gradients(optimizer: torch.optim.Optimizer, limit: float | None, algorithm: str | None) -> None:
    """Clips, also with a fused optimizer, which Lightning refuses: only a scaled loss forbids it.

    Args:
        optimizer: Its parameters' gradients are clipped.
        limit: The largest norm or value; `None` or 0 for no limit.
        algorithm: ``norm`` or ``value``.
    """
    if not limit:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if algorithm == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, limit)


def log_learning_rates(optimizer: torch.optim.Optimizer, trainer: Trainer) -> None:
    """Logs the learning rate that the step is about to use in each stage and head that trains."""
    rates = {
        f"lr/{group['name'].removesuffix('/no_decay')}": group["lr"]
        for group in optimizer.param_groups
        if any(parameter.requires_grad for parameter in group["params"])
    }
    for logger in trainer.loggers:
        logger.log_metrics(rates, step=trainer.global_step)


def share_of_learning_rate(optimizer: torch.optim.Optimizer, phase: Phase) -> float:
    """Where the schedule stands: a head's learning rate as a share of what the phase set out with."""
    group = next(group for group in optimizer.param_groups if group["name"].startswith("head"))
    return float(group["lr"] / (group["base_lr"] * phase.lr_scale))


class Plateau:
    """Shows each validation once to a schedule that waits for a plateau, before the epoch's checkpoint is written."""

    def __init__(self) -> None:
        self._validated = False
        self._before: dict[str, float] = {}  # the metrics of that validation, where it came before a resume

    def note(self, trainer: Trainer) -> None:
        """Notes that there has been a validation."""
        self._validated = self._validated or not trainer.sanity_checking

    def step(self, trainer: Trainer) -> None:
        """Shows the epoch's metric to the schedule."""
        for config in trainer.lr_scheduler_configs:
            if self._validated and isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(self._metrics(trainer)[str(config.monitor)])
        self._validated, self._before = False, {}

    def state(self, trainer: Trainer) -> dict[str, float]:
        """What the schedule has yet to see, for a checkpoint."""
        monitored = [config for config in trainer.lr_scheduler_configs if self._validated]
        names = [str(config.monitor) for config in monitored if isinstance(config.scheduler, ReduceLROnPlateau)]
        metrics = self._metrics(trainer)
        return {name: float(metrics[name]) for name in names if name in metrics}

    def load(self, state: Mapping[str, float]) -> None:
        """Goes on with what the schedule has yet to see."""
        self._before = dict(state)
        self._validated = bool(self._before)

    def _metrics(self, trainer: Trainer) -> dict[str, Any]:
        return {**self._before, **trainer.callback_metrics}
