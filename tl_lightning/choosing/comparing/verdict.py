"""Did transfer help? Tests on paired predictions, and the verdict in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_lightning.choosing.comparing.differences import Difference, metric_difference, paired_difference

__all__ = ["Difference", "McNemar", "Verdict", "holm", "mcnemar", "metric_difference", "paired_difference", "verdict"]

Kind = Literal["helped", "better", "no_evidence", "worse", "negative"]
POWER_QUANTILE = 0.8416  # of the normal distribution: what is this far beyond the interval is found in 80 % of cases


@dataclass(frozen=True)
class McNemar:
    """How often only one of two models was right, and how surprising that is.

    Attributes:
        only_one: Images that only the one got right.
        only_other: Images that only the other got right.
        p: Two-sided: how often equally good models would be at least as far apart.
    """

    only_one: int
    only_other: int
    p: float


@dataclass(frozen=True)
class Verdict:
    """What a difference means.

    Attributes:
        kind: ``helped`` where the whole interval is above 0, ``negative`` where it is below, else ``no_evidence``;
            where the reference transfers, too, ``better`` and ``worse`` instead of the first two.
        text: In plain words, with the interval.
    """

    kind: Kind
    text: str


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> McNemar:
    """The exact test of McNemar (1947): which of two models is right where they disagree?

    It looks at two trained models and takes all images to be independent; with groups it finds too much.

    Args:
        one: Whether the one was right, ``(images,)``.
        other: The other strategy's, on the same images.
    """
    from scipy import stats

    right, also = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    only_one, only_other = int((right & ~also).sum()), int((also & ~right).sum())
    if only_one + only_other == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_one, only_other, float(stats.binomtest(only_one, only_one + only_other).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects for asking several questions at once (Holm 1979): below 0.05 holds for all of them together.

    Args:
        p_values: One per question, 0 to 1.

    Returns:
        The corrected ones, in the same order.
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = worst
    return adjusted


def smallest_difference(difference: Difference) -> float:
    """What difference would have been found in four cases of five, with these images and runs.

    Args:
        difference: The interval of it says how sure they are; about 2.8 standard errors where runs are many.
    """
    return (difference.high - difference.low) / 2 + POWER_QUANTILE * difference.error


def verdict(
    difference: Difference,
    *,
    seeds: int,
    what: str,
    reference: str,
    metric: str = "accuracy",
    points: bool = True,
    both_transfer: bool = False,
) -> Verdict:
    """Says whether transfer helped; where both transfer, which is better.

    Args:
        difference: The strategy that transfers, less the reference; above 0 is better, so errors count negative.
        seeds: Runs per strategy; with one, the words say that the claim is about these trained models.
        what: The strategy that transfers, such as ``full``.
        reference: What it was compared with, such as ``scratch``.
        metric: What was measured, in words, such as ``accuracy`` or ``mean absolute error``.
        points: Whether the metric is a share, told in points; otherwise an error, told in its own units.
        both_transfer: Whether the reference has pretrained weights, too: the words are about the two of them then.
    """
    kind: Kind = "no_evidence"
    if difference.low > 0:
        kind = "better" if both_transfer else "helped"
    elif difference.high < 0:
        kind = "worse" if both_transfer else "negative"
    if both_transfer:
        text = _of_two(difference, kind, metric, what, reference, points)
    else:
        text = _in_points(difference, kind) if points else _in_units(difference, kind, metric)
        text += f", {metric} of {what} against {reference}" if points else f", {what} against {reference}"
    if seeds == 1:
        text += ", of these trained models"
    least = smallest_difference(difference)
    if kind == "no_evidence" and least > 0:  # it is 0 where errors differ by the same on every image
        shown = f"{100 * least:.1f} points" if points else f"{least:.3g}"
        text += f"; a true difference of {shown} would have been found in four cases of five, a smaller one less often"
    if seeds == 1:
        text += "; --seeds 3 would count training noise, too"
    return Verdict(kind, text)


def _in_points(difference: Difference, kind: Kind) -> str:
    value, low, high = (100 * number for number in (difference.value, difference.low, difference.high))
    level = f"{100 * difference.level:.0f} % CI"
    if kind == "negative":
        return f"negative transfer: it cost {-value:.1f} points ({level} {-high:.1f} to {-low:.1f})"
    claim = "transfer helped by" if kind == "helped" else "no evidence that transfer helped:"
    return f"{claim} {_plain(value, '.1f')} points ({level} {_plain(low, '.1f')} to {_plain(high, '.1f')})"


def _in_units(difference: Difference, kind: Kind, metric: str) -> str:
    value, low, high = difference.value, difference.low, difference.high
    claim = {
        "helped": "transfer helped",
        "no_evidence": "no evidence that transfer helped",
        "negative": "negative transfer",
    }
    fell = value >= 0
    if not fell:
        value, low, high = -value, -high, -low
    numbers = (
        f"{_plain(value, '.3g')} ({100 * difference.level:.0f} % CI {_plain(low, '.3g')} to {_plain(high, '.3g')})"
    )
    return f"{claim[kind]}: the {metric} {'fell' if fell else 'rose'} by {numbers}"


def _of_two(difference: Difference, kind: Kind, metric: str, what: str, reference: str, points: bool) -> str:
    claim = {"better": f"{what} is better than {reference} by", "worse": f"{what} is worse than {reference} by"}
    scale, digits, unit = (100, ".1f", " points") if points else (1, ".3g", "")
    numbers = [scale * number for number in (difference.value, difference.low, difference.high)]
    if kind == "worse":
        numbers = [-numbers[0], -numbers[2], -numbers[1]]
    value, low, high = (_plain(number, digits) for number in numbers)
    said = claim.get(kind, f"no evidence of a difference of {what} to {reference}:")
    how = "" if points else "less " if kind != "worse" else "more "
    return f"{said} {value}{unit} ({100 * difference.level:.0f} % CI {low} to {high}), {how}{metric}"


def _plain(number: float, digits: str) -> str:
    """Without the sign that a rounded zero may have."""
    text = format(number, digits)
    return text.lstrip("-") if not math.isnan(number) and float(text) == 0 else text
