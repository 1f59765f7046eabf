"""How far apart two strategies are, and how sure that is: images and training are both left to chance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_lightning.metrics.classification import of_confusion
from tl_lightning.metrics.noise import resampled

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """One strategy's metric less another's.

    Attributes:
        value: On these images, of these runs.
        low: Where the confidence interval begins.
        high: Where it ends.
        error: The standard error.
        level: The confidence of the interval, such as 0.95.
    """

    value: float
    low: float
    high: float
    error: float
    level: float = LEVEL


def paired_difference(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    *,
    shares: bool = True,
    groups: NDArray[np.str_] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """The difference between the mean scores of two strategies on the same images.

    The images' part of the interval is a paired bootstrap: each draw gives both strategies the same images. With
    several runs per strategy the noise of training is added, from the spread of the runs, see `_combined`. With one run
    each it cannot be seen: the interval is then about these two trained models, not about the strategies.

    Where scores are shares, the interval is widened by what Bonett and Price (2012) add: one image that only the one
    gets right, and one that only the other does. Without it, two models that agree on all of 30 images would be the
    same for sure. Whole groups that stay unseen matter more: with groups it is one more like the one furthest
    from the rest.

    Args:
        one: Score per run and image, ``(runs, images)``: 1 for right and 0 for wrong, a share of right labels, or
            minus an absolute error.
        other: The other strategy's scores of the same images; it may have another number of runs.
        shares: Whether what is measured is between 0 and 1, as right and wrong are; errors have no such ends.
        groups: What images have in common, ``(images,)``; whole groups are drawn then.
        level: The confidence of the interval, such as 0.95.
        draws: How many; fewer where the images are many.
        seed: Makes the draws the same each time.
    """
    scores = np.concatenate([one, other]).astype(np.float64)

    def metrics(times: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(scores @ times / times.sum())

    images = scores.shape[1]
    moves = (one.mean(axis=0) - other.mean(axis=0)) / images
    unseen = _unseen(moves, np.full(images, float(shares) / images), groups)
    return _difference(metrics, unseen, len(one), rows=images, groups=groups, level=level, draws=draws, seed=seed)


def metric_difference(
    metric: str,
    labels: NDArray[np.int64],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    *,
    classes: int,
    groups: NDArray[np.str_] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """The difference between two strategies' metrics that are no mean over images; otherwise `paired_difference`.

    Args:
        metric: ``accuracy``, ``balanced_accuracy`` or ``macro_f1``; the mean of the runs' own metrics is compared.
        labels: The right class of each image, ``(images,)``.
        one: The predicted class, ``(runs, images)``.
        other: The class that the other strategy predicted, of the same images; it may have another number of runs.
        classes: How many there are.
        groups: What images have in common, ``(images,)``.
        level: The confidence of the interval, such as 0.95.
        draws: How many.
        seed: Makes the draws the same each time.
    """
    # Images that all runs predict alike are counted together: few kinds remain.
    predicted = np.concatenate([one, other])
    kinds, kind_of = np.unique(np.concatenate([labels[None], predicted]), axis=1, return_inverse=True)
    kind_of = kind_of.ravel()  # numpy 2.0 gives it a second axis
    cells = kinds[0] * classes + kinds[1:] + classes**2 * np.arange(len(predicted))[:, None]

    def metrics(times: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = np.bincount(kind_of, weights=times, minlength=kinds.shape[1])
        size = len(predicted) * classes**2
        confusion = np.bincount(cells.ravel(), weights=np.tile(counts, len(predicted)), minlength=size)
        return of_confusion(metric, confusion.reshape(len(predicted), classes, classes))

    # What one image of a class moves the metric by, about.
    of_class = np.bincount(labels, minlength=classes)
    weights = np.full(len(labels), 1 / len(labels))
    if metric != "accuracy":
        weights = 1 / (np.count_nonzero(of_class) * of_class[labels])
    moves = weights * ((one == labels).mean(axis=0) - (other == labels).mean(axis=0))
    unseen = _unseen(moves, weights, groups)
    return _difference(metrics, unseen, len(one), rows=len(labels), groups=groups, level=level, draws=draws, seed=seed)


def _unseen(moves: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.str_] | None) -> float:
    """The variance that one more image each way adds, or one more group like the one furthest from the rest.

    Args:
        moves: What each image moves the difference by, ``(images,)``.
        weights: The most it could, likewise; 0 where there is no most.
        groups: What images have in common.
    """
    least = float((weights**2).mean())
    if groups is None:
        return 2 * least
    of_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights=moves - moves.mean())
    return max(2 * least, float((of_group**2).max()))


def _difference(
    metrics: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    unseen: float,
    ones: int,
    *,
    rows: int,
    groups: NDArray[np.str_] | None,
    level: float,
    draws: int,
    seed: int,
) -> Difference:
    """Draws images; `metrics` gives every run's, first those of `ones` runs; see `_combined`."""
    here = metrics(np.ones(rows, dtype=np.int64))
    drawn = np.stack([metrics(times) for times in resampled(rows, groups=groups, draws=draws, seed=seed)])
    units = rows if groups is None else len(np.unique(groups))
    return _combined(here, drawn, ones, units=units, unseen=unseen, level=level)


def _combined(
    here: NDArray[np.float64], drawn: NDArray[np.float64], ones: int, *, units: int, unseen: float, level: float
) -> Difference:
    """Adds up the noise of the images, of images not seen and of training, as squared half-widths.

    So combined (the MOVER of Zou and Donner 2008), each part keeps a quantile of its own: the images those of the
    bootstrap, stretched for few units; training that of Student's t with Welch's degrees of freedom, as a percentile
    bootstrap over three runs would be much too narrow. Runs differ in which images they get wrong, too, and the
    images' draws have counted that already: it is taken off the spread of the runs (a crossed design's variance
    components).

    Args:
        here: Each run's metric, ``(runs,)``.
        drawn: The same on drawn images, ``(draws, runs)``.
        ones: How many of the runs, from the first, are those of the one strategy.
        units: Images, or groups of them.
        unseen: The variance to add for images not seen.
        level: The confidence of the interval, such as 0.95.
    """
    from scipy.special import ndtri, stdtrit  # as scipy.stats has them, which takes a second to import

    sides = (slice(None, ones), slice(ones, None))
    value = float(here[sides[0]].mean() - here[sides[1]].mean())
    if units == 1:  # nothing is known of how it would be elsewhere
        return Difference(value, -np.inf, np.inf, np.inf, level)
    tail = (1 - level) / 2
    normal = ndtri(1 - tail)
    few = units / (units - 1)
    stretch = np.sqrt(few) * stdtrit(units - 1, 1 - tail) / normal
    moved = drawn[:, sides[0]].mean(axis=1) - drawn[:, sides[1]].mean(axis=1)
    low, high = np.quantile(moved, [tail, 1 - tail])
    training, freedom = _training_noise([(here[side], drawn[:, side]) for side in sides], few)
    added = np.sqrt(normal**2 * unseen + stdtrit(freedom, 1 - tail) ** 2 * training)
    below, above = (float(np.hypot(stretch * max(side, 0.0), added)) for side in (value - low, high - value))
    error = float(np.sqrt(few * moved.var() + unseen + training))
    return Difference(value, value - below, value + above, error, level)


def _training_noise(
    strategies: list[tuple[NDArray[np.float64], NDArray[np.float64]]], few: float
) -> tuple[float, float]:
    """The variance of the difference that training adds, and its degrees of freedom; 0 where each has one run."""
    sizes = [len(here) for here, _ in strategies]
    if max(sizes) == 1:
        return 0.0, 1.0
    seen, net, freedom = [], [], []
    for here, drawn in strategies:
        own = drawn - drawn.mean(axis=1, keepdims=True)
        variance, more = float(here.var(ddof=min(1, len(here) - 1))), max(len(here) - 1, 1)
        seen.append(variance)
        net.append(max(0.0, variance - few * float(own.var(axis=0).sum()) / more))
        freedom.append(more)
    if min(sizes) == 1:  # the others of its runs failed: that of the other strategy has to do
        lone = sizes.index(1)
        seen[lone], net[lone], freedom[lone] = seen[1 - lone], net[1 - lone], freedom[1 - lone]
    training = sum(variance / runs for variance, runs in zip(net, sizes, strict=True))
    parts = [variance / runs for variance, runs in zip(seen, sizes, strict=True)]
    squares = sum(part**2 / own for part, own in zip(parts, freedom, strict=True))
    return training, sum(parts) ** 2 / squares if squares else 1.0
