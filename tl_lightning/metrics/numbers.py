"""One or more numbers per image: how far off the answers are, and how much of the variation they explain."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score

from tl_lightning.metrics.noise import bootstrap

# The figures, and whether the best value is the largest or the smallest.
METRICS = {
    "r2": "max",
    "mean_absolute_error": "min",
    "root_mean_squared_error": "min",
    "loss": "min",
}


def number_metrics(outputs: int, prefix: str) -> MetricCollection:
    """The figures over answers and right numbers of shape ``(n, outputs)``, both less their mean and by their
    deviation.

    Sums of squares in float32 would cancel where numbers are far from 0; `in_units` takes the scaling back.

    Args:
        outputs: How many numbers there are per image.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "r2": R2Score(multioutput="raw_values"),
        "mean_absolute_error": MeanAbsoluteError(num_outputs=outputs),
        "root_mean_squared_error": MeanSquaredError(squared=False, num_outputs=outputs),
    }
    return MetricCollection(metrics, prefix=prefix)


def in_units(figures: Mapping[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """Turns scaled figures of each number into the mean figure, errors in the numbers' own units.

    Args:
        figures: As `number_metrics` gives them.
        scale: The deviations that the numbers were divided by, ``(outputs,)``.
    """
    return {name: value.mean() if name.endswith("r2") else (value * scale).mean() for name, value in figures.items()}


def per_number(predictions: NDArray[Any], answers: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Scores each number: ``name``, ``mean``, ``mean_absolute_error``, ``root_mean_squared_error`` and ``r2``.

    Args:
        predictions: ``(n, outputs)``.
        answers: Likewise.
        names: Of the numbers.
    """
    figures = _figures(_sums(predictions, answers), np.ones(len(answers)))
    columns = {name: values.tolist() for name, values in figures.items()}
    means = answers.mean(axis=0).tolist()
    return [
        {"name": name, "mean": means[k], **{figure: values[k] for figure, values in columns.items()}}
        for k, name in enumerate(names)
    ]


def number_errors(
    predictions: NDArray[Any], answers: NDArray[Any], groups: NDArray[np.str_] | None = None
) -> dict[str, float]:
    """The noise of ``r2``, ``mean_absolute_error`` and ``root_mean_squared_error``; see `bootstrap`.

    Args:
        predictions: ``(n, outputs)``.
        answers: Likewise.
        groups: What images have in common.
    """
    sums = _sums(predictions, answers)

    def figures(times: NDArray[np.int64]) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in _figures(sums, times).items()}

    return bootstrap(figures, len(answers), groups=groups)


def _sums(predictions: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
    """What the figures are made of, one column each, summed over images: ``(n, 4, outputs)``."""
    missed = predictions.astype(np.float64) - answers
    spread = answers.astype(np.float64) - answers.mean(axis=0, dtype=np.float64)
    return np.stack([np.abs(missed), missed**2, spread, spread**2], axis=1)


def _figures(sums: NDArray[np.float64], times: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    total = times.sum()
    absolute, squared, shift, spread = np.tensordot(times, sums, axes=1) / total
    variance = spread - shift**2
    return {
        "mean_absolute_error": absolute,
        "root_mean_squared_error": np.sqrt(squared),
        "r2": 1 - squared / np.where(variance > 0, variance, np.nan),
    }
