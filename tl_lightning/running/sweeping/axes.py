"""Where a number or a choice lies on an axis of the report."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tl_lightning.running.sweeping.parameters import Choice, Parameter, Range
from tl_lightning.running.sweeping.showing import encoded, is_log, number_of, value_text
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

FAR = 1.5  # interquartile ranges beyond the quartile; what lies further, as a diverged trial, is drawn at the edge


@dataclass(frozen=True)
class Axis:
    """A scale.

    Attributes:
        low: The number at 0.
        high: The number at 1.
        log: Whether the logarithm is what is even.
        choices: In place of numbers: the values, encoded, in their order.
        words: What each choice is called.
        whole: Whether only whole numbers are written at it.
    """

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    whole: bool = False

    def place(self, value: Any) -> float | None:  # noqa: ANN401 - anything that YAML holds
        """Where a value lies, from 0 to 1; beyond an end at that end; `None` where it is none of the axis."""
        if self.choices:
            text = encoded(value)
            return self._slot(self.choices.index(text)) if text in self.choices else None
        number = number_of(value)
        if number is None or (self.log and number <= 0):
            return None
        low, high, number = (math.log(x) if self.log else x for x in (self.low, self.high, number))
        return min(max((number - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def _slot(self, index: int) -> float:
        return (index + 0.5) / len(self.choices)

    def ticks(self) -> list[tuple[float, str]]:
        """Places with what is written at them."""
        if self.choices:
            return [(self._slot(index), word) for index, word in enumerate(self.words)]
        if self.high <= self.low:
            return [(0.5, value_text(float(self.low)))]
        numbers = _log_ticks(self.low, self.high) if self.log else []
        numbers = numbers if len(numbers) > 1 else _even_ticks(self.low, self.high)
        numbers = [number for number in numbers if not self.whole or number == round(number)]
        places = [(self.place(number), value_text(number)) for number in numbers]
        return [(place, word) for place, word in places if place is not None]


def _even_ticks(low: float, high: float) -> list[float]:
    size = 10 ** math.floor(math.log10(high - low))
    step = next(step for step in (size / 5, size / 2, size, 2 * size) if (high - low) / step <= 6)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    each = (1,) if last - first > 2 else (1, 2, 5) if last - first == 2 else (1, 2, 3, 5, 7)
    every = max(math.ceil((last - first) / 6), 1)
    numbers = [factor * 10.0**power for power in range(first, last + 1, every) for factor in each]
    return [number for number in numbers if low * (1 - 1e-9) <= number <= high * (1 + 1e-9)]


def parameter_axis(kind: Parameter, values: Sequence[Any]) -> Axis:
    """The axis of a parameter.

    Args:
        kind: What it may be.
        values: What it was.
    """
    numbers = [number for value in values if (number := number_of(value)) is not None]
    if isinstance(kind, Choice) or not numbers:
        choices = list(kind.values) if isinstance(kind, Choice) else list(values)
        if all(number_of(value) is not None for value in choices):
            choices = sorted(choices)
        words = {encoded(value): value_text(value) for value in choices}
        return Axis(choices=tuple(words), words=tuple(words.values()))
    ends = (kind.low, kind.high) if isinstance(kind, Range) else (numbers[0], numbers[0])
    low, high = min(*ends, *numbers), max(*ends, *numbers)
    return Axis(low, high, log=is_log(kind) and low > 0, whole=isinstance(kind, Range) and kind.integer)


def score_axis(sweep: SweepFile, numbers: Sequence[float]) -> Axis:
    """The axis of the metric: from the best to the weakest that is not far beyond the others.

    Args:
        sweep: Says which end is the good one.
        numbers: Finite; at least one.
    """
    low, high = min(numbers), max(numbers)
    if len(numbers) > 3:
        first, _, third = statistics.quantiles(numbers, n=4, method="inclusive")
        if sweep.goal == "maximize":
            low = max(low, first - FAR * (third - first)) if third > first else low
        else:
            high = min(high, third + FAR * (third - first)) if third > first else high
    room = 0.04 * (high - low)
    return Axis(low - room, high + room)


def goodness(sweep: SweepFile, axis: Axis, trial: Trial) -> float | None:
    """How good a trial is among all, from 0 to 1; `None` without a score.

    Args:
        sweep: Says which end is the good one.
        axis: Of the scores.
        trial: One of them.
    """
    place = axis.place(trial.score)
    if axis.high <= axis.low:
        return None if place is None else 1.0
    return place if place is None or sweep.goal == "maximize" else 1 - place
