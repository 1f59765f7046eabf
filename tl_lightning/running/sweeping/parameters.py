"""What a sweep may vary: the choices and ranges of a W&B sweep file."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One of several values, of any kind that YAML holds.

    Attributes:
        values: Exact, as they stand in the file; a constant has one.
        probabilities: Of each, for random search; `None` for equal ones.
    """

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Range:
    """A number between two others.

    Attributes:
        low: The smallest.
        high: The largest.
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
        step: Numbers are rounded to multiples of it; `None` for any number.
    """

    shape: str
    first: float
    second: float
    step: float | None = None


Parameter = Choice | Range | Bell
