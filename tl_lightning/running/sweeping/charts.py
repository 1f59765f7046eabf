"""The charts of a sweep's report; whatever is drawn of a trial links to its row in the table of all trials."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_lightning.core.pages.page import Chart
from tl_lightning.core.plots import as_svg, log_scale, new_figure
from tl_lightning.running.sweeping.parameters import Choice, Parameter, Range
from tl_lightning.running.sweeping.showing import (
    STATES,
    encoded,
    is_log,
    is_scored,
    number_of,
    score_text,
    shortened,
    value_text,
)
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR = 1.5  # interquartile ranges beyond the quartile; what lies further, as a diverged trial, is drawn at the edge
BLUE, RED = "#2a86cf", "#d62728"
MARKERS = {"completed": "o", "stopped": "o", "running": "d", "waiting": "s", "failed": "x"}


@dataclass(frozen=True)
class Axis:
    """Where the values of a parameter, or the scores, lie.

    Attributes:
        low: The least that is drawn.
        high: The most that is drawn.
        log: Whether equal factors are equally far apart.
        words: What the choices are called, by their values as JSON; they lie at 0, 1, 2. Empty for numbers.
    """

    low: float
    high: float
    log: bool = False
    words: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, kind: Parameter, values: Sequence[Any]) -> "Axis":
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
            words = tuple({encoded(value): value_text(value) for value in choices}.items())
            return cls(-0.5, len(words) - 0.5, words=words)
        ends = (kind.low, kind.high) if isinstance(kind, Range) else ()
        low, high = min(*ends, *numbers, math.inf), max(*ends, *numbers, -math.inf)
        return cls(low, high, log=is_log(kind) and low > 0)

    def at(self, value: Any) -> float:  # noqa: ANN401 - anything that YAML holds
        """Where a value lies, beyond an end at that end; not a number where it is none of the axis."""
        if self.words:
            codes = [code for code, _ in self.words]
            return float(codes.index(encoded(value))) if encoded(value) in codes else math.nan
        number = number_of(value)
        return math.nan if number is None else min(max(number, self.low), self.high)

    def share(self, value: Any) -> float:  # noqa: ANN401 - anything that YAML holds
        """How far a value lies from the low end to the high one, from 0 to 1."""
        low, at, high = (math.log(x) if self.log else x for x in (self.low, self.at(value), self.high))
        return (at - low) / (high - low) if high > low else at * 0 + 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Five numbers, or all choices, each as `share` and in words."""
        if self.words:
            return [((place + 0.5) / len(self.words), word) for place, (_, word) in enumerate(self.words)]
        numbers = (np.geomspace if self.log else np.linspace)(self.low, self.high, 5).tolist()
        return [(self.share(number), f"{number:.3g}") for number in dict.fromkeys(numbers)]


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
    room = 0.04 * (high - low) or 0.04 * abs(high) or 0.04
    return Axis(low - room, high + room)


class SweepCharts:
    """Draws trials, the better the stronger in colour.

    Args:
        sweep: What was asked for.
        trials: In order; one or more has a score.
        best: Drawn thick; may be `None`.
    """

    def __init__(self, sweep: SweepFile, trials: Sequence[Trial], best: Trial | None) -> None:
        self._sweep, self._trials, self._best = sweep, trials, best
        self._scores = score_axis(sweep, [trial.score for trial in trials if is_scored(trial)])  # type: ignore[misc]
        self._tips = {_link(trial): self._tip(trial) for trial in trials}

    def _tip(self, trial: Trial) -> str:
        score = score_text(trial.score) if is_scored(trial) else "none"
        return f"trial {trial.number}, {STATES[trial.state]}: {self._sweep.metric} {score}"

    def goodness(self, trial: Trial) -> float:
        """How good a trial is among all, from 0 to 1; 0 without a score."""
        share = self._scores.share(trial.score)
        return 0.0 if math.isnan(share) else share if self._sweep.goal == "maximize" else 1 - share

    def _colour(self, trial: Trial) -> tuple[float, float, float, float]:
        from matplotlib.colors import to_rgba

        failed = trial.state == "failed"
        return to_rgba(RED if failed else BLUE, 1.0 if failed else 0.25 + 0.75 * self.goodness(trial) ** 2)

    def _mark(self, axes: "Axes", places: Iterable[tuple[Trial, float, float]]) -> None:
        for state, marker in MARKERS.items():
            group = [(trial, x, y) for trial, x, y in places if trial.state == state and not math.isnan(x + y)]
            if not group:
                continue
            trials, across, up = zip(*group, strict=True)
            colours = [self._colour(trial) for trial in trials]
            paint = {"facecolors": "none", "edgecolors": colours} if state == "stopped" else {"color": colours}
            urls = [_link(trial) for trial in trials]
            axes.scatter(across, up, s=30, marker=marker, urls=urls, label=STATES[state], clip_on=False, **paint)

    def _chart(self, figure: "Figure", name: str, caption: str, *, wide: bool = False) -> Chart:
        return Chart(caption, as_svg(figure, name, self._tips), wide)

    def history(self) -> Chart:
        """The score of every trial in the order in which they began, and the best so far of the completed ones."""
        from matplotlib.ticker import MaxNLocator

        figure, axes = new_figure()
        completed = [trial for trial in self._trials if trial.state == "completed" and is_scored(trial)]
        best = accumulate((self._scores.at(trial.score) for trial in completed), max if self._up else min)
        numbers = [trial.number for trial in completed]
        axes.step(numbers, list(best), "k--", where="post", linewidth=1, label="best so far")
        weak = self._scores.low if self._up else self._scores.high
        failed = {trial.number: weak for trial in self._trials if trial.state == "failed"}
        self._mark(axes, [(t, t.number, failed.get(t.number, self._scores.at(t.score))) for t in self._trials])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel=self._sweep.metric, ylim=(self._scores.low, self._scores.high))
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
        return self._chart(
            figure, "history", "Whether later trials still found better ones; far weaker ones are drawn at the edge."
        )

    @property
    def _up(self) -> bool:
        return self._sweep.goal == "maximize"

    def curves(self) -> Chart | None:
        """The metric of every trial by validation; `None` where there was no validation."""
        from matplotlib.ticker import MaxNLocator

        numbers = [number for t in self._trials for value in t.history if (number := number_of(value)) is not None]
        if not numbers:
            return None
        figure, axes = new_figure()
        axis = score_axis(self._sweep, numbers)
        for trial in sorted(self._trials, key=self.goodness):
            best = self._best is not None and trial.number == self._best.number
            values = [axis.at(value) for value in trial.history]
            ends = [-1] if trial.state == "stopped" or len(values) == 1 else []
            (line,) = axes.plot(range(1, len(values) + 1), values, "o-", markevery=ends, color=self._colour(trial))
            line.set(linewidth=3 if best else 1.4, markersize=5, url=_link(trial))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="validation", ylabel=self._sweep.metric, ylim=(axis.low, axis.high))
        return self._chart(
            figure, "curves", "Which trials were ahead early: the best is thick, a dot ends those that were stopped."
        )

    def by_parameter(self, key: str, axis: Axis, name: str) -> Chart:
        """One parameter against the score.

        Args:
            key: The parameter's.
            axis: Where its values lie.
            name: What it is called.
        """
        figure, axes = new_figure()
        places = []
        for trial in self._trials:
            # Those of one choice stand side by side, else they would hide each other.
            aside = (trial.number * 0.618 % 1 - 0.5) * 0.5 if axis.words else 0.0
            at = axis.at(trial.values[key]) if key in trial.values else math.nan
            places.append((trial, at + aside, self._scores.at(trial.score)))
        self._mark(axes, places)
        if axis.log:
            log_scale(axes)
        if axis.words:
            letters = max(48 // len(axis.words), 6)
            axes.set_xticks(range(len(axis.words)), [shortened(word, letters) for _, word in axis.words])
        if axis.high > axis.low:
            axes.set_xlim(axis.low, axis.high)
        axes.set(xlabel=name, ylabel=self._sweep.metric, ylim=(self._scores.low, self._scores.high))
        return self._chart(figure, key, f"Which {name} the good trials have.")

    def parallel(self, axes_of: dict[str, tuple[str, Axis]]) -> Chart:
        """A line per trial across an axis per parameter, to the score at the right.

        Args:
            axes_of: What each parameter is called, and where its values lie, by key.
        """
        columns = [*axes_of.items(), ("", (self._sweep.metric, self._scores))]
        figure, axes = new_figure(1.9 * len(columns), 4.4)
        for trial in sorted((trial for trial in self._trials if is_scored(trial)), key=self.goodness):
            values = {**trial.values, "": trial.score}
            up = [axis.share(values[key]) if key in values else math.nan for key, (_, axis) in columns]
            axes.plot(up, color=self._colour(trial), linewidth=1.2, url=_link(trial), clip_on=False)
        for column, (_, (_, axis)) in enumerate(columns):
            axes.axvline(column, color="black", linewidth=0.8)
            for place, word in axis.ticks():
                axes.annotate(
                    shortened(word, 17), (column, place), xytext=(3, 2), textcoords="offset points", fontsize=8
                )
        axes.set_xticks(range(len(columns)), [shortened(name, 20) for _, (name, _) in columns])
        axes.xaxis.tick_top()
        axes.set(ylim=(0, 1), yticks=[], xlim=(-0.05, len(columns) - 0.4))
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        return self._chart(
            figure,
            "parallel",
            "Where the strong lines, the good trials, run close together, a value matters.",
            wide=True,
        )


def _link(trial: Trial) -> str:
    return f"#trial-{trial.number}"
