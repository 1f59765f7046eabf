"""Learning curves in words: what more labels would bring, and where one strategy catches up with another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_lightning.choosing.comparing.differences import Difference
from tl_lightning.choosing.comparing.power_law import FEWEST, Curve, errors_of, fit_curve

__all__ = ["CatchUp", "Curve", "Estimate", "catches_up", "fit_curve", "forecast", "gain_in_words", "gain_of"]

INTERVAL = (0.025, 0.975)
FURTHEST = 10  # times as many labels as were measured: beyond, a curve says nothing


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CatchUp:
    """From how many labels on the reference is as good as the other strategy, within the noise.

    Attributes:
        labels: How many; `None` where it is not within 10 times as many as were measured, or cannot be said.
        low: Where the 95 % interval begins; `labels` where it was measured.
        high: Where it ends; infinite beyond 10 times as many.
        text: In words.
    """

    labels: float | None
    low: float
    high: float
    text: str


def forecast(curve: Curve, labels: float) -> Estimate:
    """The score to expect with so many labels, with its 95 % interval.

    Args:
        curve: As `fit_curve` gives it.
        labels: More than were measured, up to about twice as many; further on the interval holds for power laws only.
    """
    drawn = curve.perfect - errors_of(curve.draws, labels)[:, 0]
    return _estimate(curve.perfect - _error(curve, labels), drawn)


def gain_of(curve: Curve, now: int, more: int) -> Estimate:
    """How much better the score would be with more labels, with its 95 % interval.

    Args:
        curve: As `fit_curve` gives it.
        now: Labels that there are.
        more: Labels to come.

    Returns:
        In units of the score: 0.01 is one point where it is a share.
    """
    before, after = errors_of(curve.draws, np.array([now, now + more], dtype=np.float64)).T
    return _estimate(_error(curve, now) - _error(curve, now + more), before - after)


def gain_in_words(curve: Curve | None, now: int, more: int, *, name: str, points: bool = True) -> str:
    """What more labels would bring.

    Args:
        curve: The strategy's; `None` where there were too few sizes for one.
        now: Labels that there are.
        more: Labels to come.
        name: The strategy's.
        points: Whether the score is a share, told in points; otherwise minus an error, told in its own units.
    """
    if curve is None:
        return f"what {more:,} more labels would bring {name} cannot be said: that needs {FEWEST} different sizes"
    value, low, high = (100 * number if points else number for number in gain_of(curve, now, more))
    if points:
        text = f"{value:.1f} points (95 % CI {low:.1f} to {high:.1f})"
    else:
        text = f"an error smaller by {value:.3g} (95 % CI {low:.3g} to {high:.3g})"
    return f"{more:,} more labels than {now:,} would bring {name} about {text}{_warning(curve)}"


def catches_up(
    reference: Curve | None,
    other: Curve | None,
    sizes: Sequence[int],
    differences: Sequence[Difference],
    *,
    names: tuple[str, str],
) -> CatchUp:
    """From which number of labels on the reference is as good as the other strategy within the noise.

    What was measured comes first: the size from which on no interval of the difference is above 0. Otherwise the
    fitted curves are followed up to 10 times the largest size, until they are as close as the noise of the difference
    there could hide.

    Args:
        reference: The curve of the reference, such as that of training from scratch; `None` where there is none.
        other: The other's.
        sizes: Labelled images, each size once.
        differences: The other's score less the reference's, with each.
        names: What the reference and the other are called.
    """
    behind, ahead = names
    measured = sorted(zip(map(int, sizes), differences, strict=True), key=lambda pair: pair[0])
    apart = [position for position, (_, difference) in enumerate(measured) if difference.low > 0]
    first = apart[-1] + 1 if apart else 0
    if first < len(measured):
        labels = measured[first][0]
        level = [position for position, (_, difference) in enumerate(measured) if difference.high >= 0]
        beaten = max(first, level[-1] + 1 if level else 0)
        tried = ", the fewest that were tried" if first == 0 else ""
        where = f"with {labels:,} labels{tried}" if first == 0 else f"from {labels:,} labels on"
        if beaten == first:
            text = f"{behind} is ahead of {ahead} from {labels:,} labels on{tried}"
        else:
            text = f"{behind} cannot be told from {ahead} {where}"
            if beaten < len(measured):
                text += f", and is ahead of it from {measured[beaten][0]:,} labels on"
        return CatchUp(labels, labels, labels, text)
    largest, difference = measured[-1]
    short = f"{ahead} is still ahead of {behind} with {largest:,} labels"
    if reference is None or other is None:
        text = f"{short}; where {behind} would catch up cannot be said: that needs {FEWEST} different sizes"
        return CatchUp(None, largest, math.inf, text)
    found, low, high = _crossing(reference, other, largest, difference.value - difference.low)
    furthest = FURTHEST * largest
    if math.isinf(found):
        text = f"{short}, and by the fitted curves {behind} does not catch up within {FURTHEST} times as many"
        return CatchUp(None, low, high, text + _warning(reference, other))
    end = f"more than {furthest:,}" if math.isinf(high) else f"{_rounded(high):,}"
    text = f"by the fitted curves they could not be told apart from about {_rounded(found):,} on"
    interval = f"(95 % CI {_rounded(low):,} to {end})"
    return CatchUp(found, low, high, f"{short}; {text} {interval}{_warning(reference, other)}")


def _crossing(reference: Curve, other: Curve, largest: int, margin: float) -> Estimate:
    labels = np.geomspace(largest, FURTHEST * largest, 400)

    def first(gap: NDArray[np.float64]) -> NDArray[np.float64]:
        close = gap <= margin
        return np.where(close.any(axis=1), labels[close.argmax(axis=1)], np.inf)

    fitted = [np.array([[curve.floor, curve.scale, curve.exponent]]) for curve in (reference, other)]
    found = float(first(errors_of(fitted[0], labels) - errors_of(fitted[1], labels))[0])
    # In another order: draws of the same seed go up and down together.
    drawn = first(errors_of(reference.draws, labels) - errors_of(other.draws[::-1], labels))
    low, high = np.quantile(drawn, INTERVAL, method="nearest")  # between finite and infinite there is no middle
    return Estimate(found, min(float(low), found), max(float(high), found))


def _error(curve: Curve, labels: float) -> float:
    return float(curve.floor + curve.scale * labels**-curve.exponent)


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(drawn, INTERVAL)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _warning(*curves: Curve) -> str:
    return "; the points follow no power law, so this is rough" if any(curve.misfit >= 2 for curve in curves) else ""


def _rounded(labels: float) -> int:
    """To two digits: nothing is known more exactly."""
    return int(float(f"{labels:.1e}"))
