"""Averages of weights: along the way (EMA), of several checkpoints (soup), with the pretrained weights (WiSE-FT)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from tl_lightning.core.private import BatchNorm, ends_step, move_towards
from tl_lightning.errors import UserError

Tensors = dict[str, Tensor]

ALPHAS = tuple(step / 10 for step in range(11))


class ExponentialMovingAverage(Callback):
    """Keeps a running mean of what trains, validates with it, and puts it into the checkpoints.

    Only what trains in the phase is kept twice; what is frozen is equal anyway. Each phase starts a new mean. The decay
    warms up, ``min(decay, (1 + step) / (10 + step))``, so that short runs forget their random start
    (Tarvainen and Valpola 2017, arXiv:1703.01780). A checkpoint's ``state_dict`` holds the mean, which is what
    predicts; what the optimizer moves is kept beside it as ``unaveraged``.

    Args:
        decay: From 0 to below 1; ``auto`` for 1 - 10 / (steps of the phase), at least 0.9.
    """

    def __init__(self, decay: float | Literal["auto"]) -> None:
        if decay != "auto" and not 0 <= decay < 1:
            raise UserError(f"ema is {decay}; it must be auto, or a number from 0 to below 1, such as 0.99")
        self._configured = decay
        self._decay: float | None = None  # of the phase
        self._steps = 0
        self._mean: Tensors = {}
        self._own: Tensors = {}  # the tensors themselves, by name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the mean of the phase before."""
        if stage == "fit":
            self._decay, self._steps, self._mean, self._own = None, 0, {}, {}

    def state_dict(self) -> dict[str, Any]:
        """How far the mean is, and the phase's decay; the mean itself is in the checkpoint's ``state_dict``."""
        return {"steps": self._steps, "decay": self._decay}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there; the steps that are left would give another decay than those of the whole phase."""
        self._steps, self._decay = state_dict["steps"], state_dict["decay"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Exchanges what trains for its mean."""
        weights = checkpoint["state_dict"]
        checkpoint["unaveraged"] = {name: weights[name] for name in self._mean}
        checkpoint["state_dict"] = self.averaged(weights)

    def averaged(self, weights: Mapping[str, Tensor]) -> Tensors:
        """The module's state with the mean in the place of what trains."""
        return {**weights, **self._mean}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts both back."""
        unaveraged = checkpoint["unaveraged"]
        own = pl_module.state_dict()
        self._mean = {name: checkpoint["state_dict"][name].to(own[name].device, copy=True) for name in unaveraged}
        pl_module.load_state_dict(unaveraged, strict=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the mean at the phase's first weights, and settles the decay."""
        if self._decay is None:
            self._decay = _automatic_decay(trainer) if self._configured == "auto" else self._configured
        self._own = _moving(pl_module)
        if not self._mean:
            self._mean = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        self._mean = {name: tensor.to(self._own[name].device) for name, tensor in self._mean.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Moves the mean, after each step of the optimizer."""
        if not ends_step(trainer):
            return
        assert self._decay is not None
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        floats = [name for name, tensor in self._own.items() if tensor.is_floating_point()]
        move_towards([self._mean[name] for name in floats], [self._own[name] for name in floats], 1 - decay)
        for name in self._own.keys() - set(floats):
            self._mean[name].copy_(self._own[name])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the mean be validated."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts back what the optimizer moves."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap()

    def _swap(self) -> None:
        for name, tensor in self._own.items():
            tensor.data, self._mean[name] = self._mean[name], tensor.data


def _automatic_decay(trainer: Trainer) -> float:
    steps = int(trainer.estimated_stepping_batches) // (trainer.max_epochs or 1)
    epochs = (trainer.max_epochs or 1) - trainer.current_epoch
    return max(0.9, 1 - 10 / max(steps * epochs, 1))


def _moving(module: nn.Module) -> Tensors:
    """What a step of the optimizer moves: parameters that train, and the statistics of BatchNorm that trains."""
    moving: Tensors = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    for prefix, layer in module.named_modules():
        if isinstance(layer, BatchNorm) and layer.training:
            moving.update(layer.named_buffers(prefix, recurse=False))
    return moving


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> Tensors:
    """Weights on the line from ``start`` (alpha 0) to ``end`` (alpha 1); whole numbers are those of ``end``."""
    return {
        name: torch.lerp(start[name], tensor, alpha) if name in start and tensor.is_floating_point() else tensor
        for name, tensor in end.items()
    }


def mean(several: Sequence[Mapping[str, Tensor]]) -> Tensors:
    """The mean of several states; whole numbers are those of the first."""
    first = several[0]
    return {
        name: torch.stack([state[name] for state in several]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def wise_ft(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    score: Callable[[Mapping[str, Tensor]], float],
    *,
    alphas: Sequence[float] = ALPHAS,
) -> tuple[float, dict[float, float]]:
    """Finds how far to go from the pretrained to the fine-tuned weights (Wortsman et al. 2022, arXiv:2109.01903).

    Args:
        start: The weights with which fine-tuning began. What it lacks is not interpolated.
        end: The fine-tuned weights.
        score: How good weights are on held-out data; the larger, the better.
        alphas: What to try, from 0 (``start``) to 1 (``end``).

    Returns:
        The best alpha, of equals the one closest to 1, and the score of each. What is no number is the worst score.
    """
    scores = {alpha: score(interpolate(start, end, alpha)) for alpha in alphas}
    ranks = {alpha: -math.inf if math.isnan(value) else value for alpha, value in scores.items()}
    return max(alphas, key=lambda alpha: (ranks[alpha], alpha)), scores


def greedy_soup(
    ingredients: Sequence[Mapping[str, Tensor]], score: Callable[[Mapping[str, Tensor]], float]
) -> tuple[list[int], float]:
    """Chooses which states to average (model soups, Wortsman et al. 2022, arXiv:2203.05482).

    Args:
        ingredients: The best first; each is added to the mean unless that lowers the score.
        score: How good weights are on held-out data; the larger, the better.

    Returns:
        Positions of the chosen, and the score of their mean.
    """
    chosen, best = [0], score(ingredients[0])
    for position in range(1, len(ingredients)):
        tried = score(mean([ingredients[k] for k in (*chosen, position)]))
        if tried >= best and tried > -math.inf:  # neither is true of what is no number
            chosen, best = [*chosen, position], tried
    return chosen, best
