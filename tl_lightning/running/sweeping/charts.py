"""The pictures of a sweep's report, as SVG; what is drawn for a trial bears its number, by which the page lights it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from tl_lightning.running.sweeping.axes import Axis, goodness
from tl_lightning.running.sweeping.showing import STATES, is_scored, number_of, score_text, shortened
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

Point = tuple[float, float]
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 34.0  # room around a picture for what is written there
LETTER = 6.2  # pixels that a letter takes, about


def _svg(width: float, height: float, parts: Iterable[str], label: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def trial_attributes(sweep: SweepFile, scores: Axis, trial: Trial, kind: str) -> str:
    """What makes an element one of a trial: its number, its state, and how good it is as its colour: squared, so
    that the best stand out.

    Args:
        sweep: Says which end of the scores is the good one.
        scores: The axis of the scores.
        trial: Whose element it is.
        kind: Further classes.
    """
    good = goodness(sweep, scores, trial)
    share = "" if good is None else f' style="--good:{100 * good**2:.0f}%"'
    return f'data-trial="{trial.number}" class="{kind} {trial.state}"{share}'


def title_of(sweep: SweepFile, trial: Trial) -> str:
    """What is shown where the pointer rests on a trial."""
    score = score_text(trial.score) if is_scored(trial) else "none"
    return f"<title>{escape(f'trial {trial.number}, {STATES[trial.state]}: {sweep.metric} {score}')}</title>"


def _frame(
    x: Axis, y: Axis, *, width: float, height: float, below: str
) -> tuple[list[str], Callable[[float], float], Callable[[float], float]]:
    """The axes of a plot, and how places from 0 to 1 become pixels."""

    def across(place: float) -> float:
        return LEFT + place * (width - LEFT - RIGHT)

    def up(place: float) -> float:
        return height - BOTTOM - place * (height - TOP - BOTTOM)

    parts = []
    for place, word in y.ticks():
        parts += [_line(LEFT, up(place), width - RIGHT, up(place), "grid")]
        parts += [_text(LEFT - 6, up(place) + 4, word, anchor="end")]
    ticks = x.ticks()
    room = (width - LEFT - RIGHT) / max(len(ticks), 1)
    for place, word in ticks:
        parts.append(_text(across(place), height - BOTTOM + 15, shortened(word, max(int(room / LETTER), 3))))
    parts.append(_line(LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM, "axis"))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 4, below, kind="name"))
    return parts, across, up


def _mark(x: float, y: float, attributes: str, title: str, *, failed: bool) -> str:
    if failed:
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" {attributes}>{title}</path>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {attributes}>{title}</circle>'


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
    parts, across, up = _frame(x, scores, width=width, height=height, below="trial")
    line: list[Point] = []
    best: float | None = None
    better, weak = (max, 0.0) if sweep.goal == "maximize" else (min, 1.0)
    for trial in trials:
        at = across(x.place(trial.number) or 0.0)
        if trial.state == "completed" and trial.score is not None and is_scored(trial):
            after = trial.score if best is None else better(best, trial.score)
            level = up(scores.place(after) or 0.0)
            line += [(at, line[-1][1]), (at, level)] if line else [(at, level)]
            best = after
    if line:
        parts.append(f'<path d="{_path([*line, (width - RIGHT, line[-1][1])])}" class="best-line"/>')
    for trial in trials:
        place = scores.place(trial.score)
        failed = trial.state == "failed" or place is None
        if trial.state == "running" and place is None:
            continue
        at, level = across(x.place(trial.number) or 0.0), up(weak if failed or place is None else place)
        attributes = trial_attributes(sweep, scores, trial, "dot" if not failed else "dot cross")
        parts.append(_mark(at, level, attributes, title_of(sweep, trial), failed=failed))
    return _svg(width, height, parts, f"{sweep.metric} of every trial in order")


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
    parts, across, up = _frame(x, scores, width=width, height=height, below="validation")
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
        parts.append(f'<path d="{_path(points)}" {attributes}>{title_of(sweep, trial)}</path>')
        if trial.state == "stopped" or len(points) == 1:
            dot = trial_attributes(sweep, scores, trial, "end")
            parts.append(f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="3" {dot}/>')
    return _svg(width, height, parts, f"{sweep.metric} of every trial by validation")


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
    parts, across, up = _frame(axis, scores, width=width, height=height, below=name)
    for trial in trials:
        at, level = axis.place(trial.values.get(key)), scores.place(trial.score)
        if key not in trial.values or at is None or level is None:
            continue
        if axis.choices:  # side by side, else those of one choice would hide each other
            at += (trial.number * 0.618 % 1 - 0.5) * 0.5 / len(axis.choices)
        attributes = trial_attributes(sweep, scores, trial, "dot")
        parts.append(_mark(across(at), up(level), attributes, title_of(sweep, trial), failed=False))
    return _svg(width, height, parts, f"{sweep.metric} by {name}")


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
            f'<path d="{_path(points)}" data-places="{",".join(places)}" {attributes}>{title_of(sweep, trial)}</path>'
        )
    for column, (_, name, axis) in enumerate(columns):
        x = 46 + gap * column
        front.append(_line(x, up(0), x, up(1), "axis"))
        front.append(_text(x, 16, shortened(name, 22), kind="name"))
        for place, word in axis.ticks():
            front.append(_line(x - 4, up(place), x, up(place), "axis"))
            front.append(_text(x + 6, up(place) + 4, shortened(word, 19), anchor="start", kind="halo"))
        front.append(
            f'<rect x="{x - 14:.1f}" y="{top:g}" width="28" height="{height - top - bottom:g}" '
            f'class="brush" data-column="{column}"/>'
        )
    return _svg(width, height, [*lines, *front], "all trials across their values")


def score_numbers(trials: Iterable[Trial]) -> list[float]:
    """The scores that are numbers."""
    return [number for trial in trials if (number := number_of(trial.score)) is not None]
