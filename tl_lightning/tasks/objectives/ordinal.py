"""One of several levels that have an order, such as grades of a disease."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError
from tl_lightning.metrics.classification import confusion_matrix, majority_accuracy, per_class
from tl_lightning.metrics.levels import METRICS, level_errors, level_metrics
from tl_lightning.probe import Features, HeadSolution, solve_levels
from tl_lightning.tasks.losses import corn_loss, corn_probabilities
from tl_lightning.tasks.objectives.base import Objective


class Ordinal(Objective):
    """Ordered levels: an output for each step from a level to the next (CORN).

    Shi, Cao and Raschka 2021, arXiv:2111.08851. The prediction is the median of the levels' probabilities, which is off
    by the fewest levels.

    Args:
        classes: Names of the levels, from the lowest to the highest.
        solver: ``lbfgs`` or ``sgd``.

    Raises:
        UserError: If there are fewer than two levels, or no such solver.
    """

    problem_type: ClassVar[ProblemType] = "ordinal"
    metrics: ClassVar[Mapping[str, str]] = METRICS
    monitor: ClassVar[str] = "mean_absolute_error"
    headline: ClassVar[str] = "mean_absolute_error"
    in_points: ClassVar[bool] = False
    score: ClassVar[str] = "accuracy"
    probe_baseline_name: ClassVar[str] = "majority level"
    baseline_name: ClassVar[str] = "median level"
    noun: ClassVar[str] = "level"
    nouns: ClassVar[str] = "levels"
    picks_one: ClassVar[bool] = True
    solvers: ClassVar[tuple[str, ...]] = ("lbfgs", "sgd")

    def __init__(self, classes: Sequence[str], *, solver: str | None = None) -> None:
        super().__init__(classes, solver=solver)
        if len(classes) < 2:
            raise UserError(f"the levels are {', '.join(classes) or 'none'}; at least two are needed")

    @property
    def outputs(self) -> int:
        """One less than there are levels."""
        return len(self.classes) - 1

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, ``(N,)``.

        Args:
            outputs: ``(N, levels - 1)``.
            targets: The levels, ``(N,)``.
        """
        return corn_loss(outputs, targets)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each level, ``(N, levels)``."""
        return corn_probabilities(outputs)

    def constant_outputs(self, targets: Tensor) -> Tensor:
        """How often samples that reach a level go beyond it, as logits."""
        reach = torch.tensor([(targets >= level).sum() for level in range(len(self.classes))]).double()
        share = (reach[1:] / reach[:-1].clamp(min=1)).clamp(1e-3, 1 - 1e-3)
        return share.logit()

    def decided(self, predictions: Tensor) -> Tensor:
        """The median level of each sample, ``(N,)`` int64."""
        return median_level(predictions)

    def make_metrics(self, prefix: str = "") -> MetricCollection:
        """The error in levels, kappa and others over levels; see `level_metrics`."""
        return level_metrics(len(self.classes), prefix)

    def compared(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The metrics compare levels."""
        return median_level(predictions), targets

    def solve(
        self,
        training: Features,
        targets: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves a logistic regression for each step; see `Objective.solve`."""
        return solve_levels(
            *(training, targets, held_out, held_out_targets), count=len(self.classes), row_weights=row_weights
        )

    def baseline(self, training: Tensor, targets: Tensor) -> dict[str, float]:
        """The error of always predicting the median training level, and the accuracy of the most frequent one."""
        if not len(targets):
            return {}
        middle = training.sort().values[(len(training) - 1) // 2]
        return {
            "mean_absolute_error": float((targets - middle).abs().double().mean()),
            "accuracy": majority_accuracy(training, targets),
        }

    def report(self, predictions: Tensor, targets: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, each level's scores ``per_class``, and the ``confusion`` matrix."""
        predicted, right, count = median_level(predictions).numpy(), targets.numpy(), len(self.classes)
        confusion = confusion_matrix(predicted, right, count)
        return {
            "standard_errors": level_errors(predicted, right, count, groups),
            "per_class": [vars(score) for score in per_class(confusion, self.classes)],
            "confusion": confusion.tolist(),
        }


def median_level(probabilities: Tensor) -> Tensor:
    """The lowest level that is at least as probable as not to be reached or stayed below, ``(N,)`` int64.

    Args:
        probabilities: ``(N, levels)``.
    """
    return (probabilities.cumsum(dim=1)[:, :-1] < 0.5).sum(dim=1)
