"""The noise of metrics that a finite set of images gives."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
WORK = 10**8  # rows times draws, beyond which fewer draws have to do
FEWEST = 100  # but no fewer than these


def resampled(
    rows: int, *, groups: NDArray[np.str_] | None = None, draws: int = DRAWS, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Draws other images like these, with replacement (Efron 1979).

    Args:
        rows: How many there are, 1 or more.
        groups: What rows have in common, ``(rows,)``; whole groups are drawn then, for their rows are alike.
        draws: How many; fewer where the rows are many.
        seed: The same seed gives the same draws.

    Yields:
        How often each row was drawn, ``(rows,)``.
    """
    rng = np.random.default_rng(seed)
    member_of = None if groups is None else np.unique(groups, return_inverse=True)[1]
    count = rows if member_of is None else int(member_of.max()) + 1
    for _ in range(min(draws, max(FEWEST, WORK // rows))):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        yield times if member_of is None else times[member_of]


def bootstrap(
    metrics: Callable[[NDArray[np.int64]], Mapping[str, float]],
    rows: int,
    *,
    groups: NDArray[np.str_] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, float]:
    """Standard errors by the bootstrap: what if other images like these had been drawn? See `resampled`.

    Args:
        metrics: From how often each row was drawn, ``(rows,)``, to the metrics.
        rows: How many there are, 1 or more.
        groups: What rows have in common, ``(rows,)``.
        draws: How many.
        seed: The same seed gives the same draws.

    Returns:
        The standard error of each metric. Draws in which a metric has no value are left out; without any, it is `nan`.
    """
    drawn: dict[str, list[float]] = {}
    for times in resampled(rows, groups=groups, draws=draws, seed=seed):
        for name, value in metrics(times).items():
            drawn.setdefault(name, []).append(value)
    return {name: _deviation(np.array(values)) for name, values in drawn.items()}


def standard_error(values: NDArray[np.float64], groups: NDArray[np.str_] | None = None) -> float:
    """The standard error of a mean; rows of one group count as one, for they are alike.

    Args:
        values: ``(n,)``.
        groups: What rows have in common, ``(n,)``; `None` where each stands for itself.
    """
    deviations = values - values.mean()
    if groups is not None:
        deviations = np.bincount(np.unique(groups, return_inverse=True)[1], weights=deviations)
    return math.sqrt(float(np.square(deviations).sum())) / len(values)


def share(parts: NDArray[Any], wholes: NDArray[Any]) -> NDArray[np.float64]:
    """The parts by the wholes; `nan` where a whole is nothing."""
    return np.asarray(parts / np.where(wholes > 0, wholes, np.nan))


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis of what is a number; `nan` where nothing is."""
    defined = np.isfinite(values)
    return share(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def _deviation(values: NDArray[np.float64]) -> float:
    values = values[np.isfinite(values)]
    return float(values.std()) if len(values) else float("nan")
