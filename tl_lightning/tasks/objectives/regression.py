"""One or more numbers per sample."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection

from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError
from tl_lightning.metrics.numbers import METRICS, in_units, number_errors, number_metrics, per_number
from tl_lightning.probe import Features, HeadSolution, solve_ridge_numbers
from tl_lightning.tasks.objectives.base import Objective, varies

MOVED = 0.1  # of the targets' deviation: by so much a number has to move to count as another prediction


class Regression(Objective):
    """One or more numbers.

    Inside, numbers have mean 0 and deviation 1 over the training samples; predictions and metrics are in their own
    units, the loss is not.

    Attributes:
        mean: Mean of each number over the training samples, ``(numbers,)``; part of checkpoints, as are the others.
        scale: Deviation of each number over the training samples.
        lowest: Smallest value of each number in training.
        highest: Largest value of each number in training.

    Args:
        classes: Names of the numbers.
        solver: ``ridge`` or ``sgd``.
        loss: ``mse``, ``mae`` or ``huber``.
        extrapolate: Whether predictions may lie outside the range of the training samples' numbers.

    Raises:
        UserError: If a name is wrong.
    """

    problem_type: ClassVar[ProblemType] = "regression"
    metrics: ClassVar[Mapping[str, str]] = METRICS
    monitor: ClassVar[str] = "r2"
    headline: ClassVar[str] = "r2"
    in_points: ClassVar[bool] = False
    score: ClassVar[str] = "mean_absolute_error"
    probe_name: ClassVar[str] = "R2"
    noun: ClassVar[str] = "number"
    nouns: ClassVar[str] = "numbers"
    counts: ClassVar[bool] = False
    solvers: ClassVar[tuple[str, ...]] = ("ridge", "sgd")
    mean: Tensor
    scale: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self, classes: Sequence[str], *, solver: str | None = None, loss: str = "mse", extrapolate: bool = False
    ) -> None:
        super().__init__(classes, solver=solver)
        if loss not in ("mse", "mae", "huber"):
            raise UserError(f"model.loss is {loss!r}; it must be mse, mae or huber")
        self.loss = loss
        self.extrapolate = extrapolate
        for name, value in (("mean", 0.0), ("scale", 1.0), ("lowest", -math.inf), ("highest", math.inf)):
            self.register_buffer(name, torch.full((len(self.classes),), value))

    def set_training_targets(self, targets: Tensor) -> None:
        """Takes mean, deviation and range of the training samples' numbers; a constant one keeps its unit."""
        self.lowest.copy_(targets.amin(dim=0))
        self.highest.copy_(targets.amax(dim=0))
        varies = self.highest > self.lowest  # the mean of equal numbers is rounded, so their deviation is not quite 0
        deviation = targets.double().std(dim=0, correction=0)
        self.mean.copy_(targets.double().mean(dim=0))
        self.scale.copy_(torch.where(varies.to(deviation.device), deviation, 1.0))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, ``(N,)``, the mean over its numbers.

        Args:
            outputs: ``(N, numbers)``, scaled.
            targets: ``(N, numbers)``, in their own units.
        """
        targets = self._scaled(targets).to(outputs.dtype)
        if self.loss == "mse":
            losses = functional.mse_loss(outputs, targets, reduction="none")
        elif self.loss == "mae":
            losses = functional.l1_loss(outputs, targets, reduction="none")
        else:
            losses = functional.huber_loss(outputs, targets, reduction="none")
        return losses.mean(dim=1)

    def _scaled(self, numbers: Tensor) -> Tensor:
        return (numbers - self.mean.to(numbers.dtype)) / self.scale.to(numbers.dtype)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The numbers in their own units, ``(N, numbers)``."""
        numbers = outputs * self.scale.to(outputs.dtype) + self.mean.to(outputs.dtype)
        return numbers if self.extrapolate else numbers.clamp(self.lowest, self.highest)

    def constant_outputs(self, targets: Tensor) -> Tensor:
        """The mean of each number, which is 0 once scaled."""
        return torch.zeros(len(self.classes), dtype=torch.float64)

    def make_metrics(self, prefix: str = "") -> MetricCollection:
        """R2 and errors over scaled numbers; see `number_metrics`."""
        return number_metrics(len(self.classes), prefix)

    def compared(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Both scaled, for the metrics."""
        return self._scaled(predictions), self._scaled(targets)

    def finished(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means over the numbers, errors in their own units."""
        return in_units(results, self.scale)

    def score_each(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Minus the absolute error, the mean over the numbers, ``(N,)``."""
        return -(predictions.double() - targets.double()).abs().mean(dim=1)

    def changed(self, predictions: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Which samples get a number that has moved by more than a tenth of the targets' deviation."""
        return ((predictions - others).abs() > MOVED * targets.std(dim=0, correction=0)).any(dim=1)

    def rows(self, predictions: Tensor) -> list[dict[str, str | float]]:
        """The numbers by their names, for each sample."""
        return [dict(zip(self.classes, row, strict=True)) for row in predictions.tolist()]

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        return super().unsolvable or (None if self.loss == "mse" else f"model.loss {self.loss} has no solver")

    def solve(
        self,
        training: Features,
        targets: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves least squares; see `Objective.solve`. What is held out is not needed."""
        scaled = (targets.double() - self.mean.double().cpu()) / self.scale.double().cpu()
        return solve_ridge_numbers(training, scaled, row_weights=row_weights)

    def baseline(self, training: Tensor, targets: Tensor) -> dict[str, float]:
        """The errors of always predicting the median of the training samples, or their mean for squared errors."""
        if not len(targets):
            return {}
        middle, mean = training.double().quantile(0.5, dim=0), training.double().mean(dim=0)
        return {
            "mean_absolute_error": float((targets - middle).abs().mean()),
            "root_mean_squared_error": float((targets - mean).square().mean(dim=0).sqrt().mean()),
        }

    def report(self, predictions: Tensor, targets: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, and each number's scores ``per_number``."""
        predicted, right = predictions.double().numpy(), targets.numpy()
        return {
            "standard_errors": number_errors(predicted, right, groups),
            "per_number": per_number(predicted, right, self.classes),
        }

    @classmethod
    def described(cls, classes: Sequence[str]) -> str:
        """The numbers by their names."""
        return f"the number {classes[0]}" if len(classes) == 1 else f"{len(classes)} numbers ({', '.join(classes)})"

    @classmethod
    def target_in_words(cls, target: Any, classes: Sequence[str]) -> str:  # noqa: ANN401 - see the base
        """The numbers of a sample, with their names."""
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(classes, target, strict=True))

    @classmethod
    def probe_scores(cls, outputs: Tensor, targets: Tensor) -> Tensor:
        """One less the squared error over the variance of the numbers, so that the mean is R2."""
        varied = varies(targets)
        outputs, targets = outputs[:, varied], targets[:, varied]
        return (1 - (outputs - targets).square() / targets.var(dim=0, correction=0)).mean(dim=1)

    @classmethod
    def probe_baseline(cls, targets: Tensor) -> None:
        """R2 of the mean is 0 by definition."""
        return None
