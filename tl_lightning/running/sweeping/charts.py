"""The images of a sweep's report, as SVG; what is drawn for a trial bears its number, by which the page lights it."""

from collections.abc import Iterable, Mapping, Sequence

from tl_lightning.running.sweeping.axes import Axis, goodness
from tl_lightning.running.sweeping.drawing import (
    RIGHT,
    Point,
    frame,
    line,
    mark,
    path_of,
    svg,
    text_at,
    title_of,
    trial_attributes,
)
from tl_lightning.running.sweeping.showing import is_scored, number_of, shortened
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial


def history(sweep: SweepFile, trials: Sequence[Trial], scores: Axis) -> str:
    """The score of every trial in the order in which they began, and the best so far of the completed ones.

    Args:
        sweep: Says which figure it is.
        trials: In order.
        scores: The axis of the scores.
    """
    width, height = 480.0, 270.0
    last = trials[-1].number
    x = Axis(0, last + 1, whole=True)
    parts, across, up = frame(x, scores, width=width, height=height, below="trial")
    steps: list[Point] = []
    best: float | None = None
    better, weak = (max, 0.0) if sweep.goal == "maximize" else (min, 1.0)
    for trial in trials:
        at = across(x.place(trial.number) or 0.0)
        if trial.state == "completed" and trial.score is not None and is_scored(trial):
            after = trial.score if best is None else better(best, trial.score)
            level = up(scores.place(after) or 0.0)
            steps += [(at, steps[-1][1]), (at, level)] if steps else [(at, level)]
            best = after
    if steps:
        parts.append(f'<path d="{path_of([*steps, (width - RIGHT, steps[-1][1])])}" class="best-line"/>')
    for trial in trials:
        place = scores.place(trial.score)
        failed = trial.state == "failed" or place is None
        if trial.state == "running" and place is None:
            continue
        at, level = across(x.place(trial.number) or 0.0), up(weak if failed or place is None else place)
        attributes = trial_attributes(sweep, scores, trial, "dot" if not failed else "dot cross")
        parts.append(mark(at, level, attributes, title_of(sweep, trial), failed=failed))
    return svg(width, height, parts, f"{sweep.metric} of every trial in order")


def curves(sweep: SweepFile, trials: Sequence[Trial], scores: Axis, best: Trial | None) -> str:
    """The metric of every trial by validation; those that were stopped end early, with a dot.

    Args:
        sweep: Says which figure it is.
        trials: Those with a history.
        scores: The axis of the figure.
        best: Drawn last and thick.
    """
    width, height = 480.0, 270.0
    x = Axis(1, max(2, *(len(trial.history) for trial in trials)), whole=True)
    parts, across, up = frame(x, scores, width=width, height=height, below="validation")
    for trial in sorted(trials, key=lambda trial: best is not None and trial.number == best.number):
        points = [
            (across(x.place(k) or 0.0), up(place))
            for k, value in enumerate(trial.history, start=1)
            if (place := scores.place(value)) is not None
        ]
        if not points:
            continue
        kind = "curve best" if best is not None and trial.number == best.number else "curve"
        attributes = trial_attributes(sweep, scores, trial, kind)
        parts.append(f'<path d="{path_of(points)}" {attributes}>{title_of(sweep, trial)}</path>')
        if trial.state == "stopped" or len(points) == 1:
            dot = trial_attributes(sweep, scores, trial, "end")
            parts.append(f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="3" {dot}/>')
    return svg(width, height, parts, f"{sweep.metric} of every trial by validation")


def slice_of(sweep: SweepFile, trials: Sequence[Trial], scores: Axis, key: str, axis: Axis, name: str) -> str:
    """One parameter against the score.

    Args:
        sweep: Says which figure it is.
        trials: Those with a score.
        scores: The axis of the scores.
        key: Of the parameter.
        axis: Of its values.
        name: What it is called.
    """
    width, height = 360.0, 240.0
    parts, across, up = frame(axis, scores, width=width, height=height, below=name)
    for trial in trials:
        at, level = axis.place(trial.values.get(key)), scores.place(trial.score)
        if key not in trial.values or at is None or level is None:
            continue
        if axis.choices:  # side by side, else those of one choice would hide each other
            at += (trial.number * 0.618 % 1 - 0.5) * 0.5 / len(axis.choices)
        attributes = trial_attributes(sweep, scores, trial, "dot")
        parts.append(mark(across(at), up(level), attributes, title_of(sweep, trial), failed=False))
    return svg(width, height, parts, f"{sweep.metric} by {name}")


def parallel(
    sweep: SweepFile, trials: Sequence[Trial], scores: Axis, axes: Mapping[str, Axis], names: Mapping[str, str]
) -> str:
    """One line per trial across an axis per parameter, and the score at the right.

    Args:
        sweep: Says which figure it is.
        trials: Those with a score; drawn from the weakest to the best.
        scores: The axis of the scores.
        axes: By key.
        names: What each key is called.
    """
    gap, height, top, bottom = 150.0, 340.0, 34.0, 14.0
    width = gap * len(axes) + 130
    columns = [*((key, names[key], axis) for key, axis in axes.items()), ("", sweep.metric, scores)]

    def up(place: float) -> float:
        return height - bottom - place * (height - top - bottom)

    lines, front = [], []
    for trial in sorted(trials, key=lambda trial: goodness(sweep, scores, trial) or 0.0):
        points, places = [], []
        for column, (key, _, axis) in enumerate(columns):
            value = trial.values.get(key) if key else trial.score
            place = axis.place(value) if not key or key in trial.values else None
            places.append("" if place is None else f"{place:.3f}")
            if place is not None:
                points.append((46 + gap * column, up(place)))
        attributes = trial_attributes(sweep, scores, trial, "curve")
        lines.append(
            f'<path d="{path_of(points)}" data-places="{",".join(places)}" {attributes}>{title_of(sweep, trial)}</path>'
        )
    for column, (_, name, axis) in enumerate(columns):
        x = 46 + gap * column
        front.append(line(x, up(0), x, up(1), "axis"))
        front.append(text_at(x, 16, shortened(name, 22), kind="name"))
        for place, word in axis.ticks():
            front.append(line(x - 4, up(place), x, up(place), "axis"))
            front.append(text_at(x + 6, up(place) + 4, shortened(word, 19), anchor="start", kind="halo"))
        front.append(
            f'<rect x="{x - 14:.1f}" y="{top:g}" width="28" height="{height - top - bottom:g}" '
            f'class="brush" data-column="{column}"/>'
        )
    return svg(width, height, [*lines, *front], "all trials across their values")


def score_numbers(trials: Iterable[Trial]) -> list[float]:
    """The scores that are numbers."""
    return [number for trial in trials if (number := number_of(trial.score)) is not None]
