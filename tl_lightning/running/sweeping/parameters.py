"""What a sweep may vary: the choices and ranges of a W&B sweep file."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One of several values, of any kind that YAML holds.

    Attributes:
        values: Exact, as they stand in the file; a constant has one.
        probabilities: One for each value, for random search; `None` for equal ones.
    """

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Range:
    """A number between two others.

    Attributes:
        low: The smallest; a multiple of ``step``, where there is one.
        high: The largest; likewise.
        log: Whether the logarithm is drawn evenly.
        step: Numbers are multiples of it, within the range; `None` for any number.
        integer: Whether only whole numbers are drawn.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False


@dataclass(frozen=True)
class Bell:
    """A number from a distribution without bounds, or from a beta distribution.

    Attributes:
        shape: ``normal``, ``log_normal`` or ``beta``.
        first: The mean (of the logarithm), or the beta distribution's a.
        second: The standard deviation (of the logarithm), or b.
        step: Numbers are rounded to multiples of it, and are whole where it is an `int`; `None` for any number.
    """

    shape: str
    first: float
    second: float
    step: float | None = None


Parameter = Choice | Range | Bell


def grid_size(parameters: Mapping[str, Parameter]) -> int:
    """How many combinations there are.

    Args:
        parameters: By dotted key; choices, and ranges of whole numbers.
    """
    return math.prod(len(_listed(key, parameter)) for key, parameter in parameters.items())


def combination(parameters: Mapping[str, Parameter], number: int) -> dict[str, Any]:
    """One of all combinations, in the file's order: the last parameter changes first.

    Args:
        parameters: By dotted key; choices, and ranges of whole numbers.
        number: Which, from 0.

    Raises:
        ValueError: If a parameter is no choice and no range of whole numbers.
    """
    chosen = {}
    for key, parameter in reversed([*parameters.items()]):
        values = _listed(key, parameter)
        number, place = divmod(number, len(values))
        chosen[key] = values[place]
    return dict(reversed(chosen.items()))


def grid(parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    """All combinations, in order.

    Args:
        parameters: The choices, as `combination` takes them.
    """
    return [combination(parameters, number) for number in range(grid_size(parameters))]


def can_be_listed(parameter: Parameter) -> bool:
    """Whether a grid can go through it, as W&B's does: equal choices, and ranges of whole numbers.

    Args:
        parameter: Any.
    """
    if isinstance(parameter, Choice):
        return parameter.probabilities is None
    return isinstance(parameter, Range) and parameter.integer and parameter.step is None


def _listed(key: str, parameter: Parameter) -> Sequence[Any]:
    if not can_be_listed(parameter):
        raise ValueError(f"{key} cannot be listed: {parameter}")
    if isinstance(parameter, Choice):
        return parameter.values
    assert isinstance(parameter, Range)
    return range(int(parameter.low), int(parameter.high) + 1)


def at(parameter: Parameter, quantile: float) -> Any:  # noqa: ANN401 - anything that YAML holds
    """The value below which a share of all draws falls, so that an even draw from 0 to 1 becomes one of the parameter.

    Numbers are rounded to the multiples of ``step`` as W&B rounds them, but never out of the range.

    Args:
        parameter: Any.
        quantile: From 0 up to but not including 1; a bell without bounds needs more than 0.
    """
    if isinstance(parameter, Choice):
        count = len(parameter.values)
        if parameter.probabilities is None:
            return parameter.values[int(quantile * count)]
        # What is 0 is never drawn, also where the probabilities add up to a little less than 1.
        likely = [k for k in range(count) if parameter.probabilities[k] > 0]
        ends = list(accumulate(parameter.probabilities[k] for k in likely))
        return parameter.values[likely[min(bisect_right(ends, quantile), len(likely) - 1)]]
    if isinstance(parameter, Bell):
        return rounded(_of_bell(parameter, quantile), parameter.step)
    low, high = parameter.low, parameter.high
    if parameter.log:
        value = math.exp(math.log(low) + quantile * (math.log(high) - math.log(low)))
    elif parameter.integer and parameter.step is None:
        return int(low) + int(quantile * (int(high) - int(low) + 1))
    else:
        value = low + quantile * (high - low)
    value = min(max(rounded(value, parameter.step), low), high)
    return round(value) if parameter.integer else float(value)


def _of_bell(bell: Bell, quantile: float) -> float:
    if bell.shape == "beta":
        from scipy.special import betaincinv  # scipy.stats would take a second to import

        return float(betaincinv(bell.first, bell.second, quantile))
    value = NormalDist(bell.first, bell.second).inv_cdf(quantile) if bell.second > 0 else bell.first
    return math.exp(value) if bell.shape == "log_normal" else value


def rounded(value: float, step: float | None) -> float:
    """The nearest multiple of a step; whole where the step is.

    Args:
        value: Any number.
        step: Above 0; `None` leaves the value as it is.
    """
    if step is None:
        return value
    # Three times 0.1 is to be 0.3, which is what people wrote, and not 0.30000000000000004.
    return round(value / step) * step if isinstance(step, int) else float(f"{round(value / step) * step:.12g}")
