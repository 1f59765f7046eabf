"""One of several ordered levels: how often it is right, and how far off it is where it is not."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from tl_lightning.metrics.noise import bootstrap

# The names of the metrics, and whether the best value is the largest or the smallest.
METRICS = {
    "mean_absolute_error": "min",
    "quadratic_kappa": "max",
    "accuracy": "max",
    "macro_f1": "max",
    "loss": "min",
}


class QuadraticKappa(Metric):
    """Cohen's kappa with squared distances as weights: 1 is perfect, 0 no better than chance.

    There is none where all images are of one level.

    Args:
        levels: Two or more.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self._levels = levels
        self.add_state("confusion", default=torch.zeros(levels, levels, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Adds a batch of levels, ``(n,)`` int64 each."""
        cells = torch.bincount(labels * self._levels + predicted, minlength=self._levels**2)
        self.confusion += cells.view(self._levels, self._levels)

    def compute(self) -> Tensor:
        """The value of kappa."""
        return torch.tensor(_kappa(self.confusion.cpu().numpy()), device=self.confusion.device)


def level_metrics(levels: int, prefix: str) -> MetricCollection:
    """The metrics over predicted and right levels, ``(n,)`` int64 each.

    ``mean_absolute_error`` (in levels), ``quadratic_kappa`` (Cohen 1968), ``accuracy`` and ``macro_f1``.

    Args:
        levels: Two or more.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "mean_absolute_error": MeanAbsoluteError(),
        "quadratic_kappa": QuadraticKappa(levels),
        "accuracy": MulticlassAccuracy(levels, average="micro"),
        "macro_f1": MulticlassF1Score(levels, average="macro"),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def level_errors(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], levels: int, groups: NDArray[np.str_] | None = None
) -> dict[str, float]:
    """The noise of ``mean_absolute_error``, ``quadratic_kappa`` and ``accuracy``; see `bootstrap`.

    Args:
        predicted: The level that was predicted, ``(n,)``.
        labels: The right one.
        levels: How many there are.
        groups: What images have in common.
    """
    cells, distances = labels * levels + predicted, np.abs(labels - predicted)

    def metrics(times: NDArray[np.int64]) -> dict[str, float]:
        confusion = np.bincount(cells, weights=times, minlength=levels**2).reshape(levels, levels)
        total = times.sum()
        return {
            "mean_absolute_error": float(distances @ times / total),
            "quadratic_kappa": _kappa(confusion),
            "accuracy": float(np.trace(confusion) / total),
        }

    return bootstrap(metrics, len(labels), groups=groups)


def _kappa(confusion: NDArray[Any]) -> float:
    if np.count_nonzero(confusion.sum(axis=1)) < 2:
        return float("nan")
    levels = np.arange(len(confusion))
    weights = (levels[:, None] - levels) ** 2
    expected = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / max(confusion.sum(), 1)
    chance = float((weights * expected).sum())
    return 1 - float((weights * confusion).sum()) / chance
