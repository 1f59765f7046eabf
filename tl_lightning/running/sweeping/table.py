"""A sweep in the terminal: a table that is drawn anew while it goes on, or a line for each trial that ended."""

import re
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tl_lightning.core.console import duration
from tl_lightning.running.sweeping.best import best_trial
from tl_lightning.running.sweeping.showing import (
    STATES,
    is_scored,
    ranked,
    score_text,
    short_names,
    shortened,
    shortened_end,
    value_text,
    varied,
)
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

WIDTH = 80  # of every terminal
SHOWN = 8  # trials of each kind
WIDEST = 10  # letters of a value
HEADS = ("trial", "val.", "score", "time")  # beside the values; "val." are the validations so far
MARKS = {"running": "▸", "stopped": "◦"}
STYLES = {"running": "cyan", "stopped": "dim", "failed": "red", "completed": ""}


def render(
    sweep: SweepFile,
    trials: Sequence[Trial],
    *,
    planned: int | None,
) -> RenderableType:
    """The sweep as it stands: what runs on top, then the best of what ended, then counts and the time left.

    Args:
        sweep: What was asked for.
        trials: All so far, in any order.
        planned: How many there will be; `None` where nobody knows.

    Returns:
        At most 80 columns wide.
    """
    running = [trial for trial in sorted(trials, key=lambda trial: trial.number) if trial.state == "running"]
    ended = [trial for trial in ranked(sweep, trials) if trial.state in ("completed", "stopped")]
    shown = [*running[:SHOWN], *ended[:SHOWN]]
    lines: list[RenderableType] = [Text(f"{sweep.name}: {sweep.goal} {sweep.metric}, {sweep.method}", style="bold")]
    if shown:
        lines.append(_table(sweep, shown))
    elif not trials:
        lines.append(Text("the workers are starting", style="dim"))
    if len(running) > SHOWN:
        lines.append(Text(f"and {len(running) - SHOWN} more running", style="dim"))
    lines.append(Text(counts(trials, planned=planned)))
    if (best := best_trial(sweep, trials)) is not None:
        lines.append(Text(f"best so far {score_text(best.score)} by trial {best.number}"))
    if (left := time_left(trials, planned=planned)) is not None:
        lines.append(Text(f"about {duration(left)} left"))
    return Group(*lines)


def _table(sweep: SweepFile, shown: Sequence[Trial]) -> Table:
    names = {key: _stacked(name) for key, name in short_names(varied(sweep)).items()}
    cells = {key: [_cell(trial, key) for trial in shown] for key in names}
    rows = [_cells(trial) for trial in shown]
    room = WIDTH - sum(max(map(len, column)) + 1 for column in zip(HEADS, *rows, strict=True))
    columns = []
    for key, name in names.items():
        width = max(map(len, (*name.split("\n"), *cells[key]))) + 1
        if width <= room:
            columns.append(key)
            room -= width
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")
    table.add_column(Text(HEADS[0]), justify="right", no_wrap=True)
    for key in columns:
        table.add_column(Text(names[key]), no_wrap=True)
    for head in HEADS[1:]:
        table.add_column(Text(head), justify="right", no_wrap=True)
    for place, (trial, (first, *others)) in enumerate(zip(shown, rows, strict=True)):
        values = [Text(cells[key][place]) for key in columns]
        table.add_row(first, *values, *others, style=STYLES[trial.state])
    notes = [f"{mark} {STATES[state]}" for state, mark in MARKS.items() if any(trial.state == state for trial in shown)]
    if hidden := [name.replace("\n", "") for key, name in names.items() if key not in columns]:
        notes.append(f"no room for {', '.join(hidden)}")
    table.caption = Text(shortened_end("; ".join(notes), WIDTH))
    return table


def _cells(trial: Trial) -> tuple[str, ...]:
    running = trial.state == "running"
    score = (trial.history[-1] if trial.history else None) if running else trial.score
    time = "" if trial.seconds is None else duration(trial.seconds)
    return (f"{MARKS.get(trial.state, '')}{trial.number}", str(len(trial.history)), score_text(score), time)


def _stacked(name: str) -> str:
    """A name over several lines, none longer than a value, broken behind its underscores and dots."""
    lines = [""]
    for part in re.findall(r"[^_.]*[_.]?", name):
        if len(lines[-1]) + len(part) > WIDEST and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(shortened_end(line, WIDEST) for line in lines)


def _cell(trial: Trial, key: str) -> str:
    return shortened(value_text(trial.values[key]), WIDEST) if key in trial.values else ""


def counts(trials: Sequence[Trial], *, planned: int | None) -> str:
    """How many trials are in which state, and how many are to come, in one line.

    Args:
        trials: All so far.
        planned: How many there will be; `None` where nobody knows.
    """
    have = Counter[str](trial.state for trial in trials)
    parts = [f"{have[state]} {word}" for state, word in STATES.items() if have[state] or state == "completed"]
    if planned is not None:
        parts.append(f"{max(planned - len(trials), 0)} to come")
    return ", ".join(parts)


def time_left(trials: Sequence[Trial], *, planned: int | None) -> float | None:
    """An estimate in seconds, from how long the trials took that ended, with as many at a time as run now.

    Args:
        trials: All so far.
        planned: How many there will be.

    Returns:
        `None` where nothing is known: no trial ended, none runs, or there is no end.
    """
    running = [trial for trial in trials if trial.state == "running"]
    ended = [trial.seconds for trial in trials if trial.state in ("completed", "stopped") and trial.seconds is not None]
    if planned is None or not ended or not running:
        return None
    each = sum(ended) / len(ended)
    rest = sum(max(each - (trial.seconds or 0.0), 0.0) for trial in running)
    return (rest + each * max(planned - len(trials), 0)) / len(running)


def finished_line(sweep: SweepFile, trial: Trial, best: Trial | None) -> str:
    """What became of a trial, in one line, for where the output is no terminal.

    Args:
        sweep: What was asked for.
        trial: One that is not running.
        best: The best of the completed ones so far, this one among them; `None` where there is none.
    """
    names = short_names(varied(sweep))
    values = ", ".join(f"{name}={value_text(trial.values[key])}" for key, name in names.items() if key in trial.values)
    time = "" if trial.seconds is None else f", {duration(trial.seconds)}"
    head = f"trial {trial.number:<5}"
    if trial.state == "failed":
        return f"{head}failed: {trial.error} ({values}{time})"
    early = f", stopped early after {len(trial.history)} validations" if trial.state == "stopped" else ""
    score = f"{sweep.metric} {score_text(trial.score)}" if is_scored(trial) else f"no {sweep.metric}"
    beside = (
        "" if best is None else ", the best" if best.number == trial.number else f" (best {score_text(best.score)})"
    )
    return f"{head}{score}{beside}{early}{time}: {values}"
