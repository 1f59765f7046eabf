"""One or more numbers per image: how far off the predictions are, and how much of the variation they explain."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection

from tl_lightning.metrics.defined import R2
from tl_lightning.metrics.noise import bootstrap, mean_of_defined

# The names of the metrics, and whether the best value is the largest or the smallest.
METRICS = {
    "r2": "max",
    "mean_absolute_error": "min",
    "root_mean_squared_error": "min",
    "loss": "min",
}


ROUNDING = 1e-12  # relative; where one image was drawn again and again, no variance is left but what was rounded


def number_metrics(outputs: int, prefix: str) -> MetricCollection:
    """The metrics over predictions and targets of shape ``(n, outputs)``, both less their mean and by their
    deviation.

    Sums of squares in float32 would cancel where numbers are far from 0; `in_units` takes the scaling back.

    Args:
        outputs: How many numbers there are per image.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "r2": R2(outputs),
        "mean_absolute_error": MeanAbsoluteError(num_outputs=outputs),
        "root_mean_squared_error": MeanSquaredError(squared=False, num_outputs=outputs),
    }
    return MetricCollection(metrics, prefix=prefix)


def in_units(metrics: Mapping[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """Turns scaled metrics of each number into the mean metric, errors in the numbers' own units.

    A number that is the same for all images has no R2, and is left out of its mean.

    Args:
        metrics: What `number_metrics` gives.
        scale: The deviations that the numbers were divided by, ``(outputs,)``.
    """
    return {name: value.nanmean() if name.endswith("r2") else (value * scale).mean() for name, value in metrics.items()}


def per_number(predictions: NDArray[Any], targets: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Scores each number: ``name``, ``mean``, ``mean_absolute_error``, ``root_mean_squared_error`` and ``r2``.

    Args:
        predictions: ``(n, outputs)``.
        targets: ``(n, outputs)``.
        names: The numbers' names.
    """
    metrics = _metrics(_sums(predictions, targets), np.ones(len(targets)))
    columns = {name: values.tolist() for name, values in metrics.items()}
    means = targets.mean(axis=0).tolist()
    return [
        {"name": name, "mean": means[k], **{metric: values[k] for metric, values in columns.items()}}
        for k, name in enumerate(names)
    ]


def number_errors(
    predictions: NDArray[Any], targets: NDArray[Any], groups: NDArray[np.str_] | None = None
) -> dict[str, float]:
    """The noise of ``r2``, ``mean_absolute_error`` and ``root_mean_squared_error``; see `bootstrap`.

    Args:
        predictions: ``(n, outputs)``.
        targets: ``(n, outputs)``.
        groups: What images have in common.
    """
    sums = _sums(predictions, targets)

    def metrics(times: NDArray[np.int64]) -> dict[str, float]:
        return {name: float(mean_of_defined(values)) for name, values in _metrics(sums, times).items()}

    return bootstrap(metrics, len(targets), groups=groups)


def _sums(predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """What the metrics are made of, one column each, summed over images: ``(n, 4, outputs)``."""
    missed = predictions.astype(np.float64) - targets
    spread = targets.astype(np.float64) - targets.mean(axis=0, dtype=np.float64)
    spread = np.where((targets == targets[:1]).all(axis=0), 0, spread)  # a mean of equal numbers is rounded
    return np.stack([np.abs(missed), missed**2, spread, spread**2], axis=1)


def _metrics(sums: NDArray[np.float64], times: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    total = times.sum()
    absolute, squared, shift, spread = np.tensordot(times, sums, axes=1) / total
    variance = spread - shift**2
    return {
        "mean_absolute_error": absolute,
        "root_mean_squared_error": np.sqrt(squared),
        "r2": 1 - squared / np.where(variance > ROUNDING * spread, variance, np.nan),
    }
