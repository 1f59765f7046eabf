"""The tables of a sweep's report: all trials, and why some failed."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tl_lightning.running.sweeping.axes import Axis, score_axis
from tl_lightning.running.sweeping.charts import score_numbers
from tl_lightning.running.sweeping.drawing import trial_attributes
from tl_lightning.running.sweeping.showing import (
    STATES,
    duration,
    is_scored,
    number_of,
    score_text,
    short_names,
    value_text,
    varied,
)
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial


def table(sweep: SweepFile, trials: Sequence[Trial], best: Trial | None, folder: Path) -> str:
    """All trials, a row each, which a click on a heading sorts.

    Args:
        sweep: Says what varied.
        trials: In order.
        best: In bold.
        folder: Where the page will be, from which the runs' folders are linked.
    """
    if not trials:
        return ""
    names = short_names(varied(sweep))
    numeric = {
        key: all(number_of(trial.values[key]) is not None for trial in trials if key in trial.values) for key in names
    }
    heads = [("trial", True, ""), ("score", True, sweep.metric), ("state", False, "")]
    heads += [(name, numeric[key], key) for key, name in names.items()]
    heads += [("validations", True, ""), ("seconds", True, ""), ("folder", False, "")]
    top = "".join(
        f'<th class="{"number" if right else "text"}" title="{escape(title)}"><button>{escape(name)}</button></th>'
        for name, right, title in heads
    )
    scores = score_axis(sweep, score_numbers(trials) or [0.0])
    rows = "".join(_row(sweep, trial, best, names, numeric, scores, folder) for trial in trials)
    return (
        f'<h2>All trials</h2><div class="scroll"><table class="sortable"><thead><tr>{top}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(
    sweep: SweepFile,
    trial: Trial,
    best: Trial | None,
    names: Mapping[str, str],
    numeric: Mapping[str, bool],
    scores: Axis,
    folder: Path,
) -> str:
    known = {names[key]: trial.values[key] for key in names if key in trial.values}
    told = f"trial {trial.number}, {STATES[trial.state]}, {sweep.metric} {score_text(trial.score) or 'none'}"
    told += "".join(f"  ·  {name} {value_text(value)}" for name, value in known.items())
    told += f"  ·  {trial.error}" if trial.error else ""
    score = score_text(trial.score) if is_scored(trial) else ""
    cells = [_cell(str(trial.number), trial.number, right=True), _cell(score, trial.score if score else "", right=True)]
    cells.append(f'<td class="state">{STATES[trial.state]}</td>')
    for key in names:
        value = trial.values.get(key)
        text = value_text(value) if key in trial.values else ""
        cells.append(_cell(text, value if numeric[key] and text else text, right=numeric[key]))
    seconds = "" if trial.seconds is None else trial.seconds
    cells.append(_cell(str(len(trial.history)), len(trial.history), right=True))
    cells.append(_cell("" if trial.seconds is None else duration(trial.seconds), seconds, right=True))
    path = os.path.relpath(trial.folder, folder)
    cells.append(f'<td><a href="{escape(_link(path))}">{escape(trial.folder.name)}</a></td>')
    kind = "top" if best is not None and trial.number == best.number else "row"
    attributes = trial_attributes(sweep, scores, trial, kind)
    return f'<tr data-told="{escape(told)}" {attributes}>{"".join(cells)}</tr>'


def _cell(text: str, sort: Any, *, right: bool) -> str:  # noqa: ANN401 - a number, or a text
    kind = "number" if right else "value"
    return f'<td class="{kind}" data-sort="{escape(str(sort))}" title="{escape(text)}">{escape(text)}</td>'


def _link(path: str) -> str:
    return quote(os.fsencode(Path(path).as_posix()))


def failures(trials: Sequence[Trial]) -> str:
    """Why trials failed; nothing where none did."""
    rows = "".join(
        f'<tr data-trial="{trial.number}" class="failed"><td class="number">{trial.number}</td>'
        f'<td class="wrap">{escape(trial.error or "no reason is known")}</td></tr>'
        for trial in trials
        if trial.state == "failed"
    )
    heads = '<tr><th class="number">trial</th><th>reason</th></tr>'
    return f'<h2>Failed</h2><div class="scroll"><table>{heads}{rows}</table></div>' if rows else ""
