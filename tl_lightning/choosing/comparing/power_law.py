"""The error of a model falls with the number of labels like a power law: fitting one, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.geomspace(0.05, 2.0, 60)
FEWEST = 3  # different numbers of labels, for three parameters
DRAWS = 500
IMPLAUSIBLE = 0.05


@dataclass(frozen=True, eq=False)
class Curve:
    """The error with n labels: ``floor + scale * n ** -exponent`` (Hestness et al. 2017, Figueroa et al. 2012).

    Attributes:
        floor: What is left with any number of labels, 0 or more.
        scale: 0 or more; 0 where more labels do not help.
        exponent: 0.05 to 2.
        perfect: The score of an error of 0: 1 for shares, 0 where scores are minus an error.
        smallest: The fewest labels that the fit looks at; below, the points do not follow it.
        largest: The most labels that were measured.
        misfit: How many times as far from the curve as their noise the points are, 1 or more; 2 is bad.
        draws: Parameters that could as well be right, ``(draws, 3)``, in the order above.
    """

    floor: float
    scale: float
    exponent: float
    perfect: float
    smallest: int
    largest: int
    misfit: float
    draws: NDArray[np.float64] = field(repr=False)


def fit_curve(
    sizes: Sequence[int],
    scores: Sequence[float],
    errors: Sequence[float],
    *,
    perfect: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> Curve | None:
    """Fits a power law to measured scores, each weighted by its noise.

    For every exponent of a grid the other two follow by linear least squares, so no start can be wrong. What else could
    be right comes from fits to points drawn around the curve (a parametric bootstrap), further off where the points lie
    further off the curve than their noise allows. Learning curves need not be power laws (Viering and Loog 2021): where
    the points are implausible for one, those with the fewest labels are left out, as long as three sizes remain.

    Args:
        sizes: Labelled images, 1 or more each; a size may occur several times.
        scores: The accuracy with each, or minus an error.
        errors: Their standard errors.
        perfect: The score of an error of 0: 1 for shares, 0 where scores are minus an error.
        draws: How many other curves.
        seed: Makes the draws the same each time.

    Returns:
        The curve; `None` where there are fewer than three different sizes, or an error is not finite.
    """
    from scipy.special import chdtrc

    order = np.argsort(sizes, kind="stable")
    labels = np.asarray(sizes, dtype=np.float64)[order]
    missed = perfect - np.asarray(scores, dtype=np.float64)[order]
    # A score of 1 seems to have no noise, and must not rule.
    noise = np.asarray(errors, dtype=np.float64)[order]
    noise = np.maximum(noise, max(0.1 * float(noise.max(initial=0)), 1e-4))
    if len(np.unique(labels)) < FEWEST or not np.isfinite(noise).all():
        return None
    while True:
        best, distance = _fits(labels, missed[None], noise)
        spare = len(labels) - 3
        rest = labels > labels[0]
        implausible = spare > 0 and chdtrc(spare, distance[0]) < IMPLAUSIBLE
        if not implausible or len(np.unique(labels[rest])) < FEWEST:
            break
        labels, missed, noise = labels[rest], missed[rest], noise[rest]
    misfit = float(np.sqrt(max(1.0, distance[0] / max(spare, 1))))
    around = np.random.default_rng(seed).standard_normal((draws, len(labels)))
    drawn, _ = _fits(labels, errors_of(best, labels) + misfit * noise * around, noise)
    floor, scale, exponent = (float(number) for number in best[0])
    return Curve(floor, scale, exponent, perfect, int(labels[0]), int(labels[-1]), misfit, drawn)


def errors_of(parameters: NDArray[np.float64], labels: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The errors that curves foretell.

    Args:
        parameters: Floor, scale and exponent, ``(curves, 3)``.
        labels: How many, ``(n,)`` or one.

    Returns:
        ``(curves, n)``.
    """
    floor, scale, exponent = parameters.T[:, :, None]
    return np.asarray(floor + scale * np.atleast_1d(labels) ** -exponent)


def _fits(
    labels: NDArray[np.float64], missed: NDArray[np.float64], noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best parameters for each row of `missed`, ``(rows, 3)``, and the sums of squared distances by the noise."""
    weights = noise**-2
    weights, unit = weights / weights.sum(), weights.sum()
    mean = missed @ weights
    best, least = np.zeros((len(missed), 3)), np.full(len(missed), np.inf)
    for exponent in EXPONENTS:
        falling = (labels / labels[0]) ** -exponent  # 1 at the first size, lest a scale gets huge
        centred = falling - weights @ falling
        scale = (missed - mean[:, None]) @ (weights * centred) / (weights @ centred**2)
        floor = mean - scale * (weights @ falling)
        # Neither may be below 0: where one would be, the best without it is the best of all.
        alone = missed @ (weights * falling) / (weights @ falling**2)
        scale = np.where(floor < 0, np.maximum(alone, 0), scale)
        floor = np.maximum(np.where(scale < 0, mean, floor), 0)
        scale = np.maximum(scale, 0)
        distance = (missed - floor[:, None] - scale[:, None] * falling) ** 2 @ weights * unit
        better = distance < least
        least = np.where(better, distance, least)
        found = np.stack([floor, scale * labels[0] ** exponent, np.full_like(floor, exponent)], axis=1)
        best = np.where(better[:, None], found, best)
    return best, least
